package dispatcher_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// cluster is some dispatchers that share some queues.
type cluster struct {
	t      *testing.T
	nats   *localnats.Server
	conn   *stream.Conn
	worlds []*world
	cat    *catalog.Catalog
	tel    telemetry.Providers // of the dispatchers that are started next

	mu      sync.Mutex
	holders map[string]string // of queues, as the leases are now
	moves   int               // leases that were taken
}

// hand is one dispatcher of a cluster.
type process struct {
	*dispatcher.Dispatcher
	conn *stream.Conn
	stop func() // in order
}

func newCluster(t *testing.T, queues int, script func(call) answer, change func(*catalog.Mapping)) *cluster {
	t.Helper()
	c := &cluster{t: t, nats: testkit.NATS(t), cat: new(catalog.Catalog), holders: map[string]string{}}
	c.conn = testkit.Conn(t, c.nats)
	for range queues {
		w := newWorld(t, c.conn, script, change)
		c.worlds = append(c.worlds, w)
		c.cat.Mappings = append(c.cat.Mappings, w.spec)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.conn.WatchLeases(ctx, c.told)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func (c *cluster) told(l *stream.LeaseState) {
	if l == nil {
		return
	}
	name, ok := strings.CutPrefix(l.Name, "queue.default.")
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Owner != "" && c.holders[name] != l.Owner {
		c.moves++
	}
	c.holders[name] = l.Owner
}

// held returns who holds which queues, and how many leases were taken in all.
func (c *cluster) held() (map[string][]string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string][]string{}
	for q, owner := range c.holders {
		if owner != "" {
			out[owner] = append(out[owner], q)
		}
	}
	return out, c.moves
}

// spread is how many queues each holds, the most first.
func (c *cluster) spread() []int {
	held, _ := c.held()
	var out []int
	for _, queues := range held {
		out = append(out, len(queues))
	}
	slices.SortFunc(out, func(a, b int) int { return b - a })
	return out
}

func (c *cluster) waitSpread(want ...int) {
	c.t.Helper()
	testkit.Eventually(c.t, fmt.Sprintf("the queues are shared %v", want), func() bool { return slices.Equal(c.spread(), want) })
}

// start starts a dispatcher with a connection of its own.
func (c *cluster) start(owner string, drain time.Duration) *process {
	c.t.Helper()
	h := &process{conn: testkit.Conn(c.t, c.nats)}
	caller := invoke.NewCaller(16, c.tel)
	var err error
	h.Dispatcher, err = dispatcher.New(dispatcher.Config{
		Conn: h.conn, Caller: caller, Objects: blob.NewNATS(h.conn, func() sign.Ring { return sign.Ring{} }, time.Now, ""),
		Owner: owner, DrainTimeout: drain, Telemetry: c.tel, Log: testkit.Log(c.t).With("dispatcher", owner),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	h.Use(c.cat)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx, func() {}) }()
	h.stop = sync.OnceFunc(func() { cancel(); <-done; caller.Close(); h.conn.Close() })
	c.t.Cleanup(h.stop)
	return h
}

// load puts records into all queues, one after the other, until the returned function is called. That returns how many
// each has got.
func (c *cluster) load(every time.Duration) (finish func() int) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var n int
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			var puts sync.WaitGroup
			for _, w := range c.worlds {
				puts.Go(func() { w.put(strconv.Itoa(n)) })
			}
			puts.Wait()
			n++
		}
	})
	return func() int { close(stop); wg.Wait(); return n }
}

// verify waits until all is settled, and checks that the function took each of n records of each queue as often as it may,
// and never more of them at once than the cap.
func (c *cluster) verify(n, limit int, once bool) {
	c.t.Helper()
	for _, w := range c.worlds {
		w.settled()
		w.mu.Lock()
		if len(w.taken) != n {
			c.t.Errorf("queue %s: %d of %d records were taken", w.queue.Key.Name, len(w.taken), n)
		}
		for b, times := range w.taken {
			if once && times != 1 {
				c.t.Errorf("queue %s: record %s was taken %d times", w.queue.Key.Name, b, times)
			}
		}
		if w.maxSeen > limit {
			c.t.Errorf("queue %s: %d calls at once, want at most %d", w.queue.Key.Name, w.maxSeen, limit)
		}
		w.mu.Unlock()
	}
}

