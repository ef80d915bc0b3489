package dispatcher_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) {
	// One example of the property test works through many scripts at once; retries take real time.
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := flag.Set("rapid.checks", "6"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(os.Exit))
}

// call is one function call as the scripted function sees it.
type call struct {
	bodies   []string // of the records, in order
	attempts []int
	ids      []string
	single   bool
	headers  http.Header
}

// answer is what a scripted function says.
type answer struct {
	status int
	failed []string // bodies named in batchItemFailures
	header http.Header
	text   string
	hang   bool // until the caller gives up
	abort  bool // break the connection

	mislabelled bool // batchItemFailures without a Content-Type
}

// world is one queue with one mapping and a scripted function.
type world struct {
	t      testing.TB
	conn   *stream.Conn
	spec   catalog.Mapping
	queue  catalog.Queue
	writer *stream.Writer
	cancel func() // the newest dispatcher's context
	tel    telemetry.Providers
	log    *slog.Logger // nil for the test's
	memory int64        // zero for the process's

	mu       sync.Mutex
	calls    []call
	inFlight int
	maxSeen  int
	taken    map[string]int // 2xx and not named: body → times
}

var queueNumber atomic.Int64 // queues of this test run have names of their own

func newWorld(t testing.TB, conn *stream.Conn, script func(call) answer, change func(*catalog.Mapping)) *world {
	t.Helper()
	w := &world{t: t, conn: conn, taken: map[string]int{}}
	k := catalog.Key{Namespace: "default", Name: "q" + strconv.FormatInt(queueNumber.Add(1), 10)}
	w.queue = catalog.Queue{Key: k, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(rw, r, script) }))
	t.Cleanup(srv.Close)
	w.spec = catalog.Mapping{
		Key: k, Queue: k, Function: catalog.Function{Name: "f", URL: srv.URL},
		Batch: catalog.Batch{MaxRecords: 10, MaxBytes: 1 << 20}, MaxConcurrency: 4, Timeout: testkit.Patience,
		Retry:         catalog.Retry{MaxAttempts: 3, InitialBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, MaxAge: time.Hour},
		BisectOnError: true,
	}
	if change != nil {
		change(&w.spec)
	}
	if err := conn.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := conn.EnsureQueue(t.Context(), w.queue, 1); err != nil {
		t.Fatal(err)
	}
	w.writer = conn.NewWriter(k, record.Zstd)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.writer.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// serve decodes a call with the public package, as a function's author would.
func (w *world) serve(rw http.ResponseWriter, r *http.Request, script func(call) answer) {
	c := call{single: r.Header.Get("Ce-Id") != "", headers: r.Header}
	var answered answer
	function.Batch(func(_ context.Context, events []function.Event) ([]function.Failure, error) {
		for _, e := range events {
			var body string
			if err := json.Unmarshal(e.Data, &body); err != nil {
				body = string(e.Data)
			}
			n, _ := strconv.Atoi(fmt.Sprint(e.Extensions["weirattempts"]))
			c.bodies, c.attempts, c.ids = append(c.bodies, body), append(c.attempts, n), append(c.ids, e.ID)
		}
		return nil, nil
	}).ServeHTTP(httptest.NewRecorder(), r)
	w.mu.Lock()
	w.calls = append(w.calls, c)
	w.inFlight++
	w.maxSeen = max(w.maxSeen, w.inFlight)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inFlight--
	}()
	answered = script(c)
	if answered.hang {
		<-r.Context().Done()
		return
	}
	if answered.abort {
		panic(http.ErrAbortHandler)
	}
	if answered.status == 0 {
		answered.status = http.StatusOK
	}
	maps.Copy(rw.Header(), answered.header)
	if answered.status < 300 {
		w.mu.Lock()
		for _, b := range c.bodies {
			if !slices.Contains(answered.failed, b) {
				w.taken[b]++
			}
		}
		w.mu.Unlock()
	}
	if answered.failed != nil {
		type item struct {
			ItemIdentifier string `json:"itemIdentifier"`
			Reason         string `json:"reason,omitempty"`
		}
		var out struct {
			BatchItemFailures []item `json:"batchItemFailures"`
		}
		for i, b := range c.bodies {
			if slices.Contains(answered.failed, b) {
				out.BatchItemFailures = append(out.BatchItemFailures, item{c.ids[i], answered.text})
			}
		}
		if !answered.mislabelled {
			rw.Header().Set("Content-Type", "application/json")
		}
		rw.WriteHeader(answered.status)
		_ = json.NewEncoder(rw).Encode(out)
		return
	}
	rw.WriteHeader(answered.status)
	_, _ = rw.Write([]byte(answered.text))
}

