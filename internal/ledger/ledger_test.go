package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func queue() catalog.Queue {
	return catalog.Queue{
		Key: catalog.Key{Namespace: "default", Name: "reports"}, MaxAge: time.Hour, Jobs: true,
		MaxBytes: 16 << 20, DeadLetterMaxAge: time.Hour, Results: catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20},
	}
}

// fixture is a NATS with the streams of a queue's states.
type fixture struct {
	t    *testing.T
	cfg  localnats.Config
	srv  *localnats.Server
	conn *stream.Conn
	q    catalog.Queue
}

func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, cfg: localnats.Config{Dir: t.TempDir(), Port: processes.FreePort(t), Token: localnats.NewToken()}, q: queue()}
	f.srv = testkit.NATSIn(t, f.cfg)
	f.conn = testkit.Conn(t, f.srv)
	if err := f.conn.EnsureQueue(t.Context(), f.q, 1); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) open() *ledger.Owner {
	f.t.Helper()
	o, err := ledger.Open(f.t.Context(), f.conn, f.q.Key, testkit.Log(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { o.Close(gone()) })
	return o
}

// startAgain starts NATS, which was stopped.
func (f *fixture) startAgain() {
	f.t.Helper()
	testkit.Eventually(f.t, "the connection is gone", func() bool { return f.conn.Ready() != nil })
	f.srv = testkit.NATSIn(f.t, f.cfg)
	testkit.Eventually(f.t, "the connection is up", func() bool { return f.conn.Ready() == nil })
}

// gone is a context that has ended: nothing is waited for.
func gone() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// set gives a key a state, and waits until it is durable.
func (f *fixture) set(o *ledger.Owner, key, header string) error {
	f.t.Helper()
	c, err := o.Hold(f.t.Context(), key)
	if err != nil {
		return err
	}
	defer o.Release(c)
	return o.Change(c, func(ledger.Value) (ledger.Value, error) { return ledger.Value{Header: header}, nil }).Wait()
}

// shows waits until a key can be looked up with this state.
func (f *fixture) shows(key, header string) {
	f.t.Helper()
	testkit.Eventually(f.t, key+" is "+header, func() bool {
		s, err := f.conn.State(f.t.Context(), f.q.Key, key)
		return err == nil && s.Header == header
	})
}

func TestChangeIsShown(t *testing.T) {
	f := start(t)
	if s, err := f.conn.State(t.Context(), f.q.Key, "-.a"); err != nil || s.Version != 0 {
		t.Errorf("a look before there was an owner: %+v, %v", s, err)
	}
	o := f.open()
	c, err := o.Hold(t.Context(), "-.a")
	if err != nil {
		t.Fatal(err)
	}
	p := o.Change(c, func(was ledger.Value) (ledger.Value, error) {
		if was.Header != "" {
			t.Errorf("it was %+v", was)
		}
		return ledger.Value{Header: "first", Body: []byte("body")}, nil
	})
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := o.Shown(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	first, err := f.conn.State(t.Context(), f.q.Key, "-.a")
	if err != nil || first.Header != "first" || string(first.Body) != "body" || first.Version == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	errNo := errors.New("no")
	if err := o.Change(c, func(ledger.Value) (ledger.Value, error) { return ledger.Value{}, errNo }).Wait(); !errors.Is(err, errNo) {
		t.Errorf("a change that was refused: %v", err)
	}
	o.Release(c)
	if err := f.set(o, "-.a", "second"); err != nil {
		t.Fatal(err)
	}
	f.shows("-.a", "second")
	if s, _ := f.conn.State(t.Context(), f.q.Key, "-.a"); s.Version <= first.Version {
		t.Errorf("version %d after %d", s.Version, first.Version)
	}
	if s, err := f.conn.State(t.Context(), f.q.Key, "-.none"); err != nil || s.Version != 0 {
		t.Errorf("a key without a state: %+v, %v", s, err)
	}
}

// TestChangesShareABlock: a lazy change waits for one that can't, and those of a moment are one write.
func TestChangesShareABlock(t *testing.T) {
	f := start(t)
	o := f.open()
	before, err := f.conn.LedgerEnd(t.Context(), f.q.Key)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	var wg sync.WaitGroup
	for i := range n {
		c, err := o.Hold(t.Context(), "-."+strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.ChangeLater(c, func(ledger.Value) (ledger.Value, error) {
			return ledger.Value{Make: func() string { return "running" }}, nil
		}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer o.Release(c)
			if err := o.Change(c, func(ledger.Value) (ledger.Value, error) { return ledger.Value{Header: "succeeded"}, nil }).Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	after, err := f.conn.LedgerEnd(t.Context(), f.q.Key)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := after.Last - before.Last; blocks > n/4 {
		t.Errorf("%d changes took %d blocks", 2*n, blocks)
	}
	f.shows("-."+strconv.Itoa(n-1), "succeeded")
}

// TestOwnerBeforeIsFencedOff: an owner that another has followed can change nothing, even if nobody has told it.
func TestOwnerBeforeIsFencedOff(t *testing.T) {
	f := start(t)
	first := f.open()
	if err := f.set(first, "-.a", "first"); err != nil {
		t.Fatal(err)
	}
	second := f.open()
	if err := f.set(first, "-.a", "late"); !errors.Is(err, ledger.ErrLost) {
		t.Fatalf("the change of the owner before: %v", err)
	}
	<-first.Done()
	if err := f.set(second, "-.b", "second"); err != nil {
		t.Fatal(err)
	}
	f.shows("-.a", "first")
	f.shows("-.b", "second")
}

// TestChangesOfAnOwnerThatDied: what was durable and not shown, its successor shows.
func TestChangesOfAnOwnerThatDied(t *testing.T) {
	f := start(t)
	js := testkit.JetStream(t, f.srv)
	o := f.open()
	if err := f.set(o, "-.a", "first"); err != nil {
		t.Fatal(err)
	}
	f.shows("-.a", "first")
	// Without its stream nothing can be shown.
	s, err := js.Stream(t.Context(), "WEIR_S_default_reports")
	if err != nil {
		t.Fatal(err)
	}
	c, err := o.Hold(t.Context(), "-.b")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "WEIR_S_default_reports"); err != nil {
		t.Fatal(err)
	}
	if err := f.set(o, "-.c", "first"); err == nil {
		t.Error("a key could be held although its state can't be looked up")
	}
	if err := o.Change(c, func(ledger.Value) (ledger.Value, error) { return ledger.Value{Header: "second"}, nil }).Wait(); err != nil {
		t.Fatal(err)
	}
	o.Close(gone())
	if _, err := js.CreateStream(t.Context(), s.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	f.open()
	f.shows("-.a", "first") // and what the states have lost, as they are another server's
	f.shows("-.b", "second")
}

// TestStatesThatNATSHasLost: a power cut takes the latest states, which are not synced. Nobody sees the ones before them.
func TestStatesThatNATSHasLost(t *testing.T) {
	f := start(t)
	o := f.open()
	states, before := filepath.Join(f.cfg.Dir, "jetstream", "$G", "streams", "WEIR_S_default_reports"), t.TempDir()
	for i := range 300 {
		if err := f.set(o, "-."+strconv.Itoa(i%10), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if i == 150 {
			o.Close(t.Context())
			f.srv.Stop()
			if err := os.CopyFS(before, os.DirFS(states)); err != nil {
				t.Fatal(err)
			}
			f.startAgain()
			o = f.open()
		}
	}
	o.Close(t.Context())
	f.srv.Stop()
	if err := os.RemoveAll(states); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(states, os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	f.startAgain()
	if s, err := f.conn.State(t.Context(), f.q.Key, "-.9"); !errors.Is(err, stream.ErrRestoring) {
		t.Errorf("a look before they are restored: %+v, %v", s, err)
	}
	if s, err := f.conn.LoadState(t.Context(), f.q.Key, "-.9"); err != nil || s.Header == "299" {
		t.Errorf("nothing was lost: %+v, %v", s, err)
	}
	f.open()
	for i := 290; i < 300; i++ {
		s, err := f.conn.State(t.Context(), f.q.Key, "-."+strconv.Itoa(i%10))
		if err != nil || s.Header != strconv.Itoa(i) {
			t.Errorf("%d is %+v, %v", i%10, s, err)
		}
	}
}

// TestNoRoom: without room for states their changes wait, and go on once there is some.
func TestNoRoom(t *testing.T) {
	f := start(t)
	f.q.Results.MaxBytes = 64 << 10
	if err := f.conn.EnsureQueue(t.Context(), f.q, 1); err != nil {
		t.Fatal(err)
	}
	o := f.open()
	large := strings.Repeat("x", 10_000)
	for i := 0; o.Room() == nil; i++ {
		if i == 100 {
			t.Fatal("there is always room")
		}
		c, err := o.Hold(t.Context(), "-."+strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		o.Change(c, func(ledger.Value) (ledger.Value, error) {
			return ledger.Value{Header: strconv.Itoa(i), Body: []byte(large + strconv.Itoa(rand.Int()))}, nil
		})
		o.Release(c)
		testkit.Eventually(t, "it is known whether there was room", func() bool {
			s, err := f.conn.State(t.Context(), f.q.Key, "-."+strconv.Itoa(i))
			return err == nil && s.Version > 0 || o.Room() != nil
		})
	}
	f.q.Results.MaxBytes = 16 << 20
	if err := f.conn.EnsureQueue(t.Context(), f.q, 1); err != nil {
		t.Fatal(err)
	}
	if err := o.WaitRoom(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.shows("-.0", "0")
}

// TestOwnerWithoutRoom: states that an owner could not show, as there was no room, its successor shows when there is; meanwhile it
// owns the queue.
func TestOwnerWithoutRoom(t *testing.T) {
	f := start(t)
	js := testkit.JetStream(t, f.srv)
	limit := func(bytes int64) {
		t.Helper()
		s, err := js.Stream(t.Context(), "WEIR_S_default_reports")
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.MaxBytes = bytes
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	o := f.open()
	if err := f.set(o, "-.a", "first"); err != nil {
		t.Fatal(err)
	}
	f.shows("-.a", "first")
	limit(100)
	for key, state := range map[string]string{"-.a": "second, longer than the first", "-.b": "first"} {
		if err := f.set(o, key, state); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "there is no room", func() bool { return o.Room() != nil })
	o.Close(t.Context())
	next := f.open()
	if next.Room() == nil {
		t.Error("there is room")
	}
	c, err := next.Hold(t.Context(), "-.a")
	if err != nil || next.Value(c).Header != "second, longer than the first" {
		t.Errorf("the next owner has %+v, %v", next.Value(c), err)
	}
	next.Release(c)
	limit(16 << 20)
	if err := next.WaitRoom(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.shows("-.a", "second, longer than the first")
	f.shows("-.b", "first")
}

// TestRandomOwners: whatever owners come and go, each change that was durable stays until the next one of its key, and
// nobody who looks sees an older state than one he has seen.
func TestRandomOwners(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { randomOwners(t, seed) })
	}
}

func randomOwners(t *testing.T, seed uint64) {
	f := start(t)
	r := rand.New(rand.NewPCG(seed, 1))
	const keys = 8
	var durable, began [keys]int // the newest number of each key
	seen := [keys]int{}
	for round := range 20 {
		o := f.open()
		var wg sync.WaitGroup
		var mu sync.Mutex
		stop := r.IntN(40)
		for step := range 40 {
			if step == stop && r.IntN(2) == 0 {
				o.Close(gone())
				break
			}
			k := r.IntN(keys)
			c, err := o.Hold(t.Context(), fmt.Sprintf("-.%d", k))
			if err != nil {
				t.Fatal(err)
			}
			next := func(was ledger.Value) (ledger.Value, error) {
				n, _ := strconv.Atoi(was.Header)
				mu.Lock()
				defer mu.Unlock()
				if n < durable[k] {
					t.Errorf("round %d: %d has %d, and %d was durable", round, k, n, durable[k])
				}
				began[k] = max(began[k], n+1)
				return ledger.Value{Header: strconv.Itoa(n + 1)}, nil
			}
			var p ledger.Pending
			if r.IntN(3) == 0 {
				if _, err := o.ChangeLater(c, next); err == nil && r.IntN(2) == 0 {
					o.Release(c)
					continue
				}
				p = o.Settled(c)
			} else {
				p = o.Change(c, next)
			}
			n, _ := strconv.Atoi(o.Value(c).Header)
			wg.Go(func() {
				err := p.Wait()
				o.Release(c)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					durable[k] = max(durable[k], n)
				}
			})
			if r.IntN(8) == 0 {
				wg.Wait()
			}
			if s, err := f.conn.State(t.Context(), f.q.Key, fmt.Sprintf("-.%d", k)); err == nil {
				n, _ := strconv.Atoi(s.Header)
				if n < seen[k] {
					t.Errorf("round %d: %d is %d, and was seen as %d", round, k, n, seen[k])
				}
				seen[k] = n
			}
		}
		if r.IntN(2) == 0 {
			o.Close(t.Context())
		}
		wg.Wait()
	}
	o := f.open()
	for k := range keys {
		c, err := o.Hold(t.Context(), fmt.Sprintf("-.%d", k))
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := strconv.Atoi(o.Value(c).Header); n < durable[k] || n > began[k] {
			t.Errorf("%d is %d at the end; %d was durable, %d had begun", k, n, durable[k], began[k])
		}
		o.Release(c)
	}
}

// TestLogMadeAnew: the owner of a queue that was deleted and made again is none.
func TestLogMadeAnew(t *testing.T) {
	f := start(t)
	o := f.open()
	for i := range 3 {
		if err := f.set(o, "-.a", strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	js := testkit.JetStream(t, f.srv)
	for _, name := range []string{"WEIR_S_default_reports", "WEIR_L_default_reports"} {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.conn.EnsureQueue(t.Context(), f.q, 1); err != nil {
		t.Fatal(err)
	}
	present := f.open()
	for i := range 5 { // as many blocks as there were before
		if err := f.set(present, "-.b", strconv.Itoa(i)); err != nil {
			t.Error(err)
		}
	}
	if err := f.set(o, "-.b", "late"); !errors.Is(err, ledger.ErrLost) {
		t.Errorf("the former owner changed something: %v", err)
	}
	f.shows("-.b", "4")
}
