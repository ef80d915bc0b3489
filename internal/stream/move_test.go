package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// filled is what fill has stored.
type filled struct {
	queue, gone catalog.Queue
	left        map[string]bool // bodies of records that nobody has acknowledged
	later       int             // retries that are due in an hour
	dead        int
	jobs        map[stream.JobKey]string // their states' bodies
	version     map[stream.JobKey]uint64
	object      []byte
	ring        sign.Ring
	lease       *stream.Lease
}

const (
	written, settledBlocks, inFlight = 300, 20, 5
	soonRetries                      = 120
)

// fill stores something of everything, as the services do.
func fill(t *testing.T, c *stream.Conn) *filled {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f := &filled{queue: jobQueue(), gone: orders(), left: map[string]bool{}, later: 20, dead: 30, jobs: map[stream.JobKey]string{}, version: map[stream.JobKey]uint64{}}
	f.queue.Objects = catalog.Objects{MaxBytes: 64 << 20}
	f.gone.Name = "gone"
	must(c.EnsureLeases(ctx, 1))
	must(c.EnsureKeys(ctx, 1, time.Now()))
	must(c.EnsureQueue(ctx, f.queue, 1))
	must(c.EnsureQueue(ctx, f.gone, 1))
	must(c.EnsureMachines(ctx, 1, 128<<20))
	must(c.PublishCatalog(ctx, &catalog.Catalog{Queues: []catalog.Queue{f.queue, f.gone}}, 1, nil))
	f.ring = ring(t, c)

	w := writer(t, c, f.queue.Key)
	for i := range written {
		body := fmt.Sprintf("record %d", i)
		must(w.Append(ctx, newRecord(t, body)))
		f.left[body] = true
	}
	once := newRecord(t, "once")
	_, err := c.AppendOnce(ctx, f.queue.Key, once)
	must(err)
	f.left["once"] = true
	reader, err := c.OpenReader(ctx, f.queue.Key)
	must(err)
	for i := range settledBlocks + inFlight {
		d := next(t, reader)
		if i >= settledBlocks {
			continue
		}
		must(d.Ack())
		for _, r := range d.Records {
			delete(f.left, string(r.Body))
		}
	}
	reader.Close()
	for i := range soonRetries {
		body := fmt.Sprintf("retry %d", i)
		wait := stream.Wait{Since: time.Now(), Due: time.Now().Add(time.Duration(i) * 40 * time.Millisecond)}
		must(c.Delay(ctx, f.queue.Key, wait, []record.Record{*newRecord(t, body)}))
		f.left[body] = true
	}
	for range f.later {
		must(c.Delay(ctx, f.queue.Key, stream.Wait{Since: time.Now(), Due: time.Now().Add(time.Hour)}, []record.Record{*newRecord(t, "later")}))
	}
	for range f.dead {
		must(c.DeadLetter(ctx, f.queue.Key, stream.Refused, []record.Record{*newRecord(t, "dead")}))
	}
	leave := testkit.OwnStates(t, c, f.queue.Key)
	for i := range 50 {
		k := stream.JobKey{ID: newRecord(t, "").ID}
		f.jobs[k] = strings.Repeat("x", i*100) // small ones are in a header
		f.version[k], err = c.PutJobUntil(ctx, f.queue.Key, k, stream.JobState{Header: "h", Body: []byte(f.jobs[k])}, 0, false)
		must(err)
	}
	leave()
	f.object = bytes.Repeat([]byte("object "), 100_000)
	_, err = c.PutObject(ctx, f.queue.Key, "o", "text/plain", bytes.NewReader(f.object))
	must(err)
	must(writer(t, c, f.gone.Key).Append(ctx, newRecord(t, "left behind")))
	must(c.CloseQueue(ctx, f.gone.Key))
	f.lease, err = c.TryLease(ctx, "queue.default.orders", "a former dispatcher")
	must(err)
	return f
}

func ring(t *testing.T, c *stream.Conn) (found sign.Ring) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_ = c.WatchKeys(ctx, func(r sign.Ring) { // it ends with ctx
		found = r
		cancel()
	})
	return found
}