// put stores records, all in the same moment so that they may share blocks, and waits for them.
func (w *world) put(bodies ...string) {
	w.t.Helper()
	var wg sync.WaitGroup
	for _, b := range bodies {
		wg.Go(func() {
			id, err := record.NewID()
			if err == nil {
				err = w.writer.Append(w.t.Context(), &record.Record{
					ID: id, Time: time.Now(), Source: "/apis/default/test/put", ContentType: "text/plain", Body: []byte(b),
				})
			}
			if err != nil {
				w.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// start runs a dispatcher until the returned function is called.
func (w *world) start(owner string, drain time.Duration) (*dispatcher.Dispatcher, func()) {
	w.t.Helper()
	caller, log := invoke.NewCaller(16, w.tel), cmp.Or(w.log, testkit.Log(w.t))
	d, err := dispatcher.New(dispatcher.Config{Telemetry: w.tel, Conn: w.conn, Caller: caller, Objects: blob.NewNATS(w.conn, func() sign.Ring { return sign.Ring{} }, time.Now, ""), Owner: owner, DrainTimeout: drain, Memory: w.memory, Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	d.Use(&catalog.Catalog{Mappings: []catalog.Mapping{w.spec}})
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx, func() {}) }()
	stop := sync.OnceFunc(func() { cancel(); <-done; caller.Close() })
	w.t.Cleanup(stop)
	return d, stop
}

// dead returns the dead letters by body.
func (w *world) dead() map[string]record.Record {
	w.t.Helper()
	out := map[string]record.Record{}
	for b, err := range w.conn.DeadLetters(context.Background(), w.queue.Key) {
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range b.Records {
			if _, twice := out[string(r.Body)]; twice {
				w.t.Fatalf("%s was dead-lettered twice", r.Body)
			}
			out[string(r.Body)] = r
		}
	}
	return out
}

func (w *world) settled() {
	w.t.Helper()
	testkit.Eventually(w.t, "all is settled", func() bool {
		s, err := w.conn.Status(context.Background(), w.queue.Key)
		return err == nil && s.Empty()
	})
}

func (w *world) seen() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// TestStatusTable is docs/contracts.md's table of what a function's answer means, row by row.
func TestStatusTable(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	has := func(c call, body string) bool { return slices.Contains(c.bodies, body) }
	fewTimes := func(n int, a answer) func(call) answer {
		var count atomic.Int64
		return func(call) answer {
			if int(count.Add(1)) <= n {
				return a
			}
			return answer{}
		}
	}
	for _, row := range []struct {
		name     string
		script   func(call) answer
		change   func(*catalog.Mapping)
		put      []string
		dead     map[string]string // body → part of the reason
		attempts int               // of the dead
		failed   bool              // calls were counted as failed
		throttle bool              // calls were counted as throttled
	}{
		{name: "2xx settles all", script: func(call) answer { return answer{status: 204} }, put: []string{"a", "b"}},
		{
			name: "named records fail alone", put: []string{"a", "bad", "c"}, failed: true,
			script: func(c call) answer {
				if has(c, "bad") {
					return answer{failed: []string{"bad"}, text: "no such customer"}
				}
				return answer{}
			},
			dead: map[string]string{"bad": "3 of 3 attempts failed; the last: named in batchItemFailures: no such customer"}, attempts: 3,
		},
		{name: "429 is not now", script: fewTimes(2, answer{status: 429}), put: []string{"a"}, throttle: true},
		{name: "503 is not now", script: fewTimes(2, answer{status: 503}), put: []string{"a"}, throttle: true},
		{
			name: "Retry-After is kept", put: []string{"a"}, throttle: true,
			script: fewTimes(1, answer{status: 503, header: http.Header{"Retry-After": {"1"}}}),
		},
		{
			name: "502 while no instance is ready is not now", put: []string{"a"}, throttle: true,
			script: func() func(call) answer {
				var n atomic.Int64
				return func(call) answer { return answer{status: []int{503, 502, 504, 200}[min(n.Add(1)-1, 3)]} }
			}(),
		},
		{
			name: "502 otherwise is a failure", put: []string{"a"}, failed: true, script: func(call) answer { return answer{status: 502} },
			dead: map[string]string{"a": "502 Bad Gateway"}, attempts: 3,
		},
		{
			name: "500 is bisected to the culprit", put: []string{"a", "b", "bad", "c", "d"}, failed: true,
			script: func(c call) answer {
				if has(c, "bad") {
					return answer{status: 500, text: "no " + strings.Repeat("x", 2000)}
				}
				return answer{}
			},
			dead: map[string]string{"bad": "500 Internal Server Error: no x"}, attempts: 3,
		},
		{
			name: "500 without bisection fails the batch", put: []string{"a", "b"}, failed: true,
			change: func(m *catalog.Mapping) { m.BisectOnError = false },
			script: func(call) answer { return answer{status: 500} },
			dead:   map[string]string{"a": "3 of 3 attempts failed", "b": "3 of 3 attempts failed"}, attempts: 3,
		},
		{
			name: "a last attempt is bisected to the culprit", put: []string{"a", "b", "bad", "c", "d"}, failed: true,
			change: func(m *catalog.Mapping) { m.BisectOnError = false },
			script: func(c call) answer {
				if has(c, "bad") {
					return answer{status: 500}
				}
				return answer{}
			},
			dead: map[string]string{"bad": "3 of 3 attempts failed"}, attempts: 3,
		},
		{
			name: "a timeout is a failure", put: []string{"a"}, failed: true,
			change: func(m *catalog.Mapping) { m.Timeout = 50 * time.Millisecond },
			script: func(call) answer { return answer{hang: true} },
			dead:   map[string]string{"a": "no answer within 50ms"}, attempts: 3,
		},
		{
			name: "a broken connection is a failure", put: []string{"a"}, failed: true,
			script: func(call) answer { return answer{abort: true} },
			dead:   map[string]string{"a": "the connection broke"}, attempts: 3,
		},
		{
			name: "other 4xx is permanent, a batch is bisected", put: []string{"a", "bad", "c"}, failed: true,
			change: func(m *catalog.Mapping) { m.BisectOnError = false },
			script: func(c call) answer {
				if has(c, "bad") {
					return answer{status: 422, text: "never"}
				}
				return answer{}
			},
			dead: map[string]string{"bad": "refused: 422 Unprocessable Entity: never"}, attempts: 1,
		},
		{
			name: "404, 408, 409, 421, 423, 425 are failures", put: []string{"404", "408", "409", "421", "423", "425"}, failed: true,
			change: func(m *catalog.Mapping) { m.Batch.MaxRecords = 1 },
			script: func(c call) answer {
				status, err := strconv.Atoi(c.bodies[0])
				if err != nil {
					t.Error(err)
				}
				return answer{status: status, text: "not yet"}
			},
			dead: map[string]string{
				"404": "404 Not Found: not yet", "408": "408 Request Timeout: not yet", "409": "409 Conflict: not yet",
				"421": "421 Misdirected Request: not yet", "423": "423 Locked: not yet", "425": "425 Too Early: not yet",
			}, attempts: 3,
		},
		{
			name: "what the mapping says is permanent", put: []string{"a"}, failed: true,
			change: func(m *catalog.Mapping) { m.Retry.Permanent = []int{404} },
			script: func(call) answer { return answer{status: 404, text: "never"} },
			dead:   map[string]string{"a": "refused: 404 Not Found: never"}, attempts: 1,
		},
		{
			name: "what the mapping doesn't say is permanent", put: []string{"a"}, failed: true,
			change: func(m *catalog.Mapping) { m.Retry.Permanent = []int{404} },
			script: func(call) answer { return answer{status: 422, text: "later"} },
			dead:   map[string]string{"a": "422 Unprocessable Entity: later"}, attempts: 3,
		},
		{
			name: "3xx is a failure", put: []string{"a"}, failed: true,
			script: func(call) answer { return answer{status: 302, header: http.Header{"Location": {"/"}}} },
			dead:   map[string]string{"a": "302 Found"}, attempts: 3,
		},
		{
			name: "an answer that names a stranger fails the batch", put: []string{"a"}, failed: true,
			script: func(call) answer {
				return answer{
					header: http.Header{"Content-Type": {"application/json"}},
					text:   `{"batchItemFailures":[{"itemIdentifier":"01890a5d-ac96-774b-bcce-b302099a8057"}]}`,
				}
			},
			dead: map[string]string{"a": "which was not in the batch"}, attempts: 3,
		},
		{
			name: "named records fail whatever the content type says", put: []string{"a", "bad"}, failed: true,
			script: func(c call) answer {
				if has(c, "bad") {
					return answer{failed: []string{"bad"}, mislabelled: true}
				}
				return answer{}
			},
			dead: map[string]string{"bad": "named in batchItemFailures"}, attempts: 3,
		},
		{
			name: "maxAge ends the attempts", put: []string{"a"}, failed: true,
			change: func(m *catalog.Mapping) { m.Retry.MaxAttempts, m.Retry.MaxAge = 1000, time.Millisecond },
			script: func(call) answer { return answer{status: 500} },
			dead:   map[string]string{"a": "still failing at an age of"}, attempts: 1,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, conn, row.script, row.change)
			w.put(row.put...)
			d, stop := w.start("a", time.Second)
			w.settled()
			dead := w.dead()
			for _, b := range row.put {
				want, shouldDie := row.dead[b]
				r, died := dead[b]
				switch {
				case died != shouldDie:
					t.Errorf("%s: dead %t, want %t", b, died, shouldDie)
				case died && (!strings.Contains(r.Failure.Reason, want) || r.Attempts != row.attempts):
					t.Errorf("%s died after %d attempts because %q; want %d, %q", b, r.Attempts, r.Failure.Reason, row.attempts, want)
				case !died && w.taken[b] != 1:
					t.Errorf("%s was taken %d times", b, w.taken[b])
				}
			}
			s, _ := d.Stats(w.spec.Key)
			if (s.Failed > 0) != row.failed || (s.Throttled > 0) != row.throttle {
				t.Errorf("%+v: failed calls %t, want %t; throttled %t, want %t", s, s.Failed > 0, row.failed, s.Throttled > 0, row.throttle)
			}
			stop()
		})
	}
}

func TestRefusedConnectionIsNotNow(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	w := newWorld(t, conn, func(call) answer { return answer{} }, nil)
	url := w.spec.Function.URL
	dead := httptest.NewServer(http.NotFoundHandler())
	w.spec.Function.URL = dead.URL
	dead.Close() // its port refuses connections now
	w.put("a")
	d, _ := w.start("a", time.Second)
	testkit.Eventually(t, "three calls were refused", func() bool { s, _ := d.Stats(w.spec.Key); return s.Throttled >= 3 })
	w.spec.Function.URL = url
	d.Use(&catalog.Catalog{Mappings: []catalog.Mapping{w.spec}})
	w.settled()
	if s, _ := d.Stats(w.spec.Key); s.Failed != 0 || w.taken["a"] != 1 || len(w.dead()) != 0 {
		t.Errorf("%+v, taken %v", s, w.taken)
	}
}

func TestBatchesAreBoundedAndTheCapHolds(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	full := make(chan struct{})
	var in atomic.Int64
	w := newWorld(t, conn, func(call) answer {
		if in.Add(1) == 3 {
			close(full) // three at once: the cap is reached
		}
		<-full
		return answer{}
	}, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords, m.Batch.MaxBytes = 3, 7, 60 })
	var bodies []string
	for i := range 100 {
		bodies = append(bodies, fmt.Sprintf("record-%03d", i)) // 10 bytes: six make a batch
	}
	w.put(bodies...)
	w.start("a", time.Second)
	w.settled()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.maxSeen != 3 {
		t.Errorf("%d calls at once, want 3", w.maxSeen)
	}
	for _, c := range w.calls {
		if len(c.bodies) > 6 {
			t.Errorf("a batch of %d records of 10 bytes", len(c.bodies))
		}
	}
	if len(w.taken) != len(bodies) {
		t.Errorf("%d of %d records were taken", len(w.taken), len(bodies))
	}
}

func TestWindowGathersABatch(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	w := newWorld(t, conn, func(call) answer { return answer{} }, func(m *catalog.Mapping) {
		m.Batch.Window, m.Batch.MaxRecords = time.Hour, 3 // only the count completes a batch
	})
	w.start("a", time.Second)
	for _, b := range []string{"a", "b", "c"} {
		w.put(b) // one after the other: a block each
	}
	w.settled()
	if calls := w.seen(); len(calls) != 1 || !slices.Equal(calls[0].bodies, []string{"a", "b", "c"}) {
		t.Errorf("calls %v, want one with a, b, c", calls)
	}
}

func TestSingleRecordsComeInBinaryMode(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	w := newWorld(t, conn, func(call) answer { return answer{} }, func(m *catalog.Mapping) { m.Batch.MaxRecords = 1 })
	w.put("a")
	w.start("a", time.Second)
	w.settled()
	c := w.seen()[0]
	if !c.single || c.headers.Get("Content-Type") != "text/plain" || c.headers.Get("Ce-Source") != "/apis/default/test/put" {
		t.Errorf("headers %v", c.headers)
	}
}

func TestDrainFinishesCallsAndLeavesTheRest(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	started, release := make(chan struct{}, 100), make(chan struct{})
	w := newWorld(t, conn, func(call) answer {
		started <- struct{}{}
		<-release
		return answer{}
	}, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 1, 1 })
	w.put("a", "b", "c")
	d, stop := w.start("a", testkit.Patience)
	<-started
	w.cancel()
	close(release)
	stop()
	if s, _ := d.Stats(w.spec.Key); s.Done != 1 || s.InHand != 0 || s.Returned+s.Retried != s.Taken-1 {
		t.Errorf("after the drain: %+v", s)
	}
	w.start("b", time.Second) // the lease was given up: another takes over
	w.settled()
	for _, b := range []string{"a", "b", "c"} {
		if w.taken[b] != 1 {
			t.Errorf("%s was taken %d times", b, w.taken[b])
		}
	}
}

func TestCallsThatOutlastTheDrainAreCutAndComeAgain(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	started := make(chan struct{}, 100)
	var n atomic.Int64
	w := newWorld(t, conn, func(call) answer {
		started <- struct{}{}
		return answer{hang: n.Add(1) == 1}
	}, nil)
	w.put("a")
	d, stop := w.start("a", time.Millisecond)
	<-started
	stop()
	if s, _ := d.Stats(w.spec.Key); s.Failed != 0 || s.Throttled != 0 || s.Done != 0 || s.Returned+s.Retried != 1 {
		t.Errorf("a call that was cut by the drain counts: %+v", s)
	}
	w.start("a", time.Second)
	w.settled()
	if c := w.seen(); len(c) != 2 || c[1].attempts[0] != 0 {
		t.Errorf("calls %+v", c)
	}
}

func TestTwoDispatchersShareTheCap(t *testing.T) {
	s := testkit.NATS(t)
	conn := testkit.Conn(t, s)
	w := newWorld(t, conn, func(call) answer { return answer{} }, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 2, 1 })
	da, stopA := w.start("a", time.Second)
	testkit.Eventually(t, "a works", func() bool { w.put("x"); s, _ := da.Stats(w.spec.Key); return s.Done > 0 })
	db, _ := w.start("b", time.Second)
	for range 20 {
		w.put("y")
	}
	w.settled()
	if s, _ := db.Stats(w.spec.Key); s.Taken != 0 {
		t.Errorf("both work at once: b has %+v", s)
	}
	stopA()
	w.put("z")
	testkit.Eventually(t, "b took over", func() bool { s, _ := db.Stats(w.spec.Key); return s.Done > 0 })
	if w.maxSeen > 2 {
		t.Errorf("%d calls at once, want at most 2", w.maxSeen)
	}
}

