package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/realtime"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// jobs is a gateway, a dispatcher and realtime with one queue of jobs.
type jobs struct {
	t       *testing.T
	conn    *stream.Conn
	queue   catalog.Key
	url     string
	cat     catalog.Catalog
	release func() // the dispatcher, which until then has not begun
	stop    func() // all
}

// maxObjects is the room for large inputs and results, in bytes, of which one may have maxObject.
const (
	maxObjects = 64 << 20
	maxObject  = maxObjects / 2
)

func startJobs(t *testing.T, fn http.HandlerFunc, change ...func(*catalog.Mapping)) *jobs {
	t.Helper()
	return startJobsOf(t, fn, nil, func(c *catalog.Catalog) {
		for _, f := range change {
			f(&c.Mappings[0])
		}
	})
}

// startJobsOf takes the object store, nil if it is in NATS.
func startJobsOf(t *testing.T, fn http.HandlerFunc, store *objects.Store, change func(*catalog.Catalog)) *jobs {
	t.Helper()
	return startJobsAt(t, "", fn, store, change)
}

// startJobsAt gives clients addresses below base.
func startJobsAt(t *testing.T, base ownpath.Base, fn http.HandlerFunc, store *objects.Store, change func(*catalog.Catalog)) *jobs {
	t.Helper()
	server := testkit.NATS(t)
	conn := testkit.Conn(t, server)
	if store == nil {
		large, err := stream.Connect(stream.Config{URL: server.URL(), Name: "objects", PingInterval: objects.PingInterval, Log: testkit.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(large.Close)
		store = objects.Over(large, base)
	}
	j := &jobs{t: t, conn: conn, queue: catalog.Key{Namespace: "default", Name: "reports"}}
	srv := httptest.NewServer(fn)
	t.Cleanup(srv.Close)
	j.cat = catalog.Catalog{
		Queues: []catalog.Queue{{
			Key: j.queue, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour,
			Jobs: true, Results: catalog.Results{MaxAge: time.Hour, MaxBytes: 64 << 20}, Objects: catalog.Objects{MaxAge: 2 * time.Hour, MaxBytes: maxObjects},
		}},
		APIs: []catalog.API{{Key: catalog.Key{Namespace: "default", Name: "shop"}, Routes: []catalog.Route{
			{Name: "create-report", Method: "POST", Path: "/reports", MaxBodyBytes: 1000, Job: &catalog.QueueTarget{Queue: j.queue}, MaxUpload: maxObject},
		}}},
		Mappings: []catalog.Mapping{{
			Key: j.queue, Queue: j.queue, Function: catalog.Function{Name: "f", URL: srv.URL},
			Batch: catalog.Batch{MaxRecords: 100, MaxBytes: 1 << 20}, MaxConcurrency: 4, Timeout: testkit.Patience, Heartbeat: time.Hour, MaxResultBytes: maxObject,
			Retry: catalog.Retry{MaxAttempts: 2, InitialBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, MaxAge: time.Hour},
		}},
	}
	change(&j.cat)
	for _, err := range []error{conn.EnsureLeases(t.Context(), 1), conn.EnsureKeys(t.Context(), 1, time.Now()), conn.EnsureQueue(t.Context(), j.cat.Queues[0], 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	caller := invoke.NewCaller(16, telemetry.Providers{})
	t.Cleanup(caller.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := realtime.New(realtime.Config{Listener: rl, Conn: conn, Base: base, DrainTimeout: testkit.Patience, DrainSpread: time.Millisecond, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	r.Use(&j.cat)
	relay := jobapi.NewRelay(&url.URL{Scheme: "http", Host: rl.Addr().String()}, func(int64) {}, testkit.Log(t))
	g, err := gateway.New(gateway.Config{
		Listener: l, Conn: conn, Caller: caller, Objects: store, Codec: record.DefaultCodec, DrainTimeout: testkit.Patience, Log: testkit.Log(t),
		Realtime: relay, Base: base, H2C: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Use(&j.cat)
	d, err := dispatcher.New(dispatcher.Config{
		Conn: conn, Caller: caller, Objects: store, Owner: "a", CallbackURL: "http://" + l.Addr().String() + "/", DrainTimeout: time.Millisecond, Log: testkit.Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Use(&j.cat)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	j.stop = sync.OnceFunc(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		wg.Wait()
	})
	t.Cleanup(j.stop)
	wg.Go(func() { _ = g.Run(ctx, func() {}) })
	wg.Go(func() { _ = r.Run(ctx, func() {}) })
	wg.Go(func() { _ = relay.Run(ctx, func() {}) })
	wg.Go(func() {
		_ = conn.WatchKeys(ctx, func(ring sign.Ring) {
			store.UseKeys(ring)
			d.UseKeys(ring)
			g.UseKeys(ring)
			r.UseKeys(ring)
		})
	})
	leave := testkit.OwnStates(t, conn, j.queue)
	j.release = sync.OnceFunc(func() {
		leave()
		wg.Go(func() { _ = d.Run(ctx, func() {}) })
	})
	j.url = "http://" + l.Addr().String()
	testkit.Eventually(t, "the signing keys are there", func() bool { return j.do("GET", "/weir/jobs/x", "").status == http.StatusNotFound })
	return j
}

// jobReply is an answer about a job, read whole.
type jobReply struct {
	status int
	header http.Header
	body   string
	doc    struct {
		ID, Status string
		Attempts   int
		Progress   *struct {
			Percent float64
			Message string
		}
		Error *struct {
			Type, Detail string
			Status       int
		}
		Result *struct {
			ContentType string
			Size        int
			Data        json.RawMessage
		}
		Links struct{ Self, Result, Events, Socket string }
		Type  string // of a problem
	}
}

func (j *jobs) do(method, path, body string, header ...string) jobReply {
	j.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, j.url+path, strings.NewReader(body))
	if err != nil {
		j.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		j.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		j.t.Fatal(err)
	}
	r := jobReply{status: resp.StatusCode, header: resp.Header, body: string(b)}
	switch resp.Header.Get("Content-Type") {
	case "application/problem+json":
		var problem struct{ Type string }
		if err := json.Unmarshal(b, &problem); err != nil {
			j.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
		r.doc.Type = problem.Type
	case "application/json":
		if err := json.Unmarshal(b, &r.doc); err != nil {
			j.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return r
}

// submit posts a job and returns its path.
func (j *jobs) submit(body string, header ...string) string {
	j.t.Helper()
	r := j.do("POST", "/reports", body, header...)
	if r.status != http.StatusAccepted || r.doc.Status != "queued" || r.header.Get("Operation-Location") != r.doc.Links.Self || r.header.Get("Location") != r.doc.Links.Result || r.header.Get("Retry-After") == "" {
		j.t.Fatalf("submitted: %+v", r)
	}
	return r.doc.Links.Self
}

// until polls, as clients do that wait for each change, until the job has the status.
func (j *jobs) until(path, status string) jobReply {
	j.t.Helper()
	var r jobReply
	testkit.Eventually(j.t, "the job is "+status, func() bool {
		r = j.do("GET", path, "", "Prefer", "wait=5", "If-None-Match", r.header.Get("Etag"))
		return r.doc.Status == status
	})
	return r
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func TestJob(t *testing.T) {
	called, finish := make(chan *http.Request, 1), make(chan struct{})
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		called <- r
		<-finish
		answer(w, http.StatusOK, "report of "+string(b))
	})
	path := j.submit("everything", "Content-Type", "text/csv")
	r := j.do("GET", path, "")
	if r.status != http.StatusOK || r.doc.Status != "queued" || r.doc.Attempts != 0 || r.header.Get("Etag") == "" {
		t.Errorf("queued: %+v", r)
	}
	if again := j.do("GET", path, "", "If-None-Match", r.header.Get("Etag")); again.status != http.StatusNotModified || again.body != "" {
		t.Errorf("unchanged: %+v", again)
	}
	waited := make(chan jobReply)
	go func() { waited <- j.do("GET", path, "", "Prefer", "wait=20") }()
	j.release()
	if req := <-called; req.Header.Get("Content-Type") != "text/csv" || req.Header.Get("Ce-Id") == "" {
		t.Errorf("called with %v", req.Header)
	}
	if r := <-waited; r.doc.Status != "running" || r.doc.Attempts != 1 || r.header.Get("Preference-Applied") != "wait=20" {
		t.Errorf("the long poll saw %+v, want the change to running", r)
	}
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusAccepted || r.doc.Status != "running" || r.header.Get("Retry-After") == "" {
		t.Errorf("result while it runs: %+v", r)
	}
	go func() { waited <- j.do("GET", path+"/result", "", "Prefer", "wait=20") }()
	close(finish)
	r = <-waited
	if r.status != http.StatusOK || r.body != "report of everything" || r.header.Get("Content-Type") != "text/plain" {
		t.Errorf("result: %+v", r)
	}
	if again := j.do("GET", path+"/result", "", "If-None-Match", r.header.Get("Etag")); again.status != http.StatusNotModified {
		t.Errorf("the result has not changed: %+v", again)
	}
	if r := j.do("GET", path, ""); r.doc.Status != "succeeded" || r.doc.Attempts != 1 || r.doc.Result == nil || r.doc.Result.Size != len("report of everything") {
		t.Errorf("succeeded: %+v", r)
	}
	if r := j.do("DELETE", path, ""); r.status != http.StatusConflict || r.doc.Type != "https://weir.dev/problems/job-ended" {
		t.Errorf("cancelled too late: %+v", r)
	}

	// Ids that were never given.
	for _, bad := range []string{"/weir/jobs/x", "/weir/jobs/x/result", path[:len(path)-1] + "_", path + "x"} {
		if r := j.do("GET", bad, ""); r.status != http.StatusNotFound || r.doc.Type != "https://weir.dev/problems/no-job" {
			t.Errorf("%s: %+v", bad, r)
		}
	}
	if r := j.do("GET", path+"/nothing", ""); r.status != http.StatusNotFound || r.doc.Type != "https://weir.dev/problems/no-route" {
		t.Errorf("%+v", r)
	}
	if r := j.do("PUT", path, ""); r.status != http.StatusMethodNotAllowed || r.header.Get("Allow") != "DELETE, GET, HEAD" {
		t.Errorf("%+v", r)
	}
}

// TestJobPreferWait: one endpoint serves clients that wait and those that don't.
func TestJobPreferWait(t *testing.T) {
	slow := make(chan struct{})
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		switch b, _ := io.ReadAll(r.Body); string(b) {
		case "slow":
			<-slow
		case "wrong":
			answer(w, http.StatusUnprocessableEntity, "no such format")
			return
		}
		answer(w, http.StatusOK, "done")
	})
	defer close(slow)
	j.release()
	r := j.do("POST", "/reports", "quick", "Prefer", "respond-async, wait=20")
	if r.status != http.StatusOK || r.body != "done" || r.header.Get("Preference-Applied") != "respond-async, wait=20" {
		t.Errorf("quick: %+v", r)
	}
	if s := j.do("GET", r.header.Get("Operation-Location"), ""); s.doc.Status != "succeeded" {
		t.Errorf("its job: %+v", s)
	}
	if r := j.do("POST", "/reports", "slow", "Prefer", `wait="1"`); r.status != http.StatusAccepted || r.doc.Status != "running" || r.header.Get("Preference-Applied") != "wait=1" {
		t.Errorf("slow: %+v", r)
	}
	if r := j.do("POST", "/reports", "quick", "Prefer", "respond-async"); r.status != http.StatusAccepted || r.header.Get("Preference-Applied") != "respond-async" {
		t.Errorf("not waited for: %+v", r)
	}
	r = j.do("POST", "/reports", "wrong", "Prefer", "wait=20")
	if r.status != http.StatusUnprocessableEntity || r.doc.Type != "https://weir.dev/problems/job-failed" || !strings.Contains(r.body, "no such format") {
		t.Errorf("refused: %+v", r)
	}
}

func TestJobCancel(t *testing.T) {
	var calls atomic.Int64
	called, broken := make(chan struct{}, 10), make(chan struct{}, 10)
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // else a broken connection is not noticed
		called <- struct{}{}
		<-r.Context().Done()
		broken <- struct{}{}
		answer(w, http.StatusOK, "late")
	})
	queued := j.submit("queued")
	for range 2 { // it is idempotent
		if r := j.do("DELETE", queued, ""); r.status != http.StatusOK || r.doc.Status != "cancelled" {
			t.Errorf("cancelled while queued: %+v", r)
		}
	}
	running := j.submit("running")
	j.release()
	<-called
	if r := j.do("DELETE", running, ""); r.status != http.StatusOK || r.doc.Status != "cancelled" {
		t.Errorf("cancelled while it runs: %+v", r)
	}
	<-broken // the function sees its connection broken
	for _, path := range []string{queued, running} {
		if r := j.do("GET", path+"/result", ""); r.status != http.StatusConflict || r.doc.Type != "https://weir.dev/problems/job-cancelled" {
			t.Errorf("%+v", r)
		}
	}
	testkit.Eventually(t, "the queue is empty", func() bool {
		s, err := j.conn.Status(t.Context(), j.queue)
		return err == nil && s.Empty()
	})
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls, want that of the one that ran", n)
	}
	if r := j.do("GET", running, ""); r.doc.Status != "cancelled" {
		t.Errorf("a late result has won: %+v", r)
	}
}

func TestJobFailsAndIsRedriven(t *testing.T) {
	var mended atomic.Bool
	var busy atomic.Int64
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case busy.Add(1) == 1:
			w.Header().Set("Retry-After", "1")
			answer(w, http.StatusServiceUnavailable, "not now")
		case mended.Load():
			answer(w, http.StatusOK, "at last")
		default:
			answer(w, http.StatusInternalServerError, "out of paper")
		}
	})
	path := j.submit("x")
	j.release()
	r := j.until(path, "failed")
	if e := r.doc.Error; r.doc.Attempts != 2 || e == nil || e.Type != "https://weir.dev/problems/job-failed" || !strings.Contains(e.Detail, "answered 500") || strings.Contains(e.Detail, "out of paper") { // a stack trace, maybe
		t.Errorf("failed: %+v", r)
	}
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusInternalServerError || r.doc.Type != "https://weir.dev/problems/job-failed" {
		t.Errorf("its result: %+v", r)
	}
	mended.Store(true)
	var seqs []uint64
	for b, err := range j.conn.DeadLetters(t.Context(), j.queue) {
		if err != nil || len(b.Records) != 1 || !b.Records[0].Job {
			t.Fatal(b, err)
		}
		seqs = append(seqs, b.Seq)
		// The clock of the process that stored the state was ahead by more than the redrive comes later: nothing may
		// depend on it.
		key := stream.KeyOf(&b.Records[0])
		s, err := j.conn.Job(t.Context(), j.queue, key)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal([]byte(s.Header), &doc); err != nil {
			t.Fatal(err)
		}
		for _, member := range []string{"changed", "started", "finished"} {
			doc[member] = time.Now().Add(2 * time.Hour)
		}
		header, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.conn.PutJob(t.Context(), j.queue, key, stream.JobState{Header: string(header)}, s.Seq); err != nil {
			t.Fatal(err)
		}
	}
	if len(seqs) != 1 {
		t.Fatalf("%d dead letters", len(seqs))
	}
	if err := j.conn.Redrive(t.Context(), j.queue, 0, func(int) {}); err != nil {
		t.Fatal(err)
	}
	j.until(path, "succeeded")
	if r := j.do("GET", path+"/result", ""); r.body != "at last" {
		t.Errorf("%+v", r)
	}
}

func TestJobIdempotency(t *testing.T) {
	var calls atomic.Int64
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, fmt.Sprint(calls.Add(1)))
	})
	const header, k = "Idempotency-Key", "k1"
	path := j.submit("a", header, k)
	if again := j.submit("a", header, k); again != path {
		t.Errorf("the same request is another job: %s, was %s", again, path)
	}
	conflict := func(when, body string, more ...string) {
		t.Helper()
		if r := j.do("POST", "/reports", body, append(more, header, k)...); r.status != http.StatusUnprocessableEntity || r.doc.Type != "https://weir.dev/problems/idempotency-key-reused" {
			t.Errorf("%s: another request under the same key: %+v", when, r)
		}
	}
	conflict("queued", "b")
	conflict("queued", "a", "Content-Type", "text/x")
	if other := j.submit("b", header, "k2"); other == path {
		t.Error("another key is the same job")
	}
	j.release()
	j.until(path, "succeeded")
	conflict("ended", "b")
	testkit.Eventually(t, "the record is purged", func() bool {
		s, err := j.conn.Status(t.Context(), j.queue)
		return err == nil && s.Empty() && s.QueueBytes == 0
	})
	conflict("purged", "b")
	if r := j.do("POST", "/reports", "a", header, k); r.status != http.StatusAccepted || r.doc.Status != "succeeded" || r.doc.Links.Self != path {
		t.Errorf("the same request after the end: %+v", r)
	}
	testkit.Eventually(t, "what was stored for the repetitions is dropped", func() bool {
		s, err := j.conn.Status(t.Context(), j.queue)
		return err == nil && s.Empty()
	})
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls for two jobs", n)
	}
}

