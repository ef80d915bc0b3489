package realtime

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a server with one queue of jobs, whose attempts the test makes itself.
type bench struct {
	leave  func() // the owner of queue's states
	t      testing.TB
	conn   *stream.Conn
	queue  catalog.Key
	other  catalog.Key // another queue
	ring   sign.Ring
	url    string
	server *Server
	stop   func()
	client http.Client
	reader *sdkmetric.ManualReader
}

func start(t testing.TB) *bench {
	t.Helper()
	conn := testkit.Conn(t, testkit.NATS(t))
	b := &bench{t: t, conn: conn, queue: catalog.Key{Namespace: "default", Name: "reports"}, reader: sdkmetric.NewManualReader()}
	q := catalog.Queue{
		Key: b.queue, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour,
		Jobs: true, Results: catalog.Results{MaxAge: time.Hour, MaxBytes: 1 << 30},
	}
	other := q
	b.other.Namespace, b.other.Name = "default", "other"
	other.Key = b.other
	for _, q := range []catalog.Queue{q, other} {
		if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
			t.Fatal(err)
		}
		if leave := testkit.OwnStates(t, conn, q.Key); q.Key == b.queue {
			b.leave = leave
		}
	}
	var err error
	if b.ring, _, err = (sign.Ring{}).Rotate(time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if b.server, err = New(Config{Listener: l, Conn: conn, DrainTimeout: testkit.Patience, DrainSpread: time.Millisecond, Log: testkit.Log(t), Telemetry: telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader))}}); err != nil {
		t.Fatal(err)
	}
	b.server.Use(&catalog.Catalog{
		Queues: []catalog.Queue{q, other},
		APIs: []catalog.API{{Key: b.queue, Routes: []catalog.Route{
			{Name: "r", Method: "POST", Path: "/r", Job: &catalog.QueueTarget{Queue: b.queue}},
		}}},
	})
	b.server.UseKeys(b.ring)
	b.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended, up := make(chan error, 1), make(chan struct{})
	go func() { ended <- b.server.Run(ctx, func() { close(up) }) }()
	<-up
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.client.CloseIdleConnections()
	})
	b.client.Transport = &http.Transport{}
	t.Cleanup(b.stop)
	return b
}

// work is one job.
type work struct {
	b     *bench
	queue catalog.Key
	rec   *record.Record
	text  string
	at    *job.Attempt
}

func (b *bench) submit() *work { return b.submitOf(record.Client{}, b.queue) }

// submitOf submits a job of a client.
func (b *bench) submitOf(client record.Client, queue catalog.Key) *work {
	id, err := record.NewID()
	if err != nil {
		b.t.Fatal(err)
	}
	now := time.Now()
	rec := &record.Record{ID: id, Time: now, Job: true, Client: client}
	text, err := job.NewID(queue, rec, now).Text(b.ring)
	if err != nil {
		b.t.Fatal(err)
	}
	return &work{b: b, queue: queue, rec: rec, text: text}
}

func (w *work) begin(ctx context.Context) error {
	at, err := job.Begin(ctx, w.b.conn, w.queue, w.rec, time.Now(), time.Time{})
	w.at = at
	return err
}

func (w *work) succeed(ctx context.Context, contentType, body string) error {
	return w.at.Succeed(ctx, job.Result{ContentType: contentType}, []byte(body), time.Now())
}

func (w *work) do(steps ...func(context.Context) error) {
	w.b.t.Helper()
	for _, step := range steps {
		if err := step(w.b.t.Context()); err != nil {
			w.b.t.Fatal(err)
		}
	}
}

// event is what a client receives.
type event struct {
	kind, id string
	doc      struct {
		ID, Status, Version, Position string
		Progress                      *job.Progress
		Result                        *struct {
			Data       json.RawMessage
			DataBase64 string `json:"data_base64"`
		}
		Error json.RawMessage
		Code  int // of a close event
	}
}

// stateReader is a client, by either protocol.
type stateReader interface {
	next() (event, error) // io.EOF: ended in order
	close()
}