// TestAnOrderlyStopDeliversNothingTwice: one call holds the acknowledgement floor while blocks behind it are
// settled; after a drain only what was not settled comes again.
func TestAnOrderlyStopDeliversNothingTwice(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	held, others := make(chan struct{}), make(chan struct{}, 100)
	w := newWorld(t, conn, func(c call) answer {
		if c.bodies[0] == "slow" {
			close(held)
			return answer{hang: true}
		}
		others <- struct{}{}
		return answer{}
	}, func(m *catalog.Mapping) { m.Batch.MaxRecords = 1 })
	w.put("slow")
	d, stop := w.start("a", time.Millisecond)
	<-held
	for i := range 10 {
		w.put(strconv.Itoa(i)) // a block each
		<-others
	}
	testkit.Eventually(t, "the others are settled", func() bool { s, _ := d.Stats(w.spec.Key); return s.Done == 10 })
	stop()
	held = make(chan struct{})
	d, stop = w.start("b", time.Millisecond)
	<-held
	stop()
	if s, _ := d.Stats(w.spec.Key); s.Taken != 1 {
		t.Errorf("the next owner took %d records, want the slow one alone", s.Taken)
	}
}

// TestARemovedMappingThatComesBackWaitsForItsDrain: there are never two at work on one queue.
func TestARemovedMappingThatComesBackWaitsForItsDrain(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	started, release := make(chan struct{}, 100), make(chan struct{})
	w := newWorld(t, conn, func(call) answer {
		started <- struct{}{}
		<-release
		return answer{}
	}, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 1, 1 })
	w.put("a", "b")
	d, _ := w.start("a", testkit.Patience)
	<-started
	d.Use(&catalog.Catalog{})
	testkit.Eventually(t, "the mapping is gone", func() bool { _, ok := d.Stats(w.spec.Key); return !ok })
	again := w.spec
	again.Name = "renamed"
	d.Use(&catalog.Catalog{Mappings: []catalog.Mapping{again}})
	testkit.Eventually(t, "the mapping is back", func() bool { _, ok := d.Stats(again.Key); return ok })
	close(release)
	w.settled()
	if w.maxSeen != 1 {
		t.Errorf("%d calls at once, want 1", w.maxSeen)
	}
	for _, b := range []string{"a", "b"} {
		if w.taken[b] != 1 {
			t.Errorf("%s was taken %d times", b, w.taken[b])
		}
	}
}
