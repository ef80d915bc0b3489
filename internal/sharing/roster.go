package sharing

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// leaseGrace is how long past its time a lease that isn't renewed still counts as held here: the server removes it
	// a moment late, and its marker says so. After that we assume that we missed the marker.
	leaseGrace = 2 * time.Second
	// settleTime is how long this process must have had too many queues before it hands one over: by then others that
	// join together with the first have announced themselves, and a lease handoff that was seen half-way is complete.
	settleTime = time.Second
	// standInAfter is how long a free queue waits for its planned owner. Then the others may stand in, one after the
	// other in steps of this.
	standInAfter = 2 * time.Second
	// maxHandoffs bounds the lease handoffs at a time: each makes requests to NATS, and its queue pauses for a moment.
	maxHandoffs = 8
	// keepFor is how long a queue is kept whose handoff was given up, or that was taken as a stand-in; doubled each time
	// up to keepMax.
	keepFor = time.Minute
	keepMax = time.Hour
	// blindAfter is how long we wait for the watch of the leases before we request leases without it, once in
	// blindEvery for each queue.
	blindAfter = 5 * time.Second
	blindEvery = stream.LeaseTTL
	// tryAgain is the wait after a failed lease request.
	tryAgain = time.Second
)

// roster is what this process knows of the dispatchers and of the queues' leases, and decides by it. It does no I/O
// and has no lock; its times are by this process's clock.
type roster struct {
	me       string
	ttl      time.Duration        // of the leases
	revision string               // of the catalog in use
	queues   map[catalog.Key]bool // of that catalog
	known    bool                 // the watch has delivered the initial state
	since    time.Time            // when known last changed
	peers    map[string]*peer
	leases   map[catalog.Key]leaseView
	claims   map[catalog.Key]*Claim // of the queues that are wanted here
	over     time.Time              // since when we have too many queues; zero if we have not
}

// peer is another dispatcher, or this one as others see it.
type peer struct {
	revision string
	heard    time.Time
	silent   bool // one of its leases has expired since
}

// leaseView is a queue's lease as the watch last delivered it.
type leaseView struct {
	owner string // empty if free
	heard time.Time
	count uint64 // of changes delivered
}

// unknownOwner stands for the holder of a lease that was refused to us although it seemed free. No owner has this name.
const unknownOwner = "\x00"

// claimState is how far a mapping has come with its queue's lease.
type claimState int

const (
	waiting claimState = iota
	trying             // requesting the lease
	holding
	leaving // handing the queue over
)

// Claim is who wants to own one queue: an entry in the roster.
type Claim struct {
	queue    catalog.Key
	state    claimState
	since    time.Time // when it began to wait
	left     time.Time // when it last released or lost the lease
	not      time.Time // the lease is not requested before this; while holding: not handed over
	keeps    int       // how often in a row the queue was kept
	standsIn bool      // the lease is requested in place of the planned owner
	seen     uint64    // leaseView.count when the lease was requested
	busy     func() int
	turn     chan struct{} // capacity 1: request the lease
	leave    chan struct{} // capacity 1: hand the queue over
}

func newRoster(me string, ttl time.Duration, now time.Time) *roster {
	return &roster{me: me, ttl: ttl, since: now, peers: map[string]*peer{}, leases: map[catalog.Key]leaseView{}, claims: map[catalog.Key]*Claim{}}
}

// use sets the queues to share, among the dispatchers that have the same catalog.
func (r *roster) use(revision string, queues map[catalog.Key]bool) {
	r.revision, r.queues = revision, queues
	maps.DeleteFunc(r.leases, func(k catalog.Key, v leaseView) bool { return v.owner == "" && !queues[k] && r.claims[k] == nil })
}

// reset forgets what the watch delivered: the next one begins with the full state.
func (r *roster) reset(now time.Time) {
	if r.known {
		r.known, r.since = false, now
	}
	r.over = time.Time{}
	clear(r.peers)
	clear(r.leases)
}

// complete: the watch has delivered the initial state.
func (r *roster) complete(now time.Time) { r.known, r.since = true, now }

// member records a change of a dispatcher's announcement. It reports whether a decision may follow from it.
func (r *roster) member(owner string, l *stream.LeaseState, now time.Time) (news bool) {
	p, ok := r.peers[owner]
	if l.Owner == "" {
		delete(r.peers, owner)
		return ok
	}
	if !ok {
		p = new(peer)
		r.peers[owner] = p
	}
	news = !ok || p.silent || p.revision != l.Note
	p.revision, p.heard, p.silent = l.Note, now, false
	return news
}

// lease records a change of a queue's lease. It reports whether a decision may follow from it.
func (r *roster) lease(k catalog.Key, l *stream.LeaseState, now time.Time) (news bool) {
	v := r.leases[k]
	if l.Expired {
		// An owner that lets a lease expire is most likely gone, though its announcement expires later. Until it is heard
		// from again nothing waits for it.
		if p := r.peers[v.owner]; p != nil {
			p.silent = true
		}
	} else if p := r.peers[l.Owner]; p != nil && !p.silent {
		p.heard = now
	}
	news = v.owner != l.Owner || v.count == 0
	r.leases[k] = leaseView{owner: l.Owner, heard: now, count: v.count + 1}
	return news
}

// live reports whether a dispatcher is alive, by when it was last heard from.
func (r *roster) live(owner string, now time.Time) bool {
	p := r.peers[owner]
	return owner == r.me || p != nil && !p.silent && now.Sub(p.heard) < r.ttl+leaseGrace
}

// shares reports whether a dispatcher is part of the plan. One with another catalog is once it has this one; until then
// it keeps what it has, and gets no queue, as it may not know it.
func (r *roster) shares(owner string, now time.Time) bool {
	return owner == r.me || r.live(owner, now) && r.peers[owner].revision == r.revision
}