// eventClient reads Server-Sent Events.
type eventClient struct {
	resp *http.Response
	r    *bufio.Reader
}

func (b *bench) listen(ctx context.Context, path, last string) (*eventClient, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := b.client.Do(req) //nolint:bodyclose // close does
	if err != nil {
		return nil, err
	}
	return &eventClient{resp, bufio.NewReader(resp.Body)}, nil
}

func (c *eventClient) close() { _ = c.resp.Body.Close() }

func (c *eventClient) next() (event, error) {
	var e event
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "event":
			e.kind = value
		case "id":
			e.id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.doc); err != nil {
				return e, fmt.Errorf("%w in %s", err, value)
			}
		case "":
			if line == "" && e.kind != "" {
				return e, nil
			}
		}
	}
}

// socketClient reads a WebSocket.
type socketClient struct {
	ctx  context.Context
	conn *websocket.Conn
}

func (b *bench) dial(ctx context.Context, path string) (*socketClient, error) {
	conn, _, err := websocket.Dial(ctx, b.url+path, &websocket.DialOptions{HTTPClient: &b.client}) //nolint:bodyclose // there is none
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(1 << 20)
	return &socketClient{ctx, conn}, nil
}

func (c *socketClient) close() { _ = c.conn.CloseNow() }

func (c *socketClient) next() (e event, err error) {
	_, data, err := c.conn.Read(c.ctx)
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		return e, io.EOF
	}
	if err != nil {
		return e, err
	}
	e.kind = "state"
	err = json.Unmarshal(data, &e.doc)
	return e, err
}

func (c *socketClient) say(t testing.TB, message string) {
	t.Helper()
	if err := c.conn.Write(c.ctx, websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestEachStateOnce guards the order of looking and following.
func TestEachStateOnce(t *testing.T) {
	b := start(t)
	w := b.submit()
	sse := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", ""))
	defer sse.close()
	if ct := sse.resp.Header.Get("Content-Type"); sse.resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		t.Fatalf("%d %s", sse.resp.StatusCode, ct)
	}
	ws := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/"+w.text+"/socket"))
	defer ws.close()
	both := func(status string, check func(e event) bool) (id string) {
		t.Helper()
		for name, l := range map[string]stateReader{"sse": sse, "socket": ws} {
			e, err := l.next()
			if err != nil || e.kind != "state" || e.doc.ID != w.text || e.doc.Status != status || check != nil && !check(e) {
				t.Fatalf("%s: %+v, %v; want %s", name, e, err, status)
			}
			if l == stateReader(sse) && e.id != e.doc.Version {
				t.Errorf("the event's id is %q, the version %q", e.id, e.doc.Version)
			}
			id = e.doc.Version
		}
		return id
	}
	both("queued", nil)
	w.do(w.begin)
	both("running", nil)
	if err := job.Alive(t.Context(), b.conn, w.at.Callback(), &job.Progress{Percent: 40, Message: "half"}); err != nil {
		t.Fatal(err)
	}
	running := both("running", func(e event) bool { return e.doc.Progress != nil && e.doc.Progress.Message == "half" })
	w.do(func(ctx context.Context) error { return w.succeed(ctx, "application/json", `{"n":1}`) })
	last := both("succeeded", func(e event) bool { return e.doc.Result != nil && string(e.doc.Result.Data) == `{"n":1}` })
	for name, l := range map[string]stateReader{"sse": sse, "socket": ws} {
		if e, err := l.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the end: %+v, %v", name, e, err)
		}
	}

	// A client that reconnects gets what is new, and nothing when nothing is.
	again := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", running))
	defer again.close()
	if e, err := again.next(); err != nil || e.doc.Status != "succeeded" || e.id != last {
		t.Errorf("%+v, %v", e, err)
	}
	none := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", last))
	defer none.close()
	if none.resp.StatusCode != http.StatusNoContent {
		t.Errorf("after the last event: %d", none.resp.StatusCode)
	}
	resumed := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/"+w.text+"/socket?after="+last))
	defer resumed.close()
	if e, err := resumed.next(); !errors.Is(err, io.EOF) {
		t.Errorf("a socket after the last state: %+v, %v", e, err)
	}
}

