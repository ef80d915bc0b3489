package dispatcher

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// leaseGrace is how much longer than LeaseTTL a message counts here that is not renewed: the server removes it a
	// moment later, and says so. Past it we believe that we have missed that.
	leaseGrace = 2 * time.Second
	// settleTime is how long this process must have had too many queues before it hands one over: others that join
	// together with the first are there by then, and what is seen of a handoff in its middle is past.
	settleTime = time.Second
	// standInAfter is how long a free queue waits for the one who is to have it. Then the others may take it, one after
	// the other in steps of this.
	standInAfter = 2 * time.Second
	// maxHandoffs bounds the queues that are handed over at a time: each makes requests to NATS, and stands still for a
	// moment.
	maxHandoffs = 8
	// keepFor is how long a queue is kept whose handoff was given up, or that was taken in another's place; doubled each
	// time up to keepMax.
	keepFor = time.Minute
	keepMax = time.Hour
	// blindAfter is how long we wait to see the others before we ask for leases without, once in blindEvery for each queue.
	blindAfter = 5 * time.Second
	blindEvery = stream.LeaseTTL
	// tryAgain is the wait after a lease could not be asked for.
	tryAgain = time.Second
)

// roster is what this process knows of the dispatchers and of the queues' leases, and what follows from it. It does no
// I/O and has no lock; its times are this process's own.
type roster struct {
	me       string
	revision string               // of the catalog in use
	queues   map[catalog.Key]bool // in it
	known    bool                 // all that is at NATS has been told
	since    time.Time            // when known last changed
	peers    map[string]*peer
	leases   map[catalog.Key]leaseView
	claims   map[catalog.Key]*claim // of the queues that a mapping here wants to work for
	over     time.Time              // since when we have too many queues; zero: we have not
}

// peer is another dispatcher, or this one as others see it.
type peer struct {
	revision string
	heard    time.Time
	silent   bool // a lease of its own has expired since
}

// leaseView is a queue's lease as it was last told.
type leaseView struct {
	owner string // empty: it is free
	heard time.Time
	count uint64 // of changes told
}

// unknownOwner is of a lease that was refused to us although it seemed free. No owner has this name.
const unknownOwner = "\x00"

// claimState is where a mapping is with its queue's lease.
type claimState int

const (
	waiting claimState = iota
	trying             // it asks for the lease
	holding
	leaving // it hands the queue over
)

// claim is a mapping's part in the roster.
type claim struct {
	queue    catalog.Key
	state    claimState
	since    time.Time // of waiting
	left     time.Time // when it last gave the lease up, or lost it
	not      time.Time // before this the lease is not asked for; while holding: not handed over
	keeps    int       // how often it was kept in a row
	standsIn bool      // it is asked for in another's place
	seen     uint64    // leaseView.count when it was asked for
	busy     func() int
	turn     chan struct{} // capacity 1: ask for the lease
	leave    chan struct{} // capacity 1: hand the queue over
}

func newRoster(me string, now time.Time) *roster {
	return &roster{me: me, since: now, peers: map[string]*peer{}, leases: map[catalog.Key]leaseView{}, claims: map[catalog.Key]*claim{}}
}

// use makes these queues the ones to share, with those dispatchers that have the same catalog.
func (r *roster) use(revision string, queues map[catalog.Key]bool) {
	r.revision, r.queues = revision, queues
	maps.DeleteFunc(r.leases, func(k catalog.Key, v leaseView) bool { return v.owner == "" && !queues[k] && r.claims[k] == nil })
}

// reset forgets what was told: it is told anew.
func (r *roster) reset(now time.Time) {
	if r.known {
		r.known, r.since = false, now
	}
	r.over = time.Time{}
	clear(r.peers)
	clear(r.leases)
}

// complete: all that is there has been told.
func (r *roster) complete(now time.Time) { r.known, r.since = true, now }

// member takes what was told of a dispatcher's announcement. It reports whether anything follows from it.
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

// lease takes what was told of a queue's lease. It reports whether anything follows from it.
func (r *roster) lease(k catalog.Key, l *stream.LeaseState, now time.Time) (news bool) {
	v := r.leases[k]
	if l.Expired {
		// Whoever lets one expire is gone, in all likelihood, with all that it had: its announcement expires later. Until
		// it is heard again nothing waits for it.
		if p := r.peers[v.owner]; p != nil {
			p.silent = true
		}
	} else if p := r.peers[l.Owner]; p != nil && !p.silent {
		p.heard = now
	}
	news = v.owner != l.Owner || v.count == 0
	if l.Owner == "" && !r.queues[k] && r.claims[k] == nil { // of a queue that is gone
		delete(r.leases, k)
		return news
	}
	r.leases[k] = leaseView{owner: l.Owner, heard: now, count: v.count + 1}
	return news
}