// TestJobGoesOn: a function that answers 202 reports later.
func TestJobGoesOn(t *testing.T) {
	callbacks := make(chan string, 10)
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		callbacks <- r.Header.Get("Weir-Callback")
		answer(w, http.StatusAccepted, "")
	})
	j.release()
	report := func(url, status, body string, header ...string) jobReply {
		t.Helper()
		if !strings.HasPrefix(url, j.url+"/weir/callbacks/") {
			t.Fatalf("the function is to call %q", url)
		}
		return j.do("POST", strings.TrimPrefix(url, j.url)+"?status="+status, body, header...)
	}
	path := j.submit("x")
	url := <-callbacks
	if r := report(url, "running", `{"percent": 40, "message": "half of it"}`); r.status != http.StatusNoContent {
		t.Errorf("progress: %+v", r)
	}
	if r := j.do("GET", path, ""); r.doc.Status != "running" || r.doc.Progress == nil || r.doc.Progress.Percent != 40 || r.doc.Progress.Message != "half of it" {
		t.Errorf("its progress: %+v", r)
	}
	for _, bad := range []struct{ status, body string }{{"running", "x"}, {"running", `{"percent": 101}`}, {"running", `{"percent": 100.4}`}, {"running", `{"percent": "40"}`}, {"gone", ""}, {"", ""}} {
		if r := report(url, bad.status, bad.body); r.status != http.StatusBadRequest {
			t.Errorf("%+v: %+v", bad, r)
		}
	}
	if r := report(url, "running", strings.Repeat("x", 64<<10+1)); r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge report: %d", r.status)
	}
	if r := report(url+"x", "running", ""); r.status != http.StatusNotFound || r.doc.Type != "https://weir.dev/problems/no-callback" {
		t.Errorf("a made up address: %+v", r)
	}
	if r := report(url, "succeeded", "a,b", "Content-Type", "text/csv"); r.status != http.StatusNoContent {
		t.Errorf("success: %+v", r)
	}
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusOK || r.body != "a,b" || r.header.Get("Content-Type") != "text/csv" {
		t.Errorf("its result: %+v", r)
	}
	if r := report(url, "succeeded", "again"); r.status != http.StatusConflict || r.doc.Type != "https://weir.dev/problems/attempt-over" {
		t.Errorf("success again: %+v", r)
	}

	// A failure counts as an attempt, and the next one is made at once; the second is the last.
	path = j.submit("y")
	first := <-callbacks
	if r := report(first, "failed", "out of paper"); r.status != http.StatusNoContent {
		t.Errorf("failure: %+v", r)
	}
	second := <-callbacks
	if second == first {
		t.Error("two attempts have one address")
	}
	if r := report(first, "succeeded", "too late"); r.status != http.StatusConflict {
		t.Errorf("of an attempt that has failed: %+v", r)
	}
	if r := report(second, "failed", `{"status": 422, "type": "https://shop.example/format", "title": "Format", "detail": "no such format"}`, "Content-Type", "application/problem+json"); r.status != http.StatusNoContent {
		t.Errorf("failure: %+v", r)
	}
	r := j.until(path, "failed")
	if r.doc.Attempts != 2 || r.doc.Error == nil || r.doc.Error.Detail != "no such format" || r.doc.Error.Status != 422 || r.doc.Error.Type != "https://shop.example/format" {
		t.Errorf("failed: %+v", r)
	}

	// Cancelled while it goes on: the function learns it when it reports.
	path = j.submit("z")
	url = <-callbacks
	if r := j.do("DELETE", path, ""); r.doc.Status != "cancelled" {
		t.Errorf("cancelled: %+v", r)
	}
	if r := report(url, "running", ""); r.status != http.StatusConflict {
		t.Errorf("progress of a cancelled job: %+v", r)
	}
}