// holds is every message of every stream, as NATS' own client sees it. A stream whose leader has just changed is asked again.
func holds(t *testing.T, url string) (all map[string][]string) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "all messages of all streams are read", func() bool {
		if all, err = held(t.Context(), js); err != nil {
			t.Log("read again: ", err)
		}
		return err == nil
	})
	return all
}

func held(ctx context.Context, js jetstream.JetStream) (map[string][]string, error) {
	all := map[string][]string{}
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		st, err := js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		state := st.CachedInfo().State
		all[name] = []string{}
		for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
			m, err := st.GetMsg(ctx, seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all[name] = append(all[name], fmt.Sprint(m.Sequence, m.Subject, m.Header, m.Time, string(m.Data)))
		}
	}
	return all, names.Err()
}

// TestMove moves from a single server that was stopped to a cluster and to another single server: everything is there, in its
// order and under its sequences, and goes on; and not before the leases are over.
func TestMove(t *testing.T) {
	for name, replicas := range map[string]int{"to three": 3, "to one": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			server := testkit.NATSIn(t, localnats.Config{Dir: dir})
			c := testkit.Conn(t, server)
			f := fill(t, c)
			c.Close()
			server.Stop()
			stopped := time.Now()

			// While it is copied, retries fall due.
			old := testkit.NATSIn(t, localnats.Config{Dir: dir})
			var to *stream.Conn
			var url string
			var restart func()
			if replicas == 1 {
				cfg := localnats.Config{Dir: t.TempDir(), Token: "t"}
				s := testkit.NATSIn(t, cfg)
				cfg.Port = s.Port()
				to, url = testkit.Conn(t, s), s.URL()
				restart = func() {
					s.Stop()
					testkit.NATSIn(t, cfg)
				}
			} else {
				cluster := testkit.NATSCluster(t)
				to, url = cluster.Conn(), cluster.URL()
				restart = func() {
					cluster.Stop()
					cluster.Start()
					// As when a replica gets another volume: the others fill it, and it stands in for one of them.
					cluster.StopOne(2)
					if err := os.RemoveAll(cluster.Folder(2)); err != nil {
						t.Fatal(err)
					}
					cluster.StartOne(2)
					testkit.Eventually(t, "the empty server is filled", func() bool { return cluster.Filled(2) })
					cluster.StopOne(0)
				}
			}
			awaited := make(chan time.Time, 1)
			go func() {
				if to.AwaitMove(t.Context(), "test") == nil {
					awaited <- time.Now()
				}
			}()
			move := stream.Move{From: testkit.Conn(t, old), To: to, Name: "test", Replicas: replicas, AsyncWait: time.Millisecond, Log: testkit.Log(t)}
			done, err := move.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if at := <-awaited; at.Sub(stopped) < stream.LeaseTTL || f.lease.Holds() {
				t.Errorf("it was done after %s, while the former owner has its lease: %t", at.Sub(stopped), f.lease.Holds())
			}
			t.Logf("%d streams, %d messages, %d bytes", done.Streams, done.Messages, done.Bytes)
			same := func() {
				t.Helper()
				was, is := holds(t, old.URL()), holds(t, url)
				if len(was) < 24 || len(is) != len(was) { // without the leases, with the mark
					t.Errorf("%d streams were moved to %d: %v", len(was), len(is), slices.Sorted(maps.Keys(is)))
				}
				if n := len(is["WEIR_Q_default_orders"]); n != written+1-settledBlocks {
					t.Errorf("the queue has %d blocks with those that are settled", n)
				}
				for name, messages := range was {
					switch {
					case name == "WEIR_LEASES":
						if is[name] != nil {
							t.Error("the leases were moved")
						}
					case strings.HasPrefix(name, "WEIR_R_"):
						if len(is[name]) != len(messages) { // some have fallen due there
							t.Errorf("%s: %d messages of %d", name, len(is[name]), len(messages))
						}
					case !slices.Equal(is[name], messages):
						t.Errorf("%s: %d messages, or others than the %d", name, len(is[name]), len(messages))
					}
				}
			}
			same()
			restart()
			testkit.Eventually(t, "the connection is up", func() bool { return to.Ready() == nil })
			began := time.Now()
			testkit.Eventually(t, "all streams answer", func() bool {
				names, err := to.StreamNames(t.Context())
				for _, name := range names {
					err = errors.Join(err, to.Look(t.Context(), name))
				}
				return err == nil
			})
			t.Log("all streams answer after", time.Since(began))
			same()
			goesOn(t, to, f, replicas)
		})
	}
}