// TestDispatchersShareTheQueues: one that joins gets its share, and no more moves than that. The queues of one that
// leaves go on at once, those of one that was killed when its leases have expired.
func TestDispatchersShareTheQueues(t *testing.T) {
	t.Parallel() // it waits for leases to end
	c := newCluster(t, 8, func(call) answer { return answer{} }, nil)
	began := time.Now()
	c.start("a", time.Second)
	c.waitSpread(8)
	if d := time.Since(began); d > stream.LeaseTTL/2 {
		t.Errorf("the first had its queues after %s", d)
	}
	b := c.start("b", time.Second)
	c.waitSpread(4, 4)
	if _, moves := c.held(); moves != 8+4 {
		t.Errorf("%d leases were taken", moves)
	}
	before, _ := c.held()
	third := c.start("c", time.Second)
	c.waitSpread(3, 3, 2)
	after, moves := c.held()
	if moves != 8+4+2 {
		t.Errorf("%d leases were taken", moves)
	}
	for _, owner := range []string{"a", "b"} {
		for _, q := range after[owner] {
			if !slices.Contains(before[owner], q) {
				t.Errorf("%s has got queue %s, which was another's", owner, q)
			}
		}
	}

	for _, w := range c.worlds {
		w.put("all work")
	}
	c.verify(1, 4, true)
	for i, h := range []*process{b, third} {
		taken := 0
		for _, w := range c.worlds {
			s, _ := h.Stats(w.spec.Key)
			taken += s.Taken
		}
		if taken != []int{3, 2}[i] {
			t.Errorf("%d records were taken by the dispatcher that has %v", taken, after)
		}
	}

	left := time.Now()
	third.stop()
	for _, w := range c.worlds {
		w.put("one has left")
	}
	c.verify(2, 4, true)
	if d := time.Since(left); d > stream.LeaseTTL/2 { // nobody waited for its leases to expire
		t.Errorf("after one has left, all queues went on after %s", d)
	}
	c.waitSpread(4, 4)
	if _, moves := c.held(); moves != 8+4+2+2 {
		t.Errorf("%d leases were taken", moves)
	}

	killed := time.Now()
	b.conn.Close()
	for _, w := range c.worlds {
		w.put("one was killed")
	}
	c.verify(3, 4, true)
	c.waitSpread(8)
	d := time.Since(killed)
	t.Logf("after one was killed, all queues went on after %s", d.Round(time.Millisecond))
	if d > 2*stream.LeaseTTL { // the last renewal was before it was killed; the machine may be busy
		t.Errorf("after one was killed, all queues went on after %s", d)
	}
}