// live reports whether a dispatcher is there, by what it last said.
func (r *roster) live(owner string, now time.Time) bool {
	p := r.peers[owner]
	return owner == r.me || p != nil && !p.silent && now.Sub(p.heard) < stream.LeaseTTL+leaseGrace
}

// shares reports whether a dispatcher divides the queues with this one. One with another catalog does so once it has
// this one; until then it keeps what it has, and gets nothing that it may not know.
func (r *roster) shares(owner string, now time.Time) bool {
	return owner == r.me || r.live(owner, now) && r.peers[owner].revision == r.revision
}

// owner is who holds a queue's lease; empty: nobody.
func (r *roster) owner(k catalog.Key, now time.Time) string {
	if c := r.claims[k]; c != nil && c.state >= holding {
		return r.me
	}
	v := r.leases[k]
	if v.owner == r.me || now.Sub(v.heard) >= stream.LeaseTTL+leaseGrace { // our former self's is ours to take
		return ""
	}
	return v.owner
}

// freeSince is since when nobody holds a queue that a mapping waits for, as far as this process could act on it.
func (r *roster) freeSince(c *claim) time.Time {
	at := c.since
	if v, ok := r.leases[c.queue]; ok {
		if v.owner != "" {
			v.heard = v.heard.Add(stream.LeaseTTL + leaseGrace)
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

// decide returns the claims whose turn it is to ask for the lease, and those that are to hand their queue over.
func (r *roster) decide(now time.Time) (try, give []*claim) {
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

func (r *roster) tries(members []string, p plan, now time.Time) (try []*claim) {
	for k, c := range r.claims {
		if c.state != waiting || now.Before(c.not) || r.owner(k, now) != "" {
			continue
		}
		next := p.next[k]
		// Our former self's, or what we took without being told. But not what we have just given up: the message of that
		// may be on its way.
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

// ask makes it the claim's turn.
func (r *roster) ask(c *claim, standsIn bool) *claim {
	c.state, c.standsIn, c.seen = trying, standsIn, r.leases[c.queue].count
	return c
}

func (r *roster) gives(p plan, now time.Time) (give []*claim) {
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
	// Those first that have nothing in flight: they are handed over without a pause.
	busy := make(map[*claim]int, len(give))
	for _, c := range give {
		busy[c] = c.busy()
	}
	slices.SortFunc(give, func(a, b *claim) int { return cmp.Or(cmp.Compare(busy[a], busy[b]), compareKeys(a.queue, b.queue)) })
	give = give[:max(0, min(len(give), surplus-leaves, maxHandoffs-leaves))]
	for _, c := range give {
		c.state = leaving
	}
	return give
}

// add gives the mapping of a queue its claim.
func (r *roster) add(c *claim, now time.Time) {
	c.since = now
	r.claims[c.queue] = c
}

// remove takes it away.
func (r *roster) remove(c *claim) { delete(r.claims, c.queue) }

// took: the lease was given.
func (r *roster) took(c *claim, now time.Time) {
	c.state, c.not = holding, time.Time{}
	if c.standsIn { // who was to have it may not come soon
		r.keep(c, now)
	} else {
		c.keeps = 0
	}
}

// refused: another has the lease. If nothing was told of it meanwhile, what was told before was wrong.
func (r *roster) refused(c *claim, now time.Time) {
	c.state = waiting
	if !r.known {
		c.not = now.Add(blindEvery)
	} else if v := r.leases[c.queue]; v.count == c.seen {
		r.leases[c.queue] = leaseView{owner: unknownOwner, heard: now, count: v.count + 1}
	}
}

// failed: the lease could not be asked for.
func (r *roster) failed(c *claim, now time.Time) {
	c.state, c.not = waiting, now.Add(tryAgain)
	if !r.known {
		c.not = now.Add(blindEvery)
	}
}

// keep: the queue is not handed over after all, for now.
func (r *roster) keep(c *claim, now time.Time) {
	c.state, c.not = holding, now.Add(min(keepMax, keepFor<<min(c.keeps, 10)))
	c.keeps++
}

// left: the lease was given up, or lost.
func (r *roster) left(c *claim, now time.Time) {
	c.state, c.since, c.left, c.not = waiting, now, now, time.Time{}
	if v := r.leases[c.queue]; v.owner == r.me {
		r.leases[c.queue] = leaseView{heard: now, count: v.count + 1}
	}
}
