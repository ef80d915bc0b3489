// Package ledger keeps the states of keys in a log of their changes with one writer at a time.
//
// The log is the truth: blocks of changes, each a synced write that all changes of a moment share. What anybody looks up is
// made of it: one message for each key, in a stream that need not be synced, as the latest minutes of the log can make it
// anew. The writer is the owner of a queue, by its lease; a block that it begins with fences off the one before: its writes
// fail from then on, however long it slept.
//
// Invariants: a change is durable before anybody acts on it or is told of it, and can be looked up before anybody but the
// owner is told of it; of two writers only the later one's changes are taken; the log loses a block only after its changes
// are on the disk in the states; memory is bounded however many keys are stored.
//
// The data flows through the files in this order: ledger.go (a change joins a group), commit.go (the groups become blocks),
// show.go (blocks become states), recover.go (what the owner before has left). block.go is the format.
//
// May import: catalog, stream.
package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// Bounds of an owner's memory.
const (
	// maxUnshown bounds the bytes of states that wait for their block, or until they can be looked up. Changes past it wait.
	maxUnshown = 32 << 20
	// maxState bounds a state with its header: one that no message holds could never be shown, and the log would end there.
	maxState = stream.MaxJobBytes + 4<<10
	// DefaultRecent bounds the states that are kept although they can be looked up. With several replicas one that was changed a
	// moment ago must be: a replica that lags would answer with the state before it.
	DefaultRecent = 16384
	// laterDelay is how long a change waits that need not be durable now, and laterAlone until it has a block without others.
	// Most are replaced by then, and never written.
	laterDelay = 20 * time.Millisecond
	laterAlone = 35 * time.Millisecond
	// idle is Pace.Idle: the calls of one block of records end close to each other.
	idle = time.Millisecond
)

// The ends of an owner, and what it refuses.
var (
	// ErrLost means that another has become the owner, or that this one was closed: it is unknown whether a change that had
	// begun is durable.
	ErrLost = errors.New("ledger: another is the owner now")
	// ErrFull means that there is no room: nothing was changed.
	ErrFull = errors.New("ledger: no room for further states")
	// ErrTooLarge means that a state is larger than a message: nothing was changed.
	ErrTooLarge = errors.New("ledger: the state is too large")
)

// Streams is what an owner does with NATS.
type Streams interface {
	stream.Ledgers
	Ready() error
	Live() context.Context
}

// Value is the state of a key. Header is what watchers are told: printable, without line breaks. An empty one is no state.
type Value struct {
	Header string
	Body   []byte
	// TTL is how long after it was put the state can be looked up, in whole seconds; for ever if zero.
	TTL time.Duration
	// Make makes the Header of ChangeLater's value if that is ever needed, quickly; nil if it is given.
	Make func() string
}

// Owner is the one writer of a queue's states. It is used until Close; Done is closed when it has ended before.
type Owner struct {
	conn  Streams
	queue catalog.Key
	log   *slog.Logger
	me    writerID
	keep  int // of Recent

	ctx    context.Context // ends with the owner
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	work   chan struct{}   // capacity 1: there is something to commit
	dirty  chan struct{}   // capacity 1: there is something to show
	lossy  bool            // NATS may have lost states, and none was put again yet; of takeOver alone
	live   context.Context //nolint:containedctx // of the connection at Open
	states uint64          // sequence of the last message among the states; zero while that is unknown. show's alone

	mu      sync.Mutex
	closing bool
	cells   map[string]*Cell
	open    *group  // takes changes; never nil
	later   []later // oldest first
	pace    stream.Pace
	nothing *group   // there is nothing to wait for
	sealed  []*group // complete, not yet written, oldest first
	bytes   int      // of the changes that are not shown
	full    bool     // the last write found no room
	room    chan struct{}
	toShow  []*Cell            // their latest durable state is not shown
	last    uint64             // sequence of the last block
	tickets uint64             // that were given
	number  uint64             // of the next block
	unshown map[*Cell]struct{} // with a durable state that is not shown
	floored time.Time          // when floor was found last
	floor   uint64             // all changes of blocks up to it are shown
	recent  []*Cell            // ring of cells that were shown and may be dropped
	oldest  int                // in recent
}