// TestAHandoffIsNoStandstill: under load, with short calls, a queue moves from one to another between two calls; no more
// calls run than may, and no record is lost, delayed for long or taken twice.
func TestAHandoffIsNoStandstill(t *testing.T) {
	const limit = 2
	c := newCluster(t, 4, func(c call) answer {
		timer := time.NewTimer(5 * time.Millisecond)
		defer timer.Stop()
		<-timer.C
		return answer{}
	}, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = limit, 1 })
	c.start("a", testkit.Patience)
	c.waitSpread(4)
	finish := c.load(10 * time.Millisecond)
	gaps := func(what string, do func()) {
		t.Helper()
		var stop atomic.Bool
		var wg sync.WaitGroup
		longest := make([]time.Duration, len(c.worlds))
		for i, w := range c.worlds {
			wg.Go(func() {
				for done := false; !done; {
					done = stop.Load() // once more after that
					last, n := time.Now(), len(w.seen())
					testkit.Eventually(t, "a call begins", func() bool { return len(w.seen()) > n })
					longest[i] = max(longest[i], time.Since(last))
				}
			})
		}
		do()
		stop.Store(true)
		wg.Wait()
		t.Logf("%s: no call of a queue began for at most %v", what, longest)
		for i, d := range longest {
			if d > stream.LeaseTTL/2 { // well above what a busy machine adds, well below a lease that expires
				t.Errorf("%s: queue %d stood still for %s", what, i, d)
			}
		}
	}
	var b *process
	gaps("b joins", func() { b = c.start("b", testkit.Patience); c.waitSpread(2, 2) })
	gaps("b leaves", func() { b.stop(); c.waitSpread(4) })
	gaps("b joins again", func() { c.start("b", testkit.Patience); c.waitSpread(2, 2) })
	c.verify(finish(), limit, true)
}

// long is a script whose calls with the record "long" last until the channel is closed.
func long(release <-chan struct{}) func(call) answer {
	return func(c call) answer {
		if c.bodies[0] == "long" {
			<-release
		}
		return answer{}
	}
}

// TestAHandoffPrefersIdleQueues: a dispatcher with too many hands over those without a call in flight.
func TestAHandoffPrefersIdleQueues(t *testing.T) {
	release := make(chan struct{})
	c := newCluster(t, 4, long(release), func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 2, 1 })
	c.start("a", time.Second)
	c.waitSpread(4)
	var busy []string
	for _, w := range []*world{c.worlds[0], c.worlds[2]} {
		w.put("long")
		testkit.Eventually(t, "the long call runs", func() bool { return w.running() == 1 })
		busy = append(busy, w.queue.Key.Name)
	}
	c.start("b", time.Second)
	c.waitSpread(2, 2)
	held, _ := c.held()
	for _, q := range busy {
		if !slices.Contains(held["a"], q) {
			t.Errorf("queue %s was handed over; %v", q, held)
		}
	}
	close(release)
	for _, w := range c.worlds {
		w.settled()
	}
}

