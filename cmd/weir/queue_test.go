package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// lists runs weir KIND list.
func lists(t *testing.T, s *localnats.Server, kind string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRoot()
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{kind, "list", "--nats", s.URL()}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// columns are the cells of a table's rows, by their heads.
func columns(t *testing.T, table string) []map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	heads := strings.Fields(lines[0])
	var out []map[string]string
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		if len(cells) != len(heads) {
			t.Fatalf("%d cells, %d heads:\n%s", len(cells), len(heads), table)
		}
		row := map[string]string{}
		for i, head := range heads {
			row[head] = cells[i]
		}
		out = append(out, row)
	}
	return out
}

// holds checks some cells of a row.
func holds(t *testing.T, row, want map[string]string) {
	t.Helper()
	for head, cell := range want {
		if row[head] != cell {
			t.Errorf("%s is %q, want %q: %v", head, row[head], cell, row)
		}
	}
}

// TestQueueList: what the command prints is what the queue holds, and what its dispatcher says.
func TestQueueList(t *testing.T) {
	s, _ := letters(t, 3, 2)
	table, err := lists(t, s, "queue")
	if err != nil {
		t.Fatal(err)
	}
	rows := columns(t, table)
	if len(rows) != 1 {
		t.Fatal(table)
	}
	holds(t, rows[0], map[string]string{
		"NAMESPACE": "default", "NAME": "orders", "RECORDS": "0", "OLDEST": "0s", "IN-FLIGHT": "0", "RETRYING": "0", "DEAD": "5", "OWNER": "none", "STATE": "-",
	})
	for _, args := range [][]string{{"--json", "-n", "default", "orders"}, {"--output", "json"}, {"-A", "-o", "json", "-n", "other"}} {
		text, err := lists(t, s, "queue", args...)
		var q listed
		if err != nil || json.Unmarshal([]byte(text), &q) != nil || q.Name != "orders" || q.Dead["refused"] != 5 || q.Owned || q.Records != 0 {
			t.Errorf("%v: %v %s", args, err, text)
		}
	}
	for _, args := range [][]string{{"-n", "other"}, {"order"}, {"--output", "yaml"}} {
		if _, err := lists(t, s, "queue", args...); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
}

// TestQueueListSaysWhichAreStray: a queue that the catalog doesn't have is none of a Queue, and how to take it over or remove it is
// said where the list is no one's input.
func TestQueueListSaysWhichAreStray(t *testing.T) {
	s, _ := letters(t, 1)
	c := testkit.Conn(t, s)
	queue := func(namespace, name string) catalog.Queue {
		return catalog.Queue{Key: catalog.Key{Namespace: namespace, Name: name}, Ordering: "none", MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	}
	open, deleting, away := queue("default", "open"), queue("default", "deleting"), queue("shop", "away")
	for _, q := range []catalog.Queue{open, deleting, away} {
		if err := c.EnsureQueue(t.Context(), q, 1); err != nil {
			t.Fatal(err)
		}
	}
	deleting.Closed = true
	if err := c.PublishCatalog(t.Context(), &catalog.Catalog{Queues: []catalog.Queue{open, deleting}}, 1, nil); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want map[string]string // state by name
	}{
		"a namespace":     {nil, map[string]string{"deleting": "deleting", "open": "open", "orders": "stray"}},
		"all of them":     {[]string{"-A"}, map[string]string{"deleting": "deleting", "open": "open", "orders": "stray", "away": "stray"}},
		"one that is":     {[]string{"orders"}, map[string]string{"orders": "stray"}},
		"one that is not": {[]string{"open"}, map[string]string{"open": "open"}},
		"one deleted":     {[]string{"deleting"}, map[string]string{"deleting": "deleting"}},
	} {
		t.Run(name, func(t *testing.T) {
			hinted := slices.Contains(slices.Collect(maps.Values(tc.want)), "stray")
			for _, format := range []string{"table", "json"} {
				var out, hint bytes.Buffer
				cmd := newRoot()
				cmd.SetOut(&out)
				cmd.SetErr(&hint)
				cmd.SetArgs(append([]string{"queue", "list", "--nats", s.URL(), "-o", format}, tc.args...))
				if err := cmd.ExecuteContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				got := map[string]string{}
				if format == "table" {
					for _, row := range columns(t, out.String()) {
						got[row["NAME"]] = row["STATE"]
					}
				} else {
					for line := range strings.Lines(out.String()) {
						var q listed
						if err := json.Unmarshal([]byte(line), &q); err != nil {
							t.Fatal(err)
						}
						got[q.Name] = q.State
					}
				}
				if !maps.Equal(got, tc.want) {
					t.Errorf("%s: %v, want %v", format, got, tc.want)
				}
				if strings.Contains(hint.String(), "weir.dev/drop-records=true") != hinted || !hinted && hint.Len() > 0 {
					t.Errorf("%s: beside the list: %q", format, &hint)
				}
			}
		})
	}
}

// TestMappingList: a mapping's calls are what its dispatcher says; "-" if that says nothing, and none without one.
func TestMappingList(t *testing.T) {
	s, _ := letters(t)
	c := testkit.Conn(t, s)
	key := func(name string) catalog.Key { return catalog.Key{Namespace: "default", Name: name} }
	machine := key("report")
	cat := &catalog.Catalog{Mappings: []catalog.Mapping{
		{Key: key("orders"), Queue: key("orders"), Function: catalog.Function{Name: "writer", URL: "http://writer"}, MaxConcurrency: 10},
		{Key: key("reports"), Queue: key("reports"), Function: catalog.Function{Name: "report", URL: "http://o"}, Machine: &machine, MaxConcurrency: 100},
		{Key: key("silent"), Queue: key("silent"), Function: catalog.Function{Name: "writer", URL: "http://writer"}, MaxConcurrency: 2},
		{Key: catalog.Key{Namespace: "other", Name: "more"}, Queue: catalog.Key{Namespace: "other", Name: "more"}, Function: catalog.Function{Name: "writer"}, MaxConcurrency: 1},
	}}
	if _, err := lists(t, s, "mapping"); err == nil {
		t.Error("no mapping is no error")
	}
	if err := c.PublishCatalog(t.Context(), cat, 1, nil); err != nil {
		t.Fatal(err)
	}
	serve := func(k catalog.Key, work *stream.Work) {
		stop, err := c.ServeTally(k, func() stream.Tally { return stream.Tally{Exact: true, Work: work} })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	serve(key("orders"), &stream.Work{Records: 40, Calls: 3, Limit: 5})
	serve(key("silent"), nil)
	if _, err := c.QueueKeys(t.Context()); err != nil { // the server knows the subscriptions by then
		t.Fatal(err)
	}
	table, err := lists(t, s, "mapping")
	if err != nil {
		t.Fatal(err)
	}
	rows := columns(t, table)
	if len(rows) != 3 {
		t.Fatal(table)
	}
	holds(t, rows[0], map[string]string{"NAME": "orders", "QUEUE": "orders", "FUNCTION": "writer", "CALLS": "3", "CAP": "10", "LIMIT": "5", "OWNER": "yes"})
	holds(t, rows[1], map[string]string{"NAME": "reports", "FUNCTION": "statemachine/report", "CALLS": "0", "CAP": "100", "LIMIT": "-", "OWNER": "none"})
	holds(t, rows[2], map[string]string{"NAME": "silent", "CALLS": "-", "CAP": "2", "LIMIT": "-", "OWNER": "yes"})
	if table, err = lists(t, s, "mapping", "-A"); err != nil || len(columns(t, table)) != 4 {
		t.Errorf("%v %s", err, table)
	}
	text, err := lists(t, s, "mapping", "orders", "-o", "json")
	if want := `{"namespace":"default","name":"orders","queue":"orders","function":"writer","cap":10,"calls":3,"limit":5,"owned":true}` + "\n"; err != nil || text != want {
		t.Errorf("%v %s, want %s", err, text, want)
	}
	if table, err = lists(t, s, "queue"); err != nil || columns(t, table)[0]["IN-FLIGHT"] != "40" {
		t.Errorf("%v %s", err, table)
	}
}