// goesOn holds that what f says was moved to c is of use there.
func goesOn(t *testing.T, c *stream.Conn, f *filled, replicas int) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := writer(t, c, f.gone.Key).Append(ctx, newRecord(t, "too late")); !errors.Is(err, stream.ErrQueueClosed) {
		t.Errorf("a queue that is being deleted: %v", err)
	}
	// As a controller does it.
	must(c.EnsureLeases(ctx, replicas))
	must(c.EnsureKeys(ctx, replicas, time.Now()))
	must(c.EnsureQueue(ctx, f.queue, replicas))
	must(c.EnsureMachines(ctx, replicas, 128<<20))
	published, err := c.Catalog(ctx)
	must(err)
	if want := []catalog.Queue{f.gone, f.queue}; !reflect.DeepEqual(published.Catalog.Queues, want) {
		t.Errorf("the catalog's queues are %+v", published.Catalog.Queues)
	}
	must(c.PublishCatalog(ctx, &catalog.Catalog{Queues: []catalog.Queue{f.queue}}, replicas, published))
	if got := ring(t, c); !reflect.DeepEqual(got, f.ring) {
		t.Error("the signing keys are others")
	}
	lease, err := c.TryLease(ctx, "queue.default.orders", "a new dispatcher")
	must(err)
	t.Cleanup(lease.Release)
	o, _, err := c.OpenObject(ctx, f.queue.Key, "o")
	must(err)
	if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, f.object) {
		t.Errorf("the object has %d bytes: %v", len(got), err)
	}
	must(o.Close())
	testkit.OwnStates(t, c, f.queue.Key)
	for k, body := range f.jobs {
		s, err := c.Job(ctx, f.queue.Key, k)
		if err != nil || string(s.Body) != body || s.Seq != f.version[k] {
			t.Fatalf("the state of a job: %v, %v", s, err)
		}
		if _, err := c.PutJobUntil(ctx, f.queue.Key, k, stream.JobState{Header: "next"}, s.Seq, false); err != nil {
			t.Fatal(err)
		}
	}
	dead := 0
	for b, err := range c.DeadLetters(ctx, f.queue.Key) {
		must(err)
		dead += len(b.Records)
	}
	if dead != f.dead {
		t.Errorf("%d dead letters of %d", dead, f.dead)
	}
	reader := open(t, c, f.queue.Key)
	var last uint64
	for left := maps.Clone(f.left); len(left) > 0; {
		d := next(t, reader)
		if !d.Retry && d.Seq <= last {
			t.Errorf("block %d came after %d", d.Seq, last)
		} else if !d.Retry {
			last = d.Seq
		}
		for _, r := range d.Records {
			if !f.left[string(r.Body)] {
				t.Errorf("%s came", r.Body)
			}
			delete(left, string(r.Body))
		}
		must(d.Ack())
	}
	must(writer(t, c, f.queue.Key).Append(ctx, newRecord(t, "new")))
	if d := next(t, reader); string(d.Records[0].Body) != "new" {
		t.Errorf("%s came", d.Records[0].Body)
	}
	testkit.Eventually(t, "no retries wait but those of later", func() bool { // each that is settled costs a sync
		s, err := c.Status(ctx, f.queue.Key)
		return err == nil && int(s.Retrying) == f.later
	})
}

// stopAt cancels at the nth log message that holds text.
type stopAt struct {
	slog.Handler

	text   string
	n      *int
	cancel func()
}