// Cell is the state of one key in the owner's memory. It is held by who has it from Hold, until Release.
type Cell struct {
	key    string
	pins   int
	loaded chan struct{} // closed once value and seq are known, or err
	err    error

	value   Value     // the newest; maybe not durable
	due     time.Time // when value joins a group; zero if it has
	group   *group    // of the newest change; nil if there was none here
	at      int       // its entry in group
	ticket  uint64    // of value; zero if it is durable
	former  uint64    // the ticket that became version; zero if it came from a look
	version uint64    // of the newest durable state; zero if there is none
	stored  time.Time // of value, by the server's clock

	durable Value  // of version, until it is shown
	shown   uint64 // version that can be looked up
	seq     uint64 // of its message; zero if there is none
	queued  bool   // in toShow
	ring    bool   // in recent
	size    int    // bytes that it counts in Owner.bytes
	waiters []chan struct{}
	watches map[*watch]struct{}
}

// later is a state that joins no group before it is due, unless its cell has done so since.
type later struct {
	cell *Cell
	due  time.Time
}

func (l later) over() bool { return !l.cell.due.Equal(l.due) }

// group is the changes that become one block.
type group struct {
	entries []entry
	cells   []*Cell
	size    int
	done    chan struct{}
	err     error  // once done is closed
	seq     uint64 // of the block, once done is closed
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// Pending is a change that becomes durable.
type Pending struct {
	g      *group
	err    error  // of the change itself: nothing was changed
	ticket uint64 // stands for the version of the new state
}

// Done is closed once Err is known.
func (p Pending) Done() <-chan struct{} { return p.g.done }

// Err is nil once the change is durable, the change's own error once all before it is, else the owner's end.
func (p Pending) Err() error {
	if p.g.err != nil {
		return p.g.err
	}
	return p.err
}

// Wait waits for Err. It takes as long as the write before it and its own.
func (p Pending) Wait() error {
	<-p.Done()
	return p.Err()
}

// Option is one of an Owner's.
type Option func(*Owner)

// Recent is how many states are kept although they can be looked up, instead of DefaultRecent.
func Recent(n int) Option { return func(o *Owner) { o.keep = n } }

// Open makes this process the owner of queue k's states: it fences off the one before, and shows what that has left. The
// caller has the queue's lease. ErrNoQueue means that the queue keeps no states.
func Open(ctx context.Context, conn Streams, k catalog.Key, log *slog.Logger, options ...Option) (*Owner, error) {
	o := &Owner{
		conn: conn, keep: DefaultRecent, queue: k, log: log.With("queue", k.String()), cells: map[string]*Cell{}, unshown: map[*Cell]struct{}{}, pace: stream.Pace{Idle: idle}, open: newGroup(), nothing: newGroup(),
		work: make(chan struct{}, 1), dirty: make(chan struct{}, 1), room: make(chan struct{}),
	}
	for _, option := range options {
		option(o)
	}
	close(o.nothing.done)
	_, _ = rand.Read(o.me[:]) // never fails
	o.live = conn.Live()
	kept, err := o.takeOver(ctx)
	if err != nil {
		return nil, fmt.Errorf("states of queue %s: %w", k, err)
	}
	o.ctx, o.cancel = context.WithCancelCause(context.Background())
	o.wg.Go(o.commit)
	o.wg.Go(o.show)
	o.wg.Go(func() { o.purge(kept) })
	return o, nil
}

// Done is closed when the owner has ended. Err says why: ErrLost, or stream.ErrUnavailable with the connection.
func (o *Owner) Done() <-chan struct{} { return o.ctx.Done() }

// Err is why the owner has ended; nil before.
func (o *Owner) Err() error { return context.Cause(o.ctx) }

// Close writes and shows what waits, as long as ctx lasts and there is room, and ends. It is idempotent.
func (o *Owner) Close(ctx context.Context) {
	o.mu.Lock()
	o.closing = true
	o.mu.Unlock()
	for o.ctx.Err() == nil && ctx.Err() == nil {
		o.mu.Lock()
		idle, room := o.bytes == 0 || o.full, o.room
		if !idle {
			signal(o.work)
		}
		o.mu.Unlock()
		if idle {
			break
		}
		select {
		case <-room:
		case <-o.ctx.Done():
		case <-ctx.Done():
		}
	}
	o.end(ErrLost)
	o.wg.Wait()
}

// end ends the owner, and with it what waits.
func (o *Owner) end(err error) {
	o.cancel(err)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range append(o.sealed, o.open) {
		g.err = context.Cause(o.ctx)
		close(g.done)
	}
	o.sealed, o.open = nil, newGroup()
	o.changedRoom()
}

// changedRoom wakes who waits for room. The caller holds mu.
func (o *Owner) changedRoom() {
	close(o.room)
	o.room = make(chan struct{})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it knows already
	}
}

