package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
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

func jobQueue() catalog.Queue {
	q := orders()
	q.Jobs, q.Results = true, catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20}
	return q
}

func TestAppendOnce(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := jobQueue()
	first, other := newRecord(t, "first"), newRecord(t, "other")
	if _, err := c.AppendOnce(t.Context(), q.Key, first); !errors.Is(err, stream.ErrNoQueue) {
		t.Errorf("without a queue: %v", err)
	}
	ensure(t, c, q)
	if err := writer(t, c, q.Key).Append(t.Context(), newRecord(t, "of a group")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []*record.Record{nil, first, first} {
		again := *first
		again.Body = []byte(strconv.Itoa(i))
		if i == 0 {
			again = *first
		}
		got, err := c.AppendOnce(t.Context(), q.Key, &again)
		if err != nil || (got == nil) != (want == nil) || got != nil && string(got.Body) != "first" {
			t.Fatalf("the %dth time: %+v, %v", i, got, err)
		}
	}
	if got, err := c.AppendOnce(t.Context(), q.Key, other); got != nil || err != nil {
		t.Errorf("another id: %+v, %v", got, err)
	}
	reader, err := c.OpenReader(t.Context(), q.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var bodies []string
	for len(bodies) < 3 {
		select {
		case p := <-reader.Pulls():
			p.Begin(16, nil)
		case d := <-reader.Deliveries():
			for _, r := range d.Records {
				bodies = append(bodies, string(r.Body))
			}
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
		case <-reader.Done():
			t.Fatal(reader.Err())
		}
	}
	if !slices.Equal(bodies, []string{"of a group", "first", "other"}) {
		t.Errorf("delivered %q", bodies)
	}
	testkit.Eventually(t, "all is settled and purged", func() bool {
		if _, err := c.PurgeSettled(t.Context(), q.Key); err != nil {
			t.Fatal(err)
		}
		s, err := c.Status(t.Context(), q.Key)
		return err == nil && s.Empty() && s.QueueBytes == 0
	})
	if got, err := c.AppendOnce(t.Context(), q.Key, first); got != nil || err != nil {
		t.Errorf("after it was settled it is new: %+v, %v", got, err)
	}
	if err := c.CloseQueue(t.Context(), q.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AppendOnce(t.Context(), q.Key, newRecord(t, "x")); !errors.Is(err, stream.ErrQueueClosed) {
		t.Errorf("a closed queue: %v", err)
	}
}

func TestJobStatesReplaceEachOther(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := jobQueue()
	id := newRecord(t, "x").ID
	if _, err := c.Job(t.Context(), q.Key, stream.JobKey{ID: id}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("without a queue: %v", err)
	}
	ensure(t, c, q)
	if _, err := c.Job(t.Context(), q.Key, stream.JobKey{ID: id}); !errors.Is(err, stream.ErrNoJob) {
		t.Errorf("without a state: %v", err)
	}
	if _, err := c.PutJob(t.Context(), q.Key, stream.JobKey{ID: id}, stream.JobState{Header: "a"}, 5); !errors.Is(err, stream.ErrJobChanged) {
		t.Errorf("in place of what is not there: %v", err)
	}
	one, err := c.PutJob(t.Context(), q.Key, stream.JobKey{ID: id}, stream.JobState{Header: "a", Body: []byte("1")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutJob(t.Context(), q.Key, stream.JobKey{ID: id}, stream.JobState{Header: "b"}, 0); !errors.Is(err, stream.ErrJobChanged) {
		t.Errorf("a second first state: %v", err)
	}
	two, err := c.PutJobUntil(t.Context(), q.Key, stream.JobKey{ID: id}, stream.JobState{Header: `{"ü":"é\\n"}`, Body: []byte("2")}, one, false)
	if err != nil || two <= one {
		t.Fatal(two, err)
	}
	if got, err := c.Job(t.Context(), q.Key, stream.JobKey{ID: id}); err != nil || got.Header != `{"ü":"é\\n"}` || string(got.Body) != "2" || got.Seq != two {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := c.PutJob(t.Context(), q.Key, stream.JobKey{ID: id}, stream.JobState{Body: make([]byte, stream.MaxJobBytes+1)}, two); err == nil {
		t.Error("a state of any size is stored")
	}
	if err := c.DeleteQueue(t.Context(), q.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Job(t.Context(), q.Key, stream.JobKey{ID: id}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("of a deleted queue: %v", err)
	}
}

// observer records what a JobWatcher is told.
type observer struct {
	mu     sync.Mutex
	missed int
	seen   []string
}

func (o *observer) Missed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.missed++
}

func (o *observer) Changed(_ catalog.Key, id stream.JobKey, s stream.JobState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, fmt.Sprintf("%s %s %d %d %v", id.ID, s.Header, s.Seq, len(s.Body), s.Whole))
}

func (o *observer) count() (missed, seen int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.missed, len(o.seen)
}

// TestJobWatch over a restart of NATS: a watcher that reads the state again after each Missed misses nothing, and is told of
// the jobs that it follows, with small results.
func TestJobWatch(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "t"}
	s := testkit.NATSIn(t, cfg)
	cfg.Port = s.Port()
	c := testkit.Conn(t, s)
	q := jobQueue()
	ensure(t, c, q)
	ctx, cancel := context.WithCancel(t.Context())
	var o observer
	var wg sync.WaitGroup
	w := c.NewJobWatch()
	wg.Go(func() { w.Run(ctx, &o) })
	testkit.Eventually(t, "it watches", func() bool { n, _ := o.count(); return n == 1 })
	var want []string
	put := func(header string, size int, follows bool) *stream.JobSubscription {
		t.Helper()
		id := stream.JobKey{ID: newRecord(t, "x").ID}
		var sub *stream.JobSubscription
		if follows {
			sub, _ = w.Follow(q.Key, id)
		}
		seq, err := c.PutJobUntil(t.Context(), q.Key, id, stream.JobState{Header: header, Body: bytes.Repeat([]byte("x"), size)}, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := c.Job(t.Context(), q.Key, id); err != nil || len(s.Body) != size || s.Seq != seq {
			t.Errorf("%s: %+v, %v", header, s, err)
		}
		if told := size; follows {
			if size > 1<<10 {
				told = 0
			}
			want = append(want, fmt.Sprintf("%s %s %d %d %v", id.ID, header, seq, told, told == size))
		}
		return sub
	}
	put("a", 1<<10, true)
	put("unfollowed", 1, false)
	put("b", 1<<10+1, true)
	testkit.Eventually(t, "both are seen", func() bool { _, n := o.count(); return n == 2 })
	s.Stop()
	testkit.Eventually(t, "the loss is noticed", func() bool { return c.Ready() != nil })
	testkit.NATSIn(t, cfg)
	testkit.Eventually(t, "it watches again", func() bool { n, _ := o.count(); return n == 2 })
	testkit.OwnStates(t, c, q.Key)
	put("c", 0, true).Leave()
	testkit.Eventually(t, "the third is seen", func() bool { _, n := o.count(); return n == 3 })
	cancel()
	wg.Wait()
	if !slices.Equal(o.seen, want) {
		t.Errorf("seen %q, want %q", o.seen, want)
	}
}

func TestKeys(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	ctx, cancel := context.WithCancel(t.Context())
	rings := make(chan sign.Ring, 10)
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.WatchKeys(ctx, func(r sign.Ring) { rings <- r }) })
	now := time.Now()
	for range 2 {
		if err := c.EnsureKeys(t.Context(), 1, now); err != nil {
			t.Fatal(err)
		}
	}
	first := <-rings
	if len(first.Keys) != 1 {
		t.Errorf("%d keys", len(first.Keys))
	}
	if err := c.EnsureKeys(t.Context(), 1, now.Add(sign.RotateEvery+time.Minute)); err != nil {
		t.Fatal(err)
	}
	second := <-rings
	if len(second.Keys) != 2 || second.Keys[0].ID != first.Keys[0].ID {
		t.Errorf("after a rotation: %+v, was %+v", second, first)
	}
	cancel()
	wg.Wait()
	if len(rings) != 0 {
		t.Error("the keys changed although there was nothing to do")
	}
}

// TestWriteThatIsNotDecided: a cluster refuses a compare-and-set with error 10164 while another write to the subject is in
// flight. A single server never does, so here the test answers in the streams' place.
func TestWriteThatIsNotDecided(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := jobQueue()
	nc := testkit.Client(t, s)
	refused := []byte(`{"error": {"code": 400, "err_code": 10164, "description": "wrong last sequence"}}`)
	answer := func(subject string, f func(n int, m *nats.Msg) *nats.Msg) {
		n := 0
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { n++; _ = m.RespondMsg(f(n, m)) }); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(times int) func(int, *nats.Msg) *nats.Msg {
		return func(n int, _ *nats.Msg) *nats.Msg {
			if n <= times {
				return &nats.Msg{Data: refused}
			}
			return &nats.Msg{Data: []byte(`{"stream": "x", "seq": 7}`)}
		}
	}
	answer("weir.q.>", refuse(2))
	answer("weir.lease.>", refuse(1))
	none := func(int, *nats.Msg) *nats.Msg { return &nats.Msg{Header: nats.Header{"Status": {"404"}}} }
	answer("$JS.API.DIRECT.GET.>", none)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	r := newRecord(t, "x")
	if _, err := c.TryLease(t.Context(), "x", "a"); !errors.Is(err, stream.ErrBusy) || errors.Is(err, stream.ErrLeaseHeld) {
		t.Errorf("a lease: %v", err)
	}
	if there, err := c.AppendOnce(t.Context(), q.Key, r); there != nil || err != nil {
		t.Errorf("a record, the third time: %v, %v", there, err)
	}
}

// TestHasten: a record that was rescheduled comes at once, once, no older than it is, and where none is rescheduled there is
// nothing to do.
func TestHasten(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := jobQueue()
	ensure(t, c, q)
	r := newRecord(t, "x")
	now := time.Now()
	for attempts := range 2 { // the later replaces the former
		r.Attempts = attempts
		if err := c.DelayJob(t.Context(), q.Key, stream.Wait{Since: now, Due: now.Add(time.Hour)}, *r); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := c.Hasten(t.Context(), q.Key, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	reader := open(t, c, q.Key)
	for {
		select {
		case p := <-reader.Pulls():
			p.Begin(16, nil)
			continue
		case d := <-reader.Deliveries():
			if len(d.Records) != 1 || d.Records[0].ID != r.ID || d.Records[0].Attempts != 1 {
				t.Errorf("%+v", d.Records)
			}
			if age := c.Now().Sub(d.Since) + d.Records[0].Age; age < 0 || age > time.Minute {
				t.Errorf("a record that was rescheduled for an hour and hastened has the age %s", age)
			}
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
		case <-reader.Done():
			t.Fatal(reader.Err())
		}
		break
	}
	testkit.Eventually(t, "nothing more is rescheduled", func() bool { s, err := c.Status(t.Context(), q.Key); return err == nil && s.Empty() })
	if err := c.Hasten(t.Context(), q.Key, r.ID); err != nil {
		t.Errorf("what is not rescheduled: %v", err)
	}
}

// TestManyFollowers: more clients than the server's own bound on consumers follow one queue's jobs, each its own, and are
// told what is there and what comes.
func TestManyFollowers(t *testing.T) {
	const clients = 1200
	c := testkit.Conn(t, testkit.NATS(t))
	q := jobQueue()
	ensure(t, c, q)
	key := func(n int) stream.JobKey {
		id, err := record.NewID()
		if err != nil {
			t.Error(err)
		}
		return stream.JobKey{Client: record.Client{1, byte(n), byte(n >> 8)}, ID: id}
	}
	keys := make([]stream.JobKey, clients)
	first, second := make(chan struct{}, clients), make(chan error, clients)
	ctx, cancel := context.WithTimeout(t.Context(), 4*testkit.Patience) // with the race detector on a busy machine
	defer cancel()
	for n := range clients {
		keys[n] = key(n)
		if n%2 == 0 { // the others come while they are followed
			put(t, c, q.Key, keys[n], 0)
		}
		go func() {
			told := 0
			err := c.FollowClient(ctx, keys[n].Client, []catalog.Key{q.Key}, nil, func(_ catalog.Key, k stream.JobKey, s stream.JobState, _ stream.Place) error {
				if k != keys[n] || s.Header != "state" {
					return fmt.Errorf("client %d is told %q of %v", n, s.Header, k)
				}
				if told++; told == 1 {
					first <- struct{}{}
					return nil
				}
				return errTold
			})
			second <- err
		}()
	}
	var seqs [clients]uint64
	for n := range clients {
		if n%2 == 1 {
			seqs[n] = put(t, c, q.Key, keys[n], 0)
		}
	}
	for range clients {
		select {
		case <-first:
		case err := <-second:
			t.Fatal(err)
		}
	}
	for n := range clients {
		if n%2 == 0 {
			there, err := c.Job(t.Context(), q.Key, keys[n])
			if err != nil {
				t.Fatal(err)
			}
			seqs[n] = there.Seq
		}
		put(t, c, q.Key, keys[n], seqs[n])
	}
	for range clients {
		if err := <-second; !errors.Is(err, errTold) {
			t.Fatal(err)
		}
	}
}

var errTold = errors.New("told")

func put(t *testing.T, c *stream.Conn, q catalog.Key, k stream.JobKey, last uint64) uint64 {
	t.Helper()
	seq, err := c.PutJob(t.Context(), q, k, stream.JobState{Header: "state"}, last)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// tell follows the client's jobs from a place on until n states have come, and returns their sequences and last place.
func tell(t *testing.T, c *stream.Conn, q catalog.Key, client record.Client, from stream.Place, n int) (seqs []uint64, at stream.Place) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	err := c.FollowClient(ctx, client, []catalog.Key{q}, map[catalog.Key]stream.Place{q: from}, func(_ catalog.Key, _ stream.JobKey, s stream.JobState, now stream.Place) error {
		if seqs, at = append(seqs, now.Seq), now; len(seqs) == n {
			return errTold
		}
		return nil
	})
	if !errors.Is(err, errTold) {
		t.Error(err)
	}
	return seqs, at
}

// putAll stores the first states of n jobs of the client, and returns the last one's sequence.
func putAll(t *testing.T, c *stream.Conn, q catalog.Key, client record.Client, n int) (last uint64) {
	t.Helper()
	for range n {
		id, err := record.NewID()
		if err != nil {
			t.Fatal(err)
		}
		last = put(t, c, q, stream.JobKey{Client: client, ID: id}, 0)
	}
	return last
}

// TestFollowClientOfQueueMadeAnew: a client comes back with a place in a queue that was deleted and made again, and has
// more states by now than the client was told of the former one.
func TestFollowClientOfQueueMadeAnew(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := jobQueue()
	ensure(t, c, q)
	client := record.Client{1}
	putAll(t, c, q.Key, client, 10)
	_, at := tell(t, c, q.Key, client, stream.Place{}, 10)
	if at.Epoch == "" {
		t.Fatal("the stream has no epoch")
	}
	ensure(t, c, q) // as at every start of the process that makes queues
	putAll(t, c, q.Key, client, 1)
	if seqs, now := tell(t, c, q.Key, client, at, 1); len(seqs) != 1 || seqs[0] <= at.Seq || now.Epoch != at.Epoch {
		t.Errorf("of the same queue: %v at %+v", seqs, now)
	}
	if err := c.DeleteQueue(t.Context(), q.Key); err != nil {
		t.Fatal(err)
	}
	ensure(t, c, q)
	putAll(t, c, q.Key, client, 12)
	// The first connection has read the former epoch, the second none.
	for _, c := range []*stream.Conn{c, testkit.Conn(t, s)} {
		if seqs, now := tell(t, c, q.Key, client, at, 12); len(seqs) != 12 || now.Epoch == at.Epoch || now.Epoch == "" {
			t.Errorf("of the new queue: %v at %+v", seqs, now)
		}
	}
}

// TestFollowWhileTheQueueIsMadeAnew: the same under a client that stays.
func TestFollowWhileTheQueueIsMadeAnew(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := jobQueue()
	ensure(t, c, q)
	client := record.Client{1}
	putAll(t, c, q.Key, client, 5)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	told, made := 0, make(chan error, 1)
	err := c.FollowClient(ctx, client, []catalog.Key{q.Key}, nil, func(catalog.Key, stream.JobKey, stream.JobState, stream.Place) error {
		switch told++; told {
		case 5:
			made <- c.DeleteQueue(ctx, q.Key)
			ensure(t, c, q)
			putAll(t, c, q.Key, client, 8)
		case 13:
			return errTold
		}
		return nil
	})
	if !errors.Is(err, errTold) || <-made != nil {
		t.Errorf("told of %d: %v", told, err)
	}
}

// TestFollowAnOlderStream: a client whose place is past the end of a restored queue gets it from the beginning.
func TestFollowAnOlderStream(t *testing.T) {
	c := testkit.Conn(t, testkit.NATS(t))
	q := jobQueue()
	ensure(t, c, q)
	client := record.Client{1}
	putAll(t, c, q.Key, client, 3)
	all, at := tell(t, c, q.Key, client, stream.Place{}, 3)
	if got, _ := tell(t, c, q.Key, client, stream.Place{Epoch: at.Epoch, Seq: all[0]}, 2); !slices.Equal(got, all[1:]) {
		t.Errorf("after the first: %v", got)
	}
	if got, _ := tell(t, c, q.Key, client, stream.Place{Epoch: at.Epoch, Seq: 20_000}, 3); !slices.Equal(got, all) {
		t.Errorf("after what is to come: %v", got)
	}
}

// TestEpochOutlivesStates: it stays when the states age out.
func TestEpochOutlivesStates(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := jobQueue()
	q.Results.MaxAge = time.Second
	ensure(t, c, q)
	putAll(t, c, q.Key, record.Client{1}, 3)
	states, err := testkit.JetStream(t, s).Stream(t.Context(), "WEIR_S_default_orders")
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the states have aged out", func() bool {
		info, err := states.Info(t.Context())
		return err == nil && info.State.Msgs == 2
	})
	for _, token := range []string{"epoch.0", "whole.0"} {
		if m, err := states.GetLastMsgForSubject(t.Context(), "weir.s.default.orders."+token); err != nil || len(m.Data) == 0 {
			t.Errorf("%s: %+v, %v", token, m, err)
		}
	}
}

// TestStatesOfTheVersionBefore are moved when the queue gets its log; none that is written later is below them.
func TestStatesOfTheVersionBefore(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := jobQueue()
	js := testkit.JetStream(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "WEIR_J_default_orders", Subjects: []string{"weir.j.default.orders.*.*"}, MaxMsgsPerSubject: 1, MaxAge: time.Hour, MaxBytes: q.Results.MaxBytes,
		Discard: jetstream.DiscardNew, AllowDirect: true, MaxConsumers: 50_000,
	}); err != nil {
		t.Fatal(err)
	}
	var ids []stream.JobKey
	for i := range 100 {
		id := stream.JobKey{ID: newRecord(t, "x").ID}
		ids = append(ids, id)
		m := &nats.Msg{Subject: "weir.j.default.orders." + id.String(), Header: nats.Header{"Weir-Job": {strconv.Itoa(i)}}, Data: []byte("body")}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	ensure(t, c, q)
	for i, id := range ids {
		got, err := c.Job(t.Context(), q.Key, id)
		if err != nil || got.Header != strconv.Itoa(i) || string(got.Body) != "body" || got.Seq != uint64(i)+1 {
			t.Fatalf("%d is %+v, %v", i, got, err)
		}
	}
	if seq := put(t, c, q.Key, stream.JobKey{ID: newRecord(t, "x").ID}, 0); seq <= 100 {
		t.Errorf("a new state has the version %d", seq)
	}
	ensure(t, c, q) // as at every start of the process that makes queues
	// It stays until the states that were moved are synced, and is closed.
	former, err := js.Stream(t.Context(), "WEIR_J_default_orders")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "weir.j.default.orders.a.b", []byte("xx")); err == nil {
		t.Error("the former stream takes states")
	}
	moved := func(text string) {
		t.Helper()
		sc := former.CachedInfo().Config
		sc.Metadata["weir.dev/moved"] = text
		if former, err = js.UpdateStream(t.Context(), sc); err != nil {
			t.Fatal(err)
		}
		ensure(t, c, q)
	}
	states, err := js.Stream(t.Context(), "WEIR_S_default_orders")
	if err != nil {
		t.Fatal(err)
	}
	if err := states.Purge(t.Context(), jetstream.WithPurgeSubject("weir.s.default.orders."+ids[7].String())); err != nil {
		t.Fatal(err)
	}
	moved("ANOTHER 2026-01-01T00:00:00Z") // NATS was started anew: it may have lost some
	if got, err := c.Job(t.Context(), q.Key, ids[7]); err != nil || got.Header != "7" {
		t.Errorf("what was lost is %+v, %v", got, err)
	}
	moved(js.Conn().ConnectedServerId() + " 2026-01-01T00:00:00Z")
	if _, err := js.Stream(t.Context(), "WEIR_J_default_orders"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the former stream: %v", err)
	}
	ensure(t, c, q)
}

// TestFollowClientWhileStatesAreRestored: nobody is told of a state that NATS has gone back to.
func TestFollowClientWhileStatesAreRestored(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := jobQueue()
	ensure(t, c, q)
	js, client := testkit.JetStream(t, s), record.Client{1}
	key := stream.JobKey{Client: client, ID: newRecord(t, "x").ID}
	put(t, c, q.Key, key, 0)
	whole := "weir.s.default.orders.whole.0"
	looks := make(chan *nats.Msg, 64)
	sub, err := js.Conn().ChanSubscribe("$JS.API.DIRECT.GET.WEIR_S_default_orders."+whole, looks)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if _, err := js.Publish(t.Context(), whole, []byte("ANOTHER")); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 8)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fresh := testkit.Conn(t, s)
	go func() {
		_ = fresh.FollowClient(ctx, client, []catalog.Key{q.Key}, nil, func(_ catalog.Key, _ stream.JobKey, s stream.JobState, _ stream.Place) error {
			told <- s.Header
			return nil
		})
	}()
	for range 2 {
		receive(t, looks, "a look whether the states are whole")
	}
	there, err := c.LoadState(t.Context(), q.Key, key.String())
	if err != nil {
		t.Fatal(err)
	}
	there.Header, there.Version = "restored", there.Version+1
	p, err := c.PutState(q.Key, stream.StatePut{Key: key.String(), StoredState: there})
	if err == nil {
		_, err = p.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), whole, []byte(js.Conn().ConnectedServerId())); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, told, "a state"); got != "restored" {
		t.Errorf("the first state that it is told is %q", got)
	}
}

func receive[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testkit.Patience):
		t.Fatalf("no %s", what)
	}
	return v
}