// TestJobIsSilent: without a heartbeat the attempt has failed; with one it goes on.
func TestJobIsSilent(t *testing.T) {
	callbacks := make(chan string, 10)
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		callbacks <- r.Header.Get("Weir-Callback")
		answer(w, http.StatusAccepted, "")
	}, func(m *catalog.Mapping) { m.Heartbeat = 2 * time.Second })
	j.release()
	path := j.submit("x")
	first := <-callbacks
	second := <-callbacks // two seconds later
	if first == second {
		t.Error("two attempts have one address")
	}
	for range 3 { // for longer than a heartbeat
		before := j.do("GET", path, "")
		if r := j.do("POST", strings.TrimPrefix(second, j.url)+"?status=running", `{"percent": 1}`); r.status != http.StatusNoContent {
			t.Fatalf("a sign of life: %+v", r)
		}
		if r := j.do("GET", path, "", "Prefer", "wait=1", "If-None-Match", j.do("GET", path, "").header.Get("Etag")); r.status != http.StatusNotModified {
			if r.doc.Status == "running" {
				continue // the dispatcher has stored that it waits
			}
			t.Fatalf("it was %s; after a sign of life it is %+v", before.doc.Status, r)
		}
	}
	r := j.until(path, "failed")
	if r.doc.Attempts != 2 || r.doc.Error == nil || !strings.Contains(r.doc.Error.Detail, "no sign of life for 2s") {
		t.Errorf("failed: %+v", r)
	}
}

