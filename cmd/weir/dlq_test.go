package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// letters is a queue with dead letters in blocks of so many.
func letters(t *testing.T, blocks ...int) (*localnats.Server, []string) {
	t.Helper()
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	if err := c.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, n := range blocks {
		var rs []record.Record
		for range n {
			id, err := record.NewID()
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id.String())
			rs = append(rs, record.Record{ID: id, Time: time.Now(), Body: []byte(`{"n":1}`), Failure: &record.Failure{Time: time.Now(), Reason: "bad"}})
		}
		if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, rs); err != nil {
			t.Fatal(err)
		}
	}
	return s, ids
}

func run(t *testing.T, s *localnats.Server, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newDLQ()
	cmd.SilenceUsage = true
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(append(args, "--nats", s.URL()))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func TestListGoesOnWhereItStopped(t *testing.T) {
	s, ids := letters(t, 3, 1, 5, 4)
	var got []string
	after, rounds := "", 0
	for more := true; more; rounds++ {
		args := []string{"list", "orders", "--limit", "2", "--json"}
		if after != "" {
			args = append(args, "--after", after)
		}
		stdout, stderr, err := run(t, s, args...)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		if len(lines) > 2 {
			t.Fatalf("more than --limit:\n%s", stdout)
		}
		for _, line := range lines {
			var l letter
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			got, after = append(got, l.ID), l.Cursor
		}
		more = stderr != ""
		if want := "there are more: --after " + after + "\n"; more && stderr != want {
			t.Errorf("%q, want %q", stderr, want)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(ids) || rounds != 7 {
		t.Errorf("in %d rounds:\n%v, want\n%v", rounds, got, ids)
	}
	if _, stderr, err := run(t, s, "list", "orders", "--after", after); err != nil || stderr != "no more dead letters\n" {
		t.Errorf("past the end: %q, %v", stderr, err)
	}
	if stdout, stderr, err := run(t, s, "list", "orders"); err != nil || stderr != "" || strings.Count(stdout, "\n") != 1+len(ids) {
		t.Errorf("all: %v\n%s%s", err, stdout, stderr)
	}
	for _, bad := range [][]string{{"--limit", "0"}, {"--after", "x"}, {"--after", "3"}, {"--after", "3.0"}} {
		if _, _, err := run(t, s, append([]string{"list", "orders"}, bad...)...); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestShowBeginsAtACursor(t *testing.T) {
	s, ids := letters(t, 2, 2)
	stdout, _, err := run(t, s, "show", "orders", ids[3])
	if err != nil || !strings.Contains(stdout, ids[3]) || !strings.Contains(stdout, `"n": 1`) {
		t.Errorf("%v\n%s", err, stdout)
	}
	listed, _, err := run(t, s, "list", "orders", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var at letter
	if err := json.Unmarshal([]byte(strings.Split(listed, "\n")[2]), &at); err != nil {
		t.Fatal(err)
	}
	if stdout, _, err = run(t, s, "show", "orders", ids[2], "--from", at.Cursor); err != nil || !strings.Contains(stdout, ids[2]) {
		t.Errorf("%v\n%s", err, stdout)
	}
	if _, _, err = run(t, s, "show", "orders", ids[1], "--from", at.Cursor); err == nil {
		t.Error("it is before the cursor, and is found")
	}
}

func TestPurgeSaysWhatTheServerCounted(t *testing.T) {
	s, _ := letters(t, 3, 1)
	_, stderr, err := run(t, s, "purge", "orders", "--yes")
	if err != nil || stderr != "all dead letters deleted that were there: 2 messages, of one dead letter or more each\n" {
		t.Errorf("%q, %v", stderr, err)
	}
	if _, stderr, err := run(t, s, "list", "orders"); err != nil || stderr != "no dead letters\n" {
		t.Errorf("%q, %v", stderr, err)
	}
}

// TestRedriveExportsItsSpans where OpenTelemetry's environment says: before the command ends.
func TestRedriveExportsItsSpans(t *testing.T) {
	got := make(chan string, 8)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/v1/traces" {
			got <- string(body)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer backend.Close()
	s, _ := letters(t)
	c := testkit.Conn(t, s)
	if err := c.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	dead := record.Record{
		ID: id, Time: time.Now(), Body: []byte("x"), Failure: &record.Failure{Time: time.Now(), Reason: "bad"},
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	if err := c.DeadLetter(t.Context(), catalog.Key{Namespace: "default", Name: "orders"}, stream.Refused, []record.Record{dead}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	if _, stderr, err := run(t, s, "redrive", "orders"); err != nil || stderr != "1 dead letters moved back to queue orders\n" {
		t.Fatalf("%q, %v", stderr, err)
	}
	select {
	case spans := <-got:
		for _, want := range []string{"redrive default/orders", "weir-cli", id.String()} {
			if !strings.Contains(spans, want) {
				t.Errorf("no %q in %q", want, spans)
			}
		}
	default:
		t.Error("nothing was exported")
	}
}