// Hold returns the cell of a key, with its state. Release must be called.
func (o *Owner) Hold(ctx context.Context, key string) (*Cell, error) {
	o.mu.Lock()
	c, there := o.pin(key)
	o.mu.Unlock()
	if !there {
		o.load(ctx, c)
	}
	select {
	case <-c.loaded:
	case <-ctx.Done():
		o.Release(c)
		return nil, context.Cause(ctx)
	}
	if c.err != nil {
		o.Release(c)
		return nil, c.err
	}
	return c, nil
}

// pin returns the cell of a key. If it was not there, it is to be loaded. The caller holds mu.
func (o *Owner) pin(key string) (c *Cell, there bool) {
	c, there = o.cells[key]
	if !there {
		c = &Cell{key: key, loaded: make(chan struct{})}
		o.cells[key] = c
	}
	c.pins++
	return c, there
}

// HoldAll is Hold for the cells of many keys, whose states it has looked up together, as far as it could. Those that it
// couldn't are looked up by Hold. Release must be called for each.
func (o *Owner) HoldAll(ctx context.Context, keys []string) []*Cell {
	cells := make([]*Cell, 0, len(keys))
	looked := map[string]*Cell{}
	o.mu.Lock()
	for _, key := range keys {
		c, there := o.pin(key)
		if !there {
			looked[key] = c
		}
		cells = append(cells, c)
	}
	o.mu.Unlock()
	if len(looked) == 0 {
		return cells
	}
	found, err := o.conn.LoadStates(ctx, o.queue, slices.Collect(maps.Keys(looked)))
	for key, c := range looked {
		s, ok := found[key]
		switch {
		case err != nil:
			o.isLoaded(c, stream.StoredState{}, err)
		case ok:
			o.isLoaded(c, s, nil)
		default:
			o.load(ctx, c)
		}
	}
	return cells
}

// load looks a cell's state up.
func (o *Owner) load(ctx context.Context, c *Cell) {
	s, err := o.conn.LoadState(context.WithoutCancel(ctx), o.queue, c.key) // others may wait for it too
	o.isLoaded(c, s, err)
}

func (o *Owner) isLoaded(c *Cell, s stream.StoredState, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.value, c.version, c.shown, c.seq, c.stored = Value{Header: s.Header}, s.Version, s.Version, s.Seq, s.Stored
	if c.err = err; err != nil && o.cells[c.key] == c {
		delete(o.cells, c.key) // whoever comes next looks again
	}
	close(c.loaded)
}

// Release gives a cell back.
func (o *Owner) Release(c *Cell) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.pins--
	o.retire(c)
}

// idle reports whether a cell says nothing that can't be looked up.
func (c *Cell) idle() bool {
	return c.pins == 0 && c.due.IsZero() && c.shown == c.version && (c.group == nil || c.group.settled()) && len(c.waiters) == 0
}