func (s stopAt) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, s.text) {
		if *s.n--; *s.n == 0 {
			s.cancel()
		}
	}
	return s.Handler.Handle(ctx, r)
}

// TestMoveGoesOn interrupts moves between two streams and in the midst of one, and runs them again. A target that is in use
// is refused, and a source that was used since.
func TestMoveGoesOn(t *testing.T) {
	for name, replicas := range map[string]int{"to three": 3, "to one": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := testkit.NATS(t)
			from := testkit.Conn(t, old)
			q := orders()
			ensure(t, from, q)
			if err := from.PublishCatalog(t.Context(), &catalog.Catalog{Queues: []catalog.Queue{q}}, 1, nil); err != nil {
				t.Fatal(err)
			}
			w := writer(t, from, q.Key)
			noise := make([]byte, 512<<10)
			for i := range noise {
				noise[i] = byte(i * i >> 3)
			}
			const large = 40
			for range large {
				if err := w.Append(t.Context(), newRecord(t, string(noise))); err != nil {
					t.Fatal(err)
				}
			}
			var to *stream.Conn
			if replicas == 3 {
				to = testkit.NATSCluster(t).Conn()
			} else {
				to = testkit.Conn(t, testkit.NATS(t))
			}
			run := func(ctx context.Context, log *slog.Logger) error {
				_, err := stream.Move{From: from, To: to, Name: "test", Replicas: replicas, Log: log}.Run(ctx)
				return err
			}
			ctx, cancel := context.WithCancel(t.Context())
			n := 1
			if err := run(ctx, slog.New(stopAt{testkit.Log(t).Handler(), "a stream is moved", &n, cancel})); !errors.Is(err, context.Canceled) {
				t.Fatal("interrupted after the first stream:", err)
			}
			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			seen := make(chan struct{})
			go func() {
				defer close(seen)
				for {
					// The queue's stream is there as soon as it is being restored.
					if names, err := to.StreamNames(t.Context()); err == nil && slices.Contains(names, "WEIR_Q_default_orders") {
						cancel()
						return
					}
				}
			}()
			err := run(ctx, testkit.Log(t))
			<-seen
			if !errors.Is(err, context.Canceled) {
				t.Fatal("interrupted in the midst of a stream:", err)
			}
			if err := run(t.Context(), testkit.Log(t)); err != nil {
				t.Fatal(err)
			}
			if err := run(t.Context(), testkit.Log(t)); err != nil {
				t.Fatal("when it is done:", err)
			}
			if err := to.EnsureLeases(t.Context(), replicas); err != nil {
				t.Fatal(err)
			}
			reader := open(t, to, q.Key)
			for range large {
				if d := next(t, reader); len(d.Records) != 1 || string(d.Records[0].Body) != string(noise) {
					t.Fatal("a record is another")
				}
			}
			_, err = stream.Move{From: from, To: to, Name: "another", Replicas: replicas, Log: testkit.Log(t)}.Run(t.Context())
			if !errors.Is(err, stream.ErrNotEmpty) {
				t.Error("a target that is in use:", err)
			}
			// A controller at the source, as after a rollback.
			if err := from.EnsureQueue(t.Context(), q, 1); err != nil {
				t.Fatal(err)
			}
			if err := w.Append(t.Context(), newRecord(t, "more")); err != nil {
				t.Error("the source doesn't work any more:", err)
			}
			if err := run(t.Context(), testkit.Log(t)); err == nil || !strings.Contains(err.Error(), "used since") {
				t.Error("a source that was used since:", err)
			}
		})
	}
}

// TestMoveOfNothing holds that a move says so if the source is none of Weir's.
func TestMoveOfNothing(t *testing.T) {
	from, to := testkit.Conn(t, testkit.NATS(t)), testkit.Conn(t, testkit.NATS(t))
	if _, err := (stream.Move{From: from, To: to, Name: "test", Replicas: 1, Log: testkit.Log(t)}).Run(t.Context()); err == nil {
		t.Error("nothing was moved, and nothing said")
	}
}