// TestJobsAsGenericPollersMeetThem: by statuses alone along Location, which says nothing but the result; and by the status
// at Operation-Location.
func TestJobsAsGenericPollersMeetThem(t *testing.T) {
	slow := make(chan struct{})
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); string(b) == "wrong" {
			w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"type":"https://shop.example/no-such-format","title":"No such format","detail":"csv or json"}`)
			return
		}
		<-slow
		answer(w, http.StatusOK, "done")
	})
	j.release()
	accepted := j.do("POST", "/reports", "right")
	location := accepted.header.Get("Location")
	if r := j.do("GET", location, ""); r.status != http.StatusAccepted || r.header.Get("Retry-After") == "" {
		t.Errorf("before the end: %+v", r)
	}

	// A client that closes its side after its request, as some do, is answered by a long poll at once.
	c, err := net.Dial("tcp", strings.TrimPrefix(j.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	half, _ := c.(*net.TCPConn)
	_, werr := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nPrefer: wait=20\r\n\r\n", location)
	if err := errors.Join(werr, half.CloseWrite(), c.SetReadDeadline(time.Now().Add(testkit.Patience))); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("a long poll of a client that has closed its side: %d", resp.StatusCode)
	}

	close(slow)
	if r := j.do("GET", location, "", "Prefer", "wait=20"); r.status != http.StatusOK || r.body != "done" {
		t.Errorf("after the end: %+v", r)
	}
	if r := j.do("GET", accepted.header.Get("Operation-Location"), ""); r.status != http.StatusOK || r.doc.Status != "succeeded" {
		t.Errorf("the status: %+v", r)
	}

	// The function's problem is the job's.
	path := j.submit("wrong")
	if e := j.until(path, "failed").doc.Error; e == nil || e.Type != "https://shop.example/no-such-format" || e.Detail != "csv or json" {
		t.Errorf("its error: %+v", e)
	}
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusUnprocessableEntity || r.doc.Type != "https://shop.example/no-such-format" {
		t.Errorf("its result: %+v", r)
	}
}