// owner is who holds a queue's lease; empty if nobody.
func (r *roster) owner(k catalog.Key, now time.Time) string {
	if c := r.claims[k]; c != nil && c.state >= holding {
		return r.me
	}
	v := r.leases[k]
	if v.owner == r.me || now.Sub(v.heard) >= r.ttl+leaseGrace { // our predecessor's is ours to take
		return ""
	}
	return v.owner
}

// freeSince is since when a queue that a mapping waits for has had no owner, as far as this process could act on it.
func (r *roster) freeSince(c *Claim) time.Time {
	at := c.since
	if v, ok := r.leases[c.queue]; ok {
		if v.owner != "" {
			v.heard = v.heard.Add(r.ttl + leaseGrace)
		}
		at = latest(at, v.heard)
	}
	return latest(at, r.since)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// decide returns the claims whose turn it is to request the lease, and those that are to hand their queue over.
func (r *roster) decide(now time.Time) (try, give []*Claim) {
	if !r.known {
		if now.Sub(r.since) < blindAfter {
			return nil, nil
		}
		for _, c := range r.claims {
			if c.state == waiting && !now.Before(c.not) {
				try = append(try, r.ask(c, false))
			}
		}
		return try, nil
	}
	members := []string{r.me}
	for owner := range r.peers {
		if owner != r.me && r.shares(owner, now) {
			members = append(members, owner)
		}
	}
	var queues []catalog.Key
	for k := range r.queues {
		if h := r.owner(k, now); h == "" || !r.live(h, now) || r.shares(h, now) {
			queues = append(queues, k)
		}
	}
	p := share(members, queues, func(k catalog.Key) string {
		if h := r.owner(k, now); r.shares(h, now) {
			return h
		}
		return ""
	})
	return r.tries(members, p, now), r.gives(p, now)
}

func (r *roster) tries(members []string, p plan, now time.Time) (try []*Claim) {
	for k, c := range r.claims {
		if c.state != waiting || now.Before(c.not) || r.owner(k, now) != "" {
			continue
		}
		next := p.next[k]
		// Our predecessor's, or one whose grant we missed. But not one that we have just released: the watch may not have
		// delivered that yet.
		ours := r.leases[k].owner == r.me && now.Sub(c.left) >= settleTime
		if next == r.me || ours {
			try = append(try, r.ask(c, false))
			continue
		}
		others := slices.DeleteFunc(byWeight(members, k), func(m string) bool { return m == next })
		if wait := time.Duration(slices.Index(others, r.me)+1) * standInAfter; now.Sub(r.freeSince(c)) >= wait {
			try = append(try, r.ask(c, true))
		}
	}
	return try
}

// ask gives the claim its turn.
func (r *roster) ask(c *Claim, standsIn bool) *Claim {
	c.state, c.standsIn, c.seen = trying, standsIn, r.leases[c.queue].count
	return c
}

func (r *roster) gives(p plan, now time.Time) (give []*Claim) {
	held, leaves := 0, 0
	for k, c := range r.claims {
		switch {
		case !r.queues[k] || c.state < holding:
			continue
		case c.state == leaving:
			leaves++
		case !now.Before(c.not):
			give = append(give, c)
		}
		held++
	}
	surplus := held - p.quota[r.me]
	if surplus <= 0 {
		r.over = time.Time{}
		return nil
	}
	if r.over.IsZero() {
		r.over = now
	}
	if now.Sub(r.over) < settleTime {
		return nil
	}
	// Those without calls in flight first: they are handed over without a pause.
	busy := make(map[*Claim]int, len(give))
	for _, c := range give {
		busy[c] = c.busy()
	}
	slices.SortFunc(give, func(a, b *Claim) int { return cmp.Or(cmp.Compare(busy[a], busy[b]), compareKeys(a.queue, b.queue)) })
	give = give[:max(0, min(len(give), surplus-leaves, maxHandoffs-leaves))]
	for _, c := range give {
		c.state = leaving
	}
	return give
}

// add registers a mapping's claim.
func (r *roster) add(c *Claim, now time.Time) {
	c.since = now
	r.claims[c.queue] = c
}

// remove undoes add.
func (r *roster) remove(c *Claim) { delete(r.claims, c.queue) }

// took: the lease was granted.
func (r *roster) took(c *Claim, now time.Time) {
	c.state, c.not = holding, time.Time{}
	if c.standsIn { // the planned owner may not come soon
		r.keep(c, now)
	} else {
		c.keeps = 0
	}
}

// refused: another owner holds the lease. If the watch delivered no change of it meanwhile, our view was wrong.
func (r *roster) refused(c *Claim, now time.Time) {
	c.state = waiting
	if !r.known {
		c.not = now.Add(blindEvery)
	} else if v := r.leases[c.queue]; v.count == c.seen {
		r.leases[c.queue] = leaseView{owner: unknownOwner, heard: now, count: v.count + 1}
	}
}

// failed: the lease request failed.
func (r *roster) failed(c *Claim, now time.Time) {
	c.state, c.not = waiting, now.Add(tryAgain)
	if !r.known {
		c.not = now.Add(blindEvery)
	}
}

// keep: the queue is not handed over after all, for now.
func (r *roster) keep(c *Claim, now time.Time) {
	c.state, c.not = holding, now.Add(min(keepMax, keepFor<<min(c.keeps, 10)))
	c.keeps++
}

// left: the lease was released or lost.
func (r *roster) left(c *Claim, now time.Time) {
	c.state, c.since, c.left, c.not = waiting, now, now, time.Time{}
	if v := r.leases[c.queue]; v.owner == r.me {
		r.leases[c.queue] = leaseView{heard: now, count: v.count + 1}
	}
}
