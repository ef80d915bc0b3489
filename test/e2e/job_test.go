package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// jobState is the document of a job (docs/contracts.md).
type jobState struct {
	Status   string
	Attempts int
	Created  time.Time
	Started  time.Time // the latest attempt
	Finished time.Time
	Progress *struct{ Percent float64 }
	Result   *struct{ Data string }
	Links    struct{ Self, Result, Events, Socket string }
}

// testJobs: a report is asked for through a port-forward while its function is at zero pods, and read in all four ways
// through the same address.
func testJobs(t *testing.T) {
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	start := time.Now()
	status, answer, took := post(t, gateway+"/reports", `{"seconds":2,"rows":20,"format":"csv"}`)
	var job jobState
	if err := json.Unmarshal([]byte(answer), &job); status != http.StatusAccepted || err != nil || job.Status != "queued" {
		t.Fatalf("POST /reports: %d %s", status, answer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	type outcome struct {
		way      string
		last     jobState
		took     time.Duration
		progress time.Duration // when the first came
		err      error
	}
	outcomes := make(chan outcome)
	follow := func(way string, f func(saw func(jobState)) error) {
		go func() {
			o := outcome{way: way}
			o.err = f(func(s jobState) {
				if o.progress == 0 && s.Progress != nil && s.Progress.Percent > 0 {
					o.progress = time.Since(start)
				}
				o.last = s
			})
			o.took = time.Since(start)
			outcomes <- o
		}()
	}
	ask := func(header ...string) func(func(jobState)) error {
		return func(saw func(jobState)) error {
			for {
				s, err := getState(ctx, gateway+job.Links.Self, header...)
				if err != nil {
					return err
				}
				if saw(s); s.Status != "queued" && s.Status != "running" {
					return nil
				}
				select {
				case <-time.After(poll):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
	}
	follow("poll", ask())
	follow("long poll", ask("Prefer", "wait=20"))
	follow("events", func(saw func(jobState)) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway+job.Links.Events, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var s jobState
				if err := json.Unmarshal([]byte(data), &s); err != nil {
					return err
				}
				saw(s)
			}
		}
		return lines.Err()
	})
	follow("socket", func(saw func(jobState)) error {
		conn, _, err := websocket.Dial(ctx, gateway+job.Links.Socket, nil)
		if err != nil {
			return err
		}
		defer func() { _ = conn.CloseNow() }()
		for {
			_, data, err := conn.Read(ctx)
			if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
				return nil
			}
			var s jobState
			if err == nil {
				err = json.Unmarshal(data, &s)
			}
			if err != nil {
				return err
			}
			saw(s)
		}
	})
	var done jobState
	times := ""
	for range 4 {
		o := <-outcomes
		times += fmt.Sprintf("%s %s (progress after %s), ", o.way, o.took.Round(10*time.Millisecond), o.progress.Round(10*time.Millisecond))
		if o.err != nil || o.last.Status != "succeeded" {
			t.Errorf("%s: %v, %+v", o.way, o.err, o.last)
			continue
		}
		if rows := strings.Count(o.last.Result.Data, "\n"); rows != 21 { // a header line and the rows
			t.Errorf("%s: %d lines in %.100q", o.way, rows, o.last.Result.Data)
		}
		if done.Status != "" && o.last.Result.Data != done.Result.Data {
			t.Errorf("%s has another result: %.100q, not %.100q", o.way, o.last.Result.Data, done.Result.Data)
		}
		if done = o.last; o.progress == 0 && (o.way == "events" || o.way == "socket") {
			t.Errorf("%s told no progress", o.way)
		}
	}
	t.Logf("a report of 2 s from zero: 202 after %s; %sattempts %d, the last began %s and ended %s after the submission",
		took.Round(time.Millisecond), times, done.Attempts,
		done.Started.Sub(done.Created).Round(10*time.Millisecond), done.Finished.Sub(done.Created).Round(10*time.Millisecond))
}

func getState(ctx context.Context, url string, header ...string) (s jobState, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return s, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

const imports = `
apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: imports}
spec:
  routes:
  - {name: import, match: {method: POST, path: /imports}, job: {queue: imports, maxUploadBytes: 1Mi}}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: imports}
spec:
  maxAge: 1h
  maxBytes: 8Mi
  results: {maxBytes: 8Mi}
  objects: {maxBytes: 64Mi}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: imports}
spec: {queue: imports, function: {name: report}}
`

// testObjects: an input is uploaded to a pre-signed URL before its job is submitted, and a result that is too large
// for a state comes by another, all through the one address, with the NATS rights that the chart gives. The client's
// feed has the job's states.
func testObjects(t *testing.T) {
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	apply(t, imports)
	deleteAfter(t, "queues.weir.dev", "imports") // after the two that use it
	deleteAfter(t, "apis.weir.dev", "imports")
	deleteAfter(t, "esm", "imports")
	kubectl(t, "-n", sampleNamespace, "annotate", "--overwrite", "queues.weir.dev", "imports", "weir.dev/drop-records=true")
	waitReady(t, "queues.weir.dev/imports", "esm/imports", "apis.weir.dev/imports")
	const rows = 60_000
	input := fmt.Sprintf(`{"rows": %d, "format": "csv"}`, rows)
	var upload struct{ ID, URL string }
	eventually(t, "the gateway has the route", func() string {
		status, answer, _ := post(t, gateway+"/weir/uploads", fmt.Sprintf(`{"path":"/imports","size":%d,"contentType":"application/json"}`, len(input)))
		if err := json.Unmarshal([]byte(answer), &upload); status != http.StatusCreated || err != nil {
			return fmt.Sprintf("%d %s", status, answer)
		}
		return ""
	})
	do := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(req) // follows nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	start := time.Now()
	if resp := do(http.MethodPut, upload.URL, input, "Content-Type", "application/json"); resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT: %s", resp.Status)
	}
	var feed struct{ ID, Status string } // and then the states
	read := func(resp *http.Response) {  // JSON
		t.Helper()
		if err := json.NewDecoder(resp.Body).Decode(&feed); err != nil {
			t.Fatal(err)
		}
	}
	read(do(http.MethodPost, "/weir/feeds", ""))
	events := do(http.MethodGet, "/weir/feeds/"+feed.ID+"/events", "")
	job := do(http.MethodPost, "/imports", "", "Weir-Input", upload.ID, "Weir-Feed", feed.ID).Header.Get("Operation-Location")
	for lines := bufio.NewScanner(events.Body); feed.Status != "succeeded" && lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &feed); err != nil || "/weir/jobs/"+feed.ID != job || feed.Status == "failed" {
				t.Fatalf("told %s of job %s, %v", data, job, err)
			}
		}
	}
	located := do(http.MethodGet, job+"/result", "")
	if located.StatusCode != http.StatusSeeOther {
		t.Fatalf("the result: %s", located.Status)
	}
	resp := do(http.MethodGet, located.Header.Get("Location"), "")
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || int64(len(body)) != resp.ContentLength || strings.Count(string(body), "\n") != rows+1 {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(body), err)
	}
	t.Logf("a report of %d rows for an uploaded question: %d bytes after %s", rows, len(body), time.Since(start).Round(10*time.Millisecond))
}