func TestManyJobs(t *testing.T) {
	b := start(t)
	works := []*work{b.submit(), b.submit(), b.submit()}
	query := "/weir/jobs/events?"
	for _, w := range works {
		query += "&id=" + w.text
	}
	sse := must[*eventClient](t)(b.listen(t.Context(), query, ""))
	defer sse.close()
	ws := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/socket"))
	defer ws.close()
	for _, w := range works {
		ws.say(t, `{"watch":"`+w.text+`"}`)
	}
	ws.say(t, `{"watch":"`+works[0].text+`"}`) // is being watched
	collect := func(l stateReader, n int) map[string]string {
		t.Helper()
		got := map[string]string{}
		for range n {
			e, err := l.next()
			if err != nil {
				t.Fatal(err)
			}
			got[e.doc.ID] += e.doc.Status + " "
		}
		return got
	}
	for _, l := range []stateReader{sse, ws} {
		for id, s := range collect(l, 3) {
			if s != "queued " {
				t.Errorf("%s: %s", id, s)
			}
		}
	}
	for _, w := range works {
		w.do(w.begin, func(ctx context.Context) error { return w.succeed(ctx, "text/plain", "done") })
	}
	for _, l := range []stateReader{sse, ws} {
		got := collect(l, 6)
		for _, w := range works {
			if got[w.text] != "running succeeded " {
				t.Errorf("%s: %s", w.text, got[w.text])
			}
		}
	}
	if e, err := sse.next(); !errors.Is(err, io.EOF) {
		t.Errorf("%+v, %v", e, err)
	}
	// The socket stays for other jobs.
	w := b.submit()
	ws.say(t, `{"watch":"`+w.text+`"}`)
	if e, err := ws.next(); err != nil || e.doc.ID != w.text {
		t.Errorf("%+v, %v", e, err)
	}
	ws.say(t, `{"unwatch":"`+w.text+`"}`)
	ws.say(t, `{"watch":"nonsense"}`)
	if e, err := ws.next(); err != nil || e.doc.ID != "nonsense" || !strings.Contains(string(e.doc.Error), problem.NoJob) {
		t.Errorf("%+v, %v", e, err)
	}
	ws.say(t, `what?`)
	if e, err := ws.next(); err != nil || !strings.Contains(string(e.doc.Error), problem.BadRequest) {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestNoSuchJob(t *testing.T) {
	b := start(t)
	for path, want := range map[string]int{
		"/weir/jobs/nonsense/events": 404, "/weir/jobs/nonsense/socket": 404, "/weir/jobs/events": 400, "/weir/jobs/events?id=nonsense": 404,
		"/weir/jobs/events?" + strings.Repeat("&id=x", maxEventJobs+1): 400, "/weir/jobs/" + b.submit().text + "/socket": 426, "/other": 404,
	} {
		c := must[*eventClient](t)(b.listen(t.Context(), path, ""))
		if c.resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, c.resp.StatusCode, want)
		}
		c.close()
	}
}