func (g *group) settled() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// retire puts an idle cell among the recent ones, and drops the oldest of them. The caller holds mu.
func (o *Owner) retire(c *Cell) {
	if !c.idle() || c.ring || c.err != nil {
		return
	}
	if c.seq == 0 && c.version == 0 { // nothing was stored
		delete(o.cells, c.key)
		return
	}
	c.ring = true
	if len(o.recent) < o.keep {
		o.recent = append(o.recent, c)
		return
	}
	former := o.recent[o.oldest]
	o.recent[o.oldest], o.oldest = c, (o.oldest+1)%o.keep
	if former.ring = false; former.idle() { // else it comes back here once it is
		delete(o.cells, former.key)
	}
}

// Version stands for the newest state of a held cell, maybe not durable: it is another after each change.
func (o *Owner) Version(c *Cell) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return c.last()
}

// Value is the newest state of a held cell, maybe not durable. Its body is nil if it can be looked up.
func (o *Owner) Value(c *Cell) Value {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.newest(c)
}

// newest is c's newest state, with its header. The caller holds mu.
func (o *Owner) newest(c *Cell) Value {
	if v := c.value; v.Make != nil {
		o.resize(c, Value{Header: v.Make(), Body: v.Body})
	}
	return c.value
}

// resize makes v the value of c, and counts its bytes. The caller holds mu.
func (o *Owner) resize(c *Cell, v Value) {
	e := entry{c.key, v}
	size := e.size()
	o.bytes += size - c.size
	c.value, c.size = v, size
}

// Room returns ErrFull at once while there is no room for further states.
func (o *Owner) Room() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full || o.bytes >= maxUnshown {
		return ErrFull
	}
	return nil
}

