package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func orders() catalog.Queue {
	return catalog.Queue{
		Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 64 << 20,
		DeadLetterMaxAge: time.Hour,
	}
}

func ensure(t *testing.T, c *stream.Conn, q catalog.Queue) {
	t.Helper()
	if err := c.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if q.Jobs {
		testkit.OwnStates(t, c, q.Key)
	}
}

// writer returns a running writer that ends with the test.
func writer(t *testing.T, c *stream.Conn, k catalog.Key) *stream.Writer {
	t.Helper()
	w := c.NewWriter(k, record.Zstd)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func newRecord(t testing.TB, body string) *record.Record {
	t.Helper()
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	return &record.Record{ID: id, Time: time.Now(), Source: "test", ContentType: "text/plain", Body: []byte(body)}
}

func open(t *testing.T, c *stream.Conn, k catalog.Key) *stream.Reader {
	t.Helper()
	s, err := c.OpenReader(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func next(t *testing.T, s *stream.Reader) *stream.Delivery {
	t.Helper()
	patience := time.After(testkit.Patience)
	for {
		select {
		case p := <-s.Pulls():
			p.Begin(16, nil)
		case d := <-s.Deliveries():
			return d
		case <-s.Done():
			t.Fatal("the reader ended:", s.Err())
		case <-patience:
			t.Fatal("no delivery")
		}
	}
}

func TestWritersGroupAndSourceDeliversInOrder(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	const n = 500
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := w.Append(t.Context(), newRecord(t, fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	reader := open(t, c, q.Key)
	seen, blocks := map[string]bool{}, 0
	for len(seen) < n {
		d := next(t, reader)
		blocks++
		for _, r := range d.Records {
			if seen[string(r.Body)] {
				t.Fatalf("record %s came twice", r.Body)
			}
			seen[string(r.Body)] = true
		}
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	if blocks >= n/2 {
		t.Errorf("%d records came in %d blocks: they were not grouped", n, blocks)
	}
	testkit.Eventually(t, "the queue is empty", func() bool {
		s, err := c.Status(t.Context(), q.Key)
		return err == nil && s.Empty()
	})
	if _, err := c.PurgeSettled(t.Context(), q.Key); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.Status(t.Context(), q.Key); s.QueueBytes != 0 {
		t.Errorf("%d bytes are left after the purge", s.QueueBytes)
	}
}

// TestBodyMayBeUsedAgainOnceItsRecordWasAdded: the gateway reads the next request into the memory of those that wait.
func TestBodyMayBeUsedAgainOnceItsRecordWasAdded(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	w := c.NewWriter(q.Key, record.S2)
	r := newRecord(t, "first")
	var pending []stream.Pending
	for _, body := range []string{"first", "other"} { // one memory, before anything is written
		copy(r.Body, body)
		p, err := w.Add(r)
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	copy(r.Body, "after")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Append(ctx, newRecord(t, "third")); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was cancelled before the group was written: %v", err)
	}
	w.Run(ctx) // writes what waits
	for _, p := range pending {
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	d := next(t, open(t, c, q.Key))
	if len(d.Records) != 3 || string(d.Records[0].Body) != "first" || string(d.Records[1].Body) != "other" {
		t.Errorf("stored were %+v", d.Records)
	}
	if _, err := w.Add(r); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestQueueOfFormerVersionLosesItsAgeLimit: NATS would remove its records silently.
func TestQueueOfFormerVersionLosesItsAgeLimit(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	js := testkit.JetStream(t, s)
	q := orders()
	former, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "WEIR_Q_default_orders", Subjects: []string{"weir.q.default.orders", "weir.q.default.orders.*"}, MaxBytes: q.MaxBytes, MaxAge: q.MaxAge,
		Discard: jetstream.DiscardNew, AllowDirect: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if age, _, ok, err := c.Oldest(t.Context(), q.Key); err != nil || ok {
		t.Errorf("of an empty queue: %s, %v", age, err)
	}
	ensure(t, c, q)
	if info, err := former.Info(t.Context()); err != nil || info.Config.MaxAge != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := writer(t, c, q.Key).Append(t.Context(), newRecord(t, "x")); err != nil {
		t.Fatal(err)
	}
	if age, newest, ok, err := c.Oldest(t.Context(), q.Key); err != nil || !ok || newest != 1 || age < 0 || age > testkit.Patience {
		t.Errorf("%s, %d, %t, %v", age, newest, ok, err)
	}
}

func TestUnsettledBlocksComeAgainAtOnceToTheNextSource(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	for i := range 3 {
		if err := w.Append(t.Context(), newRecord(t, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	first := open(t, c, q.Key)
	if err := next(t, first).Ack(); err != nil {
		t.Fatal(err)
	}
	next(t, first)
	first.Close()
	second := open(t, c, q.Key)
	got := string(next(t, second).Records[0].Body) + string(next(t, second).Records[0].Body)
	if got != "12" {
		t.Errorf("the next reader got %q, want 1 and 2", got)
	}
}

func TestFullQueueIsSaidAndNothingIsDropped(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	q.MaxBytes = 64 << 10
	ensure(t, c, q)
	w := c.NewWriter(q.Key, record.None)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	stored := 0
	for {
		err := w.Append(t.Context(), newRecord(t, string(make([]byte, 8<<10))))
		if errors.Is(err, stream.ErrQueueFull) {
			break
		}
		if err != nil || stored > 8 {
			t.Fatal(stored, err)
		}
		stored++
	}
	reader := open(t, c, q.Key)
	for range stored {
		next(t, reader)
	}
}

func TestMissingQueueIsSaid(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	w := writer(t, c, catalog.Key{Namespace: "default", Name: "nowhere"})
	if err := w.Append(t.Context(), newRecord(t, "x")); !errors.Is(err, stream.ErrNoQueue) {
		t.Errorf("got %v, want ErrNoQueue", err)
	}
}

func TestDelayedRecordsComeWhenDue(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	r := newRecord(t, "later")
	r.Attempts, r.Failure = 1, &record.Failure{Time: time.Now(), Status: 500, Reason: "no"}
	before := time.Now()
	due := before.Add(600 * time.Millisecond)
	if err := c.Delay(t.Context(), q.Key, stream.Wait{Since: before, Due: due}, []record.Record{*r}); err != nil {
		t.Fatal(err)
	}
	d := next(t, open(t, c, q.Key))
	if time.Now().Before(due) {
		t.Error("it came too early")
	}
	if !d.Retry || d.Records[0].Attempts != 1 || d.Records[0].Failure.Reason != "no" {
		t.Errorf("came back as %+v", d.Records[0])
	}
	if waited := due.Sub(d.Since); !d.Since.Equal(before) {
		t.Errorf("it waits since %s (%s before it was due), and was rescheduled at %s", d.Since, waited, before)
	}
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the retry stream is empty", func() bool {
		s, err := c.Status(t.Context(), q.Key)
		return err == nil && s.Retrying == 0
	})
}

func TestWritesFailFastWithoutNATSAndWorkAgainAfterwards(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "secret"}
	s := testkit.NATSIn(t, cfg)
	cfg.Port = s.Port()
	c := testkit.Conn(t, s)
	q := orders()
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	s.Stop()
	testkit.Eventually(t, "the loss is noticed", func() bool { return c.Ready() != nil })
	start := time.Now()
	if err := w.Append(t.Context(), newRecord(t, "x")); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %s to say so", d)
	}
	testkit.NATSIn(t, cfg)
	testkit.Eventually(t, "a write succeeds", func() bool { return w.Append(t.Context(), newRecord(t, "y")) == nil })
}

func TestRedriveMovesEverythingOnceAndResumes(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	var rs []record.Record
	for i := range 50 {
		r := newRecord(t, fmt.Sprint(i))
		r.Attempts, r.Failure = 5, &record.Failure{Time: time.Now(), Status: 422, Reason: "bad"}
		rs = append(rs, *r)
	}
	for _, part := range [][]record.Record{rs[:20], rs[20:]} {
		if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, part); err != nil {
			t.Fatal(err)
		}
	}
	// Stopped in the middle of the first block.
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Redrive(ctx, q.Key, 100, func(moved int) {
		if moved == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	left := 0
	for b, err := range c.DeadLetters(t.Context(), q.Key) {
		if err != nil {
			t.Fatal(err)
		}
		left += len(b.Records)
	}
	if left != 40 {
		t.Errorf("%d dead letters are left, want 40", left)
	}
	if err := c.Redrive(t.Context(), q.Key, 0, func(int) {}); err != nil {
		t.Fatal(err)
	}
	reader := open(t, c, q.Key)
	seen := map[string]bool{}
	for len(seen) < len(rs) {
		for _, r := range next(t, reader).Records {
			if r.Attempts != 0 || r.Failure != nil {
				t.Errorf("record %s came back with its failures", r.Body)
			}
			if seen[string(r.Body)] {
				t.Errorf("record %s came twice", r.Body)
			}
			seen[string(r.Body)] = true
		}
	}
	if n, err := c.PurgeDead(t.Context(), q.Key); n != 0 || err != nil {
		t.Errorf("%d dead letters are left (%v)", n, err)
	}
}

func TestCatalogReachesWatchers(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	got := make(chan *catalog.Catalog, 4)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.WatchCatalog(ctx, func(cat *catalog.Catalog) { got <- cat }) }()
	defer func() { cancel(); <-done }()
	for _, name := range []string{"a", "b"} {
		want := &catalog.Catalog{Queues: []catalog.Queue{{Key: catalog.Key{Namespace: "default", Name: name}}}}
		if err := c.PublishCatalog(t.Context(), want, 1, nil); err != nil {
			t.Fatal(err)
		}
		if cat := <-got; cat.Revision() != want.Revision() {
			t.Errorf("got %+v, want %+v", cat, want)
		}
	}
}

// TestRedriveAgainAtAnotherRate: a redrive that died in the middle of a block, after some of its records
// were stored, is run again with other steps. Nothing may be dropped as a duplicate of what was stored before.
func TestRedriveAgainAtAnotherRate(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := orders()
	ensure(t, c, q)
	var rs []record.Record
	for i := range 50 {
		r := newRecord(t, fmt.Sprint(i))
		r.Attempts, r.Failure = 5, &record.Failure{Time: time.Now(), Reason: "bad"}
		rs = append(rs, *r)
	}
	if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, rs); err != nil {
		t.Fatal(err)
	}
	broken := testkit.Conn(t, s)
	err := broken.Redrive(t.Context(), q.Key, 100, func(int) { broken.Close() })
	if err == nil {
		t.Fatal("the redrive went on without its connection")
	}
	// Its lease is left to expire.
	testkit.Eventually(t, "the next redrive may start", func() bool {
		err := c.Redrive(t.Context(), q.Key, 0, func(int) {})
		if err != nil && !errors.Is(err, stream.ErrLeaseHeld) {
			t.Fatal(err)
		}
		return err == nil
	})
	reader := open(t, c, q.Key)
	for seen := map[string]bool{}; len(seen) < len(rs); {
		for _, r := range next(t, reader).Records {
			seen[string(r.Body)] = true
		}
	}
}

// TestPublishCatalogSwaps: of two that publish in place of the same catalog, one gets told; so a leader that was
// replaced without knowing it brings nothing old back.
func TestPublishCatalogSwaps(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	none, err := c.Catalog(t.Context())
	if err != nil || !none.None() || none.Catalog == nil {
		t.Fatalf("got %+v, %v; want an empty one", none, err)
	}
	named := func(name string) *catalog.Catalog {
		return &catalog.Catalog{Queues: []catalog.Queue{{Key: catalog.Key{Namespace: "default", Name: name}}}}
	}
	if err := c.PublishCatalog(t.Context(), named("a"), 1, none); err != nil {
		t.Fatal(err)
	}
	if err := c.PublishCatalog(t.Context(), named("b"), 1, none); !errors.Is(err, stream.ErrCatalogChanged) {
		t.Errorf("the first catalog was published twice: %v", err)
	}
	a, err := c.Catalog(t.Context())
	if err != nil || a.None() || a.Catalog.Revision() != named("a").Revision() {
		t.Fatalf("got %+v, %v", a, err)
	}
	if err := c.PublishCatalog(t.Context(), named("c"), 1, a); err != nil {
		t.Fatal(err)
	}
	if err := c.PublishCatalog(t.Context(), named("d"), 1, a); !errors.Is(err, stream.ErrCatalogChanged) {
		t.Errorf("an older catalog was replaced: %v", err)
	}
}

// TestCloseQueue: a closed queue refuses every record and delivers those that it has; it can be opened again.
func TestCloseQueue(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	if err := c.CloseQueue(t.Context(), q.Key); err != nil {
		t.Errorf("a queue without streams: %v", err)
	}
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	if err := w.Append(t.Context(), newRecord(t, "before")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.CloseQueue(t.Context(), q.Key); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Append(t.Context(), newRecord(t, "after")); !errors.Is(err, stream.ErrQueueClosed) {
		t.Errorf("got %v", err)
	}
	if st, err := c.Status(t.Context(), q.Key); err != nil || st.Pending != 1 {
		t.Errorf("got %+v, %v", st, err)
	}
	d := next(t, open(t, c, q.Key))
	if err := d.Ack(); err != nil || string(d.Records[0].Body) != "before" {
		t.Errorf("got %q, %v", d.Records[0].Body, err)
	}
	testkit.Eventually(t, "it is empty", func() bool {
		st, err := c.Status(t.Context(), q.Key)
		return err == nil && st.Empty()
	})
	ensure(t, c, q)
	if err := w.Append(t.Context(), newRecord(t, "again")); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

func TestDeleteQueue(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	for range 2 {
		if err := c.DeleteQueue(t.Context(), q.Key); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context(), q.Key); !errors.Is(err, stream.ErrNoQueue) {
			t.Errorf("got %v", err)
		}
	}
}

// smallNATS is a server that has room for 20 MiB.
func smallNATS(t *testing.T) *stream.Conn {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 20 << 20, NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(testkit.Patience) {
		t.Fatal("the server does not start")
	}
	c, err := stream.Connect(stream.Config{URL: srv.ClientURL(), Name: t.Name(), Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	testkit.Eventually(t, "the connection is up", func() bool { return c.Ready() == nil })
	// As wherever Weir runs: an account that loses its last stream loses its directory a moment later, which breaks
	// a stream that is being created just then.
	if err := c.PublishCatalog(t.Context(), &catalog.Catalog{}, 1, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMachinesThatNATSHasNoRoomFor leave their room to queues.
func TestMachinesThatNATSHasNoRoomFor(t *testing.T) {
	c := smallNATS(t)
	if err := c.EnsureMachines(t.Context(), 1, 64<<20); !errors.Is(err, stream.ErrNoRoom) {
		t.Fatalf("got %v", err)
	}
	q := orders()
	q.MaxBytes = 8 << 20
	if err := c.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Errorf("a queue has no room now: %v", err)
	}
}

// TestQueueThatNATSHasNoRoomFor leaves nothing behind that takes up room; and it can be deleted.
func TestQueueThatNATSHasNoRoomFor(t *testing.T) {
	c := smallNATS(t)
	q := orders()
	if err := c.EnsureQueue(t.Context(), q, 3); !errors.Is(err, stream.ErrNoRoom) {
		t.Errorf("three replicas at a server that is alone: %v", err)
	}
	q.MaxBytes = 15 << 20 // once, but not twice
	if err := c.EnsureQueue(t.Context(), q, 1); !errors.Is(err, stream.ErrNoRoom) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.Status(t.Context(), q.Key); !errors.Is(err, stream.ErrNoQueue) {
		t.Errorf("streams are left: %v", err)
	}
	small := orders()
	small.Name, small.MaxBytes = "small", 8<<20
	if err := c.EnsureQueue(t.Context(), small, 1); err != nil {
		t.Fatalf("another has no room now: %v", err)
	}
	w := writer(t, c, small.Key)
	if err := w.Append(t.Context(), newRecord(t, "kept")); err != nil {
		t.Fatal(err)
	}
	small.MaxBytes = 11 << 20 // the dead letters' stream can grow, the queue's can't
	if err := c.EnsureQueue(t.Context(), small, 1); !errors.Is(err, stream.ErrNoRoom) {
		t.Fatalf("got %v", err)
	}
	small.MaxBytes = 9 << 20 // there is as much room as before
	if err := c.EnsureQueue(t.Context(), small, 1); err != nil {
		t.Errorf("a change that was refused is not taken back: %v", err)
	}
	if st, err := c.Status(t.Context(), small.Key); err != nil || st.Pending != 1 {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestStatusOfAHalfQueue: what is missing holds nothing; what is there counts.
func TestStatusOfAHalfQueue(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := orders()
	ensure(t, c, q)
	if err := writer(t, c, q.Key).Append(t.Context(), newRecord(t, "x")); err != nil {
		t.Fatal(err)
	}
	js := testkit.JetStream(t, s)
	if err := errors.Join(js.DeleteConsumer(t.Context(), "WEIR_Q_default_orders", "dispatcher"), js.DeleteStream(t.Context(), "WEIR_R_default_orders")); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(t.Context(), q.Key); err != nil || st.Pending != 1 || st.Retrying != 0 {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := js.DeleteStream(t.Context(), "WEIR_Q_default_orders"); err != nil {
		t.Fatal(err)
	}
	if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, []record.Record{*newRecord(t, "dead")}); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(t.Context(), q.Key); err != nil || st.Dead != 1 {
		t.Errorf("dead letters of a queue that lost its stream: %+v, %v", st, err)
	}
}

// TestUnavailableIsNoRefusal: what NATS doesn't answer is to be tried again, and is nothing for the user to fix.
func TestUnavailableIsNoRefusal(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	s.Stop()
	if err := c.EnsureQueue(t.Context(), orders(), 1); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("EnsureQueue: %v", err)
	}
	if _, err := c.Status(t.Context(), orders().Key); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("Status: %v", err)
	}
	if _, err := c.Catalog(t.Context()); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("Catalog: %v", err)
	}
}

// TestAPullBringsWhatItMay: one that waits brings a block while it isn't known how large they are; then the reader knows how
// many wait, and brings as many of them as its owner says.
func TestAPullBringsWhatItMay(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := orders()
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	for range 8 {
		if err := w.Append(t.Context(), newRecord(t, strings.Repeat("x", 400<<10))); err != nil {
			t.Fatal(err)
		}
	}
	reader := open(t, c, q.Key)
	// asked is the reader's next question with a backlog. Others, of the retries, are answered and bring nothing.
	asked := func() stream.Pull {
		for {
			p := <-reader.Pulls()
			if p.Backlog > 0 {
				return p
			}
			p.Begin(stream.MaxPull, nil)
		}
	}
	for range 2 {
		p := <-reader.Pulls()
		p.Begin(stream.MaxPull, nil)
	}
	<-reader.Deliveries()
	for _, row := range []struct{ backlog, most, brings int }{{7, 3, 3}, {4, stream.MaxPull, 4}} {
		p := asked()
		if p.Backlog != row.backlog {
			t.Fatalf("a backlog of %d, want %d", p.Backlog, row.backlog)
		}
		ended := make(chan struct{})
		p.Begin(row.most, func() { close(ended) })
		for range row.brings {
			<-reader.Deliveries()
		}
		select {
		case <-ended:
		case <-reader.Deliveries():
			t.Errorf("with a backlog of %d it brings more than %d", row.backlog, row.brings)
		case <-time.After(testkit.Patience):
			t.Fatal("a pull does not end")
		}
	}
}