// TestAHandoffCutsNoCall: while calls last the queue is kept, and goes on after a pause.
func TestAHandoffCutsNoCall(t *testing.T) {
	t.Parallel() // it waits for the pause
	release := make(chan struct{})
	c := newCluster(t, 2, long(release), func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 2, 1 })
	a := c.start("a", time.Millisecond) // an ordinary drain would cut the calls at once
	c.waitSpread(2)
	for _, w := range c.worlds {
		w.put("long")
		testkit.Eventually(t, "the long call runs", func() bool { return w.running() == 1 })
	}
	c.start("b", time.Second)
	began := time.Now()
	n := 0
	// Both are tried in turn, and each is paused meanwhile; so a call of one of them begins later than it could.
	for paused := false; !paused; n++ {
		for _, w := range c.worlds {
			w.put(strconv.Itoa(n))
			put := time.Now()
			testkit.Eventually(t, "a call begins and ends beside the long one", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.taken[strconv.Itoa(n)] == 1 })
			paused = paused || time.Since(put) > time.Second
		}
		if time.Since(began) > testkit.Patience {
			t.Fatal("no handoff was tried")
		}
	}
	if spread := c.spread(); !slices.Equal(spread, []int{2}) {
		t.Errorf("the queues are shared %v although calls are in flight", spread)
	}
	close(release)
	c.verify(n+1, 2, true)
	for _, m := range c.cat.Mappings {
		if s, _ := a.Stats(m.Key); s.Failed != 0 || s.Throttled != 0 || s.Returned != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestWhoWaitsForLeasesAsksNothing: a dispatcher that waits for fifty queues which another has makes next to no requests.
func TestWhoWaitsForLeasesAsksNothing(t *testing.T) {
	t.Parallel() // it waits for renewals
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	connect := func(name string) *stream.Conn {
		conn, err := stream.Connect(stream.Config{URL: srv.ClientURL(), Name: name, PingInterval: time.Minute, Log: testkit.Log(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		testkit.Eventually(t, "the connection is up", func() bool { return conn.Ready() == nil })
		return conn
	}
	owner, waits := connect("owner"), connect("waits")
	if err := owner.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	cat := new(catalog.Catalog)
	for i := range 50 {
		k := catalog.Key{Namespace: "default", Name: fmt.Sprint("q", i)}
		cat.Mappings = append(cat.Mappings, catalog.Mapping{Key: k, Queue: k, MaxConcurrency: 1})
		l, err := owner.TryLease(t.Context(), "queue.default."+k.Name, "owner")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Release)
	}
	caller := invoke.NewCaller(1, telemetry.Providers{})
	defer caller.Close()
	d, err := dispatcher.New(dispatcher.Config{
		Conn: waits, Caller: caller, Objects: blob.NewNATS(waits, func() sign.Ring { return sign.Ring{} }, time.Now, ""), Owner: "waits", Log: testkit.Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Use(cat)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx, func() {}) }()
	defer func() { cancel(); <-done }()

	// Two renewals of each lease have come since it knows them all: more than four seconds.
	messages := func(name string) (in, out int64) {
		z, err := srv.Connz(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range z.Conns {
			if c.Name == name {
				return c.InMsgs, c.OutMsgs
			}
		}
		t.Fatal("no connection", name)
		return 0, 0
	}
	testkit.Eventually(t, "all leases were renewed twice", func() bool { _, out := messages("waits"); return out > 150 })
	in, _ := messages("waits")
	t.Logf("%d messages to NATS", in)
	if in > 12 { // the announcement and its renewals; the consumer; the look for jobs' states
		t.Errorf("%d messages to NATS", in)
	}
}

// TestSharingUnderChange starts and stops three dispatchers at random under load.
func TestSharingUnderChange(t *testing.T) {
	t.Parallel()
	const limit = 2
	c := newCluster(t, 6, func(call) answer { return answer{} }, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = limit, 3 })
	finish := c.load(20 * time.Millisecond)
	running := map[string]*process{}
	for i := range 24 {
		name := string(rune('a' + rand.IntN(3)))
		if h := running[name]; h != nil {
			h.stop()
			delete(running, name)
		} else {
			running[name] = c.start(name, testkit.Patience)
		}
		if i%4 == 3 && len(running) > 0 { // else the next comes at once
			seen := len(c.worlds[0].seen())
			testkit.Eventually(t, "calls go on", func() bool { return len(c.worlds[0].seen()) > seen })
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if running[name] == nil {
			running[name] = c.start(name, testkit.Patience)
		}
	}
	c.waitSpread(2, 2, 2)
	c.verify(finish(), limit, true)
	held, moves := c.held()
	t.Logf("%d leases were taken; %v", moves, slices.Sorted(maps.Keys(held)))
}

// TestAnEndAmidATakeOverLeavesNoLease: a dispatcher that is stopped while it asks for a lease gives back what it gets.
// Otherwise the queue would stand still until that has expired.
func TestAnEndAmidATakeOverLeavesNoLease(t *testing.T) {
	t.Parallel() // it waits for handoffs
	c := newCluster(t, 4, func(call) answer { return answer{} }, nil)
	before := c.start("a", time.Second)
	c.waitSpread(4)
	for i := range 12 {
		next := c.start(fmt.Sprint("next-", i), time.Second)
		testkit.Eventually(t, "it has announced itself", func() bool { return len(c.spread()) == 2 })
		before.stop() // next requests the leases that this one releases
		next.stop()
		before = c.start(fmt.Sprint("after-", i), time.Second)
		began := time.Now()
		c.waitSpread(4)
		if d := time.Since(began); d > stream.LeaseTTL {
			t.Fatalf("round %d: the queues stood still for %s", i, d)
		}
	}
}