// WaitRoom waits until there is room.
func (o *Owner) WaitRoom(ctx context.Context) error {
	for {
		o.mu.Lock()
		full, room := o.full || o.bytes >= maxUnshown, o.room
		o.mu.Unlock()
		if !full {
			return o.Err()
		}
		select {
		case <-room:
		case <-o.ctx.Done():
			return o.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Change replaces the state of a held cell by what f makes of it: f is called once, at once, and not while another f is. If
// it returns an error, nothing is changed; nor of what is ErrTooLarge.
func (o *Owner) Change(c *Cell, f func(Value) (Value, error)) Pending {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.Err(); err != nil || o.closing {
		return Pending{g: o.nothing, err: errors.Join(err, ErrLost)}
	}
	v, err := f(c.value)
	if err == nil && len(v.Header)+len(v.Body) > maxState {
		err = ErrTooLarge
	}
	if err != nil {
		return o.settled(c, err)
	}
	o.renew(c, v)
	o.join(c)
	o.pace.Came(time.Now())
	signal(o.work)
	return Pending{g: o.open, ticket: c.ticket}
}

// Settled waits until a held cell's newest state is durable.
func (o *Owner) Settled(c *Cell) Pending {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.settled(c, nil)
}

// settled is err once c's newest state is durable. The caller holds mu.
func (o *Owner) settled(c *Cell, err error) Pending {
	if !c.due.IsZero() {
		if ended := o.Err(); ended != nil || o.closing {
			return Pending{g: o.nothing, err: errors.Join(ended, ErrLost)}
		}
		o.join(c)
		signal(o.work)
	}
	if c.group != nil {
		return Pending{g: c.group, err: err}
	}
	return Pending{g: o.nothing, err: err}
}

// ChangeLater is Change for what need not be durable now: it will be laterDelay later, unless another change has come. It
// returns what stands for the version of the new state.
func (o *Owner) ChangeLater(c *Cell, f func(Value) (Value, error)) (ticket uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.Err(); err != nil || o.closing {
		return 0, errors.Join(err, ErrLost)
	}
	v, err := f(c.value)
	if err != nil {
		return 0, err
	}
	waits := !c.due.IsZero()
	o.renew(c, v)
	if waits {
		return c.ticket, nil
	}
	c.due = time.Now().Add(laterDelay)
	if o.later = append(o.later, later{c, c.due}); len(o.later) == 1 {
		signal(o.work)
	}
	return c.ticket, nil
}

// watch is told of each state of a cell that is durable.
type watch struct{ told func(Value) }

// Watch calls f with each later state of a held cell once it is durable, until stop: it may be called a last time just then.
// f must not block.
func (o *Owner) Watch(c *Cell, f func(Value)) (stop func()) {
	w := &watch{f}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.watches == nil {
		c.watches = map[*watch]struct{}{}
	}
	c.watches[w] = struct{}{}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(c.watches, w)
	}
}

// renew makes v the newest state of c, in no group yet. The caller holds mu.
func (o *Owner) renew(c *Cell, v Value) {
	o.resize(c, v)
	o.tickets++
	c.ticket, c.stored = firstTicket+o.tickets, o.conn.Now()
}

// join adds the newest state of c to the open group. The caller holds mu.
func (o *Owner) join(c *Cell) {
	c.due = time.Time{}
	e := entry{c.key, o.newest(c)}
	g := o.open
	if c.group == g { // it was changed in this group already: only the latter counts
		former := &g.entries[c.at]
		g.size += e.size() - former.size()
		*former = e
	} else {
		if len(g.entries) > 0 && g.size+e.size() > targetBlock {
			o.sealed = append(o.sealed, g)
			g = newGroup()
			o.open = g
		}
		c.group, c.at = g, len(g.entries)
		g.entries, g.cells, g.size = append(g.entries, e), append(g.cells, c), g.size+e.size()
	}
}

// alone is when the oldest state that waits has a block without others; zero if there is none. The caller holds mu.
func (o *Owner) alone() time.Time {
	for len(o.later) > 0 && o.later[0].over() {
		o.later[0] = later{}
		o.later = o.later[1:]
	}
	if len(o.later) == 0 {
		return time.Time{}
	}
	return o.later[0].due.Add(laterAlone - laterDelay)
}

// joinDue has the states join the open group whose time has come, or all. The caller holds mu.
func (o *Owner) joinDue(now time.Time, all bool) {
	n := 0
	for _, l := range o.later {
		if !l.over() {
			if !all && now.Before(l.due) {
				break
			}
			o.join(l.cell)
		}
		n++
	}
	clear(o.later[:n])
	o.later = o.later[n:]
}

// firstTicket is above all sequences of a log: a ticket stands for the version of a state that is not durable yet.
const firstTicket = 1 << 62

// last is the version of a cell's newest state, or its ticket.
func (c *Cell) last() uint64 {
	if c.ticket != 0 {
		return c.ticket
	}
	return c.version
}

// replaces makes v of the state of version last, or of the one for which a change here got this ticket. It fails with
// stream.ErrJobChanged if there is another one.
func (c *Cell) replaces(last uint64, v Value) func(Value) (Value, error) {
	return func(Value) (Value, error) {
		if last != c.last() && (c.ticket != 0 || last == 0 || last != c.former) {
			return Value{}, stream.ErrJobChanged
		}
		return v, nil
	}
}

// Shown waits until the durable state of a held cell, or a later one, can be looked up. It returns ErrFull once there is no
// room for it: it will be when there is.
func (o *Owner) Shown(ctx context.Context, c *Cell) error {
	var done chan struct{}
	for {
		o.mu.Lock()
		shown, full, room := c.shown == c.version, o.full, o.room
		if !shown && !full && done == nil {
			done = make(chan struct{})
			c.waiters = append(c.waiters, done)
		}
		o.mu.Unlock()
		switch {
		case shown:
			return nil
		case full:
			return ErrFull
		}
		select {
		case <-done:
			return nil
		case <-room: // or the lack of it
		case <-o.ctx.Done():
			return o.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