// TestSlowClient: a client that reads nothing is disconnected; the server holds a bounded number of states for it.
func TestSlowClient(t *testing.T) {
	b := start(t)
	ws := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/socket"))
	defer ws.close()
	big := strings.Repeat("x", maxShownInTest)
	works := make([]*work, 400) // far more than the connections' buffers and maxPending hold
	for i := range works {
		works[i] = b.submit()
		ws.say(t, `{"watch":"`+works[i].text+`"}`)
	}
	testkit.Eventually(t, "all are watched", func() bool {
		n := 0
		for _, w := range works {
			n += b.server.hub.Followers(b.queue, stream.KeyOf(w.rec))
		}
		return n == len(works)
	})
	for _, w := range works {
		w.do(w.begin, func(ctx context.Context) error { return w.succeed(ctx, "text/plain", big) })
	}
	seen, done := map[string]string{}, 0
	for {
		e, err := ws.next()
		if err != nil {
			if got := websocket.CloseStatus(err); int(got) != closeSlow.code {
				t.Errorf("closed with %v, want %d", err, closeSlow.code)
			}
			break
		}
		if v, ok := seen[e.doc.ID]; ok && v == e.doc.Version {
			t.Errorf("%s came twice", e.doc.ID)
		}
		seen[e.doc.ID] = e.doc.Version
		if e.doc.Status == "succeeded" {
			done++
		}
	}
	if done == len(works) {
		t.Error("it was not slow")
	}
	testkit.Eventually(t, "it is counted as slow", func() bool { return b.metrics()["weir.realtime.ended{websocket slow}"] == 1 })
}

// maxShownInTest is as much of a result as documents show.
const maxShownInTest = 60 << 10

func TestDrain(t *testing.T) {
	b := start(t)
	w := b.submit()
	sse := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", ""))
	defer sse.close()
	ws := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/"+w.text+"/socket"))
	defer ws.close()
	for _, l := range []stateReader{sse, ws} {
		if e, err := l.next(); err != nil || e.doc.Status != "queued" {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); b.stop() }()
	if e, err := sse.next(); err != nil || e.kind != "close" || e.doc.Code != closeLife.code {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := ws.next(); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("%v", err)
	}
	<-stopped
}

// TestRace is the race between jobs and clients: jobs that take no time, and clients that connect before, while and
// after them. Each gets the end exactly once. WEIR_LONG=1 runs it 100,000 times.
func TestRace(t *testing.T) {
	rounds := 1500
	if os.Getenv("WEIR_LONG") != "" {
		rounds = 100_000
	}
	b := start(t)
	many := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/socket"))
	defer many.close()
	var delivered atomic.Int64
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for n := range next {
				if err := b.race(t.Context(), n); err != nil {
					t.Errorf("round %d: %v", n, err)
					return
				}
				delivered.Add(1)
			}
		})
	}
	for n := range rounds {
		if t.Failed() {
			break
		}
		next <- n
	}
	close(next)
	wg.Wait()
	t.Logf("%d outcomes were delivered once each", delivered.Load())
}

func (b *bench) race(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, testkit.Patience)
	defer cancel()
	w := b.submit()
	worked := make(chan error, 1)
	connect := func() (stateReader, error) {
		if n%2 == 0 {
			return b.listen(ctx, "/weir/jobs/"+w.text+"/events", "")
		}
		return b.dial(ctx, "/weir/jobs/"+w.text+"/socket")
	}
	do := func() {
		err := w.begin(ctx)
		if err == nil {
			err = w.succeed(ctx, "text/plain", "done")
		}
		worked <- err
	}
	var l stateReader
	var err error
	switch n / 2 % 3 {
	case 0: // before
		if l, err = connect(); err == nil {
			go do()
		}
	case 1: // while, with every delay up to a little more than it takes
		go do()
		spin(time.Duration(rand.N(3000)) * time.Microsecond)
		l, err = connect()
	default: // after
		do()
		l, err = connect()
	}
	if err != nil {
		return err
	}
	defer l.close()
	var versions []uint64
	ends := 0
	for {
		e, err := l.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		v, ok := jobapi.ParseVersion(e.doc.Version)
		if !ok {
			return fmt.Errorf("the version is %q", e.doc.Version)
		}
		versions = append(versions, v)
		if e.doc.Status == "succeeded" {
			ends++
			if e.doc.Result == nil || string(e.doc.Result.Data) != `"done"` {
				return fmt.Errorf("the result: %+v", e.doc)
			}
		}
	}
	if ends != 1 || !slices.IsSorted(versions) || len(slices.Compact(slices.Clone(versions))) != len(versions) {
		return fmt.Errorf("%d ends; versions %v", ends, versions)
	}
	return <-worked
}

// spin waits more finely than timers do.
func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		continue
	}
}
