package sharing

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

func keys(n int) []catalog.Key {
	var out []catalog.Key
	for i := range n {
		out = append(out, catalog.Key{Namespace: "default", Name: fmt.Sprint("q", i)})
	}
	return out
}

// TestShare holds that a plan is fair, moves as little as possible, and doesn't depend on the order of its inputs.
func TestShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		queues := keys(rapid.IntRange(0, 40).Draw(t, "queues"))
		var members []string
		for i := range rapid.IntRange(1, 6).Draw(t, "members") {
			members = append(members, fmt.Sprint("m", i))
		}
		holders, held := map[catalog.Key]string{}, map[string]int{}
		for _, k := range queues {
			if i := rapid.IntRange(-1, len(members)-1).Draw(t, "holder"); i >= 0 {
				holders[k] = members[i]
				held[members[i]]++
			}
		}
		holder := func(k catalog.Key) string { return holders[k] }
		p := share(members, queues, holder)
		slices.Reverse(members)
		slices.Reverse(queues)
		if again := share(members, queues, holder); !maps.Equal(p.quota, again.quota) || !maps.Equal(p.next, again.next) {
			t.Fatalf("%v and %v", p, again)
		}
		sum, gets := 0, map[string]int{}
		for _, m := range p.next {
			gets[m]++
		}
		for m, quota := range p.quota {
			if sum += quota; quota < len(queues)/len(members) || quota > (len(queues)+len(members)-1)/len(members) {
				t.Fatalf("%s is to have %d of %d queues of %d members", m, quota, len(queues), len(members))
			}
			if held[m]+gets[m] > max(held[m], quota) {
				t.Fatalf("%s holds %d, gets %d and is to have %d", m, held[m], gets[m], quota)
			}
			for n, other := range p.quota {
				if held[m] > held[n] && quota < other {
					t.Fatalf("%s holds more than %s and is to have less", m, n)
				}
			}
		}
		if sum != len(queues) || len(p.next) != len(queues)-len(holders) {
			t.Fatalf("quotas of %d, %d next owners; %d queues, %d held", sum, len(p.next), len(queues), len(holders))
		}
	})
}

// simServer is what NATS is to the leases.
type simServer struct {
	now    time.Time
	leases map[string]*simLease
	log    []simChange
}

type simChange struct {
	stream.LeaseState

	at time.Time
}

// simLateness is after how long every change has been heard.
const simLateness = time.Second

type simLease struct {
	owner, note string
	until       time.Time
}

func (s *simServer) write(name, owner, note string) {
	s.leases[name] = &simLease{owner: owner, note: note, until: s.now.Add(stream.LeaseTTL)}
	s.log = append(s.log, simChange{stream.LeaseState{Name: name, Owner: owner, Note: note}, s.now})
}

func (s *simServer) remove(name string, expired bool) {
	delete(s.leases, name)
	s.log = append(s.log, simChange{stream.LeaseState{Name: name, Expired: expired}, s.now})
}

func (s *simServer) advance(d time.Duration) {
	s.now = s.now.Add(d)
	for _, name := range slices.Sorted(maps.Keys(s.leases)) {
		if !s.now.Before(s.leases[name].until) {
			s.remove(name, true)
		}
	}
}

// announced is how many dispatchers the others take for alive.
func (s *simServer) announced() (n int) {
	for name := range s.leases {
		if strings.HasPrefix(name, memberLease) {
			n++
		}
	}
	return n
}

// simDispatcher is one dispatcher: the roster, and its actions.
type simDispatcher struct {
	name   string
	skew   time.Duration // its clock shows another time
	roster *roster
	next   int                       // of the server's log
	leaves map[catalog.Key]time.Time // when a queue that it hands over is released
	claims map[catalog.Key]*Claim
	tries  int
}

func newSimDispatcher(name string, skew time.Duration, s *simServer, queues []catalog.Key) *simDispatcher {
	d := &simDispatcher{name: name, skew: skew, leaves: map[catalog.Key]time.Time{}, claims: map[catalog.Key]*Claim{}}
	d.roster = newRoster(name, stream.LeaseTTL, s.now.Add(skew))
	use := map[catalog.Key]bool{}
	for _, k := range queues {
		use[k] = true
		d.claims[k] = &Claim{queue: k, busy: func() int { return 0 }}
		d.roster.add(d.claims[k], s.now.Add(skew))
	}
	d.roster.use("1", use)
	s.write(memberLease+name, name, "1")
	for _, n := range slices.Sorted(maps.Keys(s.leases)) {
		d.hear(&stream.LeaseState{Name: n, Owner: s.leases[n].owner, Note: s.leases[n].note}, s)
	}
	d.next = len(s.log)
	d.roster.complete(s.now.Add(skew))
	return d
}

func (d *simDispatcher) hear(l *stream.LeaseState, s *simServer) {
	if owner, ok := strings.CutPrefix(l.Name, memberLease); ok {
		d.roster.member(owner, l, s.now.Add(d.skew))
	} else {
		d.roster.lease(simKey(l.Name), l, s.now.Add(d.skew))
	}
}

func simKey(lease string) catalog.Key {
	ns, name, _ := strings.Cut(strings.TrimPrefix(lease, queueLease), ".")
	return catalog.Key{Namespace: ns, Name: name}
}

// step hears n messages, and those that are older than simLateness, and acts on the decisions.
func (d *simDispatcher) step(s *simServer, n int, slowness time.Duration) {
	for ; d.next < len(s.log) && (n > 0 || s.now.Sub(s.log[d.next].at) >= simLateness); n-- {
		d.hear(&s.log[d.next].LeaseState, s)
		d.next++
	}
	now := s.now.Add(d.skew)
	try, give := d.roster.decide(now)
	for _, claim := range try {
		d.tries++
		if l := s.leases[new(Sharing).LeaseOf(claim.queue)]; l != nil && l.owner != d.name {
			d.roster.refused(claim, now)
			continue
		}
		s.write(new(Sharing).LeaseOf(claim.queue), d.name, "")
		d.roster.took(claim, now)
	}
	for _, claim := range give {
		d.leaves[claim.queue] = s.now.Add(slowness)
	}
	for k, at := range d.leaves {
		if !s.now.Before(at) {
			s.remove(new(Sharing).LeaseOf(k), false)
			d.roster.left(d.claims[k], now)
			delete(d.leaves, k)
		}
	}
}

func (d *simDispatcher) renew(s *simServer) {
	s.write(memberLease+d.name, d.name, "1")
	for _, claim := range d.claims {
		if claim.state >= holding {
			s.write(new(Sharing).LeaseOf(claim.queue), d.name, "")
		}
	}
}

// end ends it: orderly, or with its leases left to expire.
func (d *simDispatcher) end(s *simServer, orderly bool) {
	if !orderly {
		return
	}
	s.remove(memberLease+d.name, false)
	for _, claim := range d.claims {
		if claim.state >= holding {
			s.remove(new(Sharing).LeaseOf(claim.queue), false)
		}
	}
}

// TestRostersAgree runs some dispatchers whose clocks show different times and which hear of changes late, and lets them
// join, leave and be killed. When that ends the queues are shared evenly, and nothing moves any more. While none joins or
// goes, no queue is without an owner for longer than it takes to pass over all that are announced: those that were killed
// a moment ago among them.
func TestRostersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const step = 250 * time.Millisecond
		s := &simServer{now: time.Unix(1e9, 0), leases: map[string]*simLease{}}
		queues := keys(rapid.IntRange(1, 12).Draw(t, "queues"))
		slowness := time.Duration(rapid.IntRange(0, 8).Draw(t, "slowness")) * step
		cluster := map[string]*simDispatcher{}
		all := 0
		alone := map[catalog.Key]time.Time{} // since when a queue has no owner
		run := func(d time.Duration, hears func() int) {
			for end := s.now.Add(d); s.now.Before(end); s.advance(step) {
				renew := s.now.UnixMilli()%4000 == 0
				for _, name := range slices.Sorted(maps.Keys(cluster)) {
					cluster[name].step(s, hears(), slowness)
					if renew {
						cluster[name].renew(s)
					}
				}
				for _, k := range queues {
					if s.leases[new(Sharing).LeaseOf(k)] != nil || len(cluster) == 0 {
						delete(alone, k)
					} else if at, ok := alone[k]; !ok {
						alone[k] = s.now
					} else if gone := s.now.Sub(at); gone > time.Duration(s.announced()+1)*standInAfter+simLateness {
						t.Fatalf("queue %s has no owner for %s", k, gone)
					}
				}
			}
		}
		late := func() int { return rapid.IntRange(0, 40).Draw(t, "hears") }
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			names := slices.Sorted(maps.Keys(cluster))
			switch what := rapid.IntRange(0, 3).Draw(t, "what"); {
			case len(names) == 0 || what <= 1 && len(names) < 5:
				all++
				name := fmt.Sprint("d", all)
				cluster[name] = newSimDispatcher(name, time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "skew"))*time.Hour, s, queues)
			default:
				name := names[rapid.IntRange(0, len(names)-1).Draw(t, "who")]
				cluster[name].end(s, what == 2)
				delete(cluster, name)
			}
			clear(alone)
			run(time.Duration(rapid.IntRange(0, 40).Draw(t, "steps"))*step, late)
		}
		if len(cluster) == 0 {
			return
		}
		everything := func() int { return 1 << 20 }
		run(2*stream.LeaseTTL+keepFor+10*time.Second, everything) // a queue that was taken as a stand-in is kept for keepFor
		owners := func() map[string]string {
			out := map[string]string{}
			for name, l := range s.leases {
				out[name] = l.owner
			}
			return out
		}
		counts := map[string]int{}
		for _, k := range queues {
			counts[owners()[new(Sharing).LeaseOf(k)]]++
		}
		for name := range cluster {
			if n := counts[name]; n < len(queues)/len(cluster) || n > (len(queues)+len(cluster)-1)/len(cluster) {
				t.Fatalf("%s has %d of %d queues; all: %v", name, n, len(queues), counts)
			}
		}
		before, tries := owners(), 0
		for _, d := range cluster {
			tries -= d.tries
		}
		run(5*time.Minute, everything)
		for _, d := range cluster {
			tries += d.tries
		}
		if !maps.Equal(before, owners()) || tries != 0 {
			t.Fatalf("%d leases were asked for although nothing happened:\n%v\n%v", tries, before, owners())
		}
	})
}

// held returns a roster that has all queues, and the time.
func held(queues int) (*roster, []catalog.Key, time.Time) {
	now := time.Unix(1e9, 0)
	r, ks, use := newRoster("me", stream.LeaseTTL, now), keys(queues), map[catalog.Key]bool{}
	for _, k := range ks {
		use[k] = true
		s := &Claim{queue: k, busy: func() int { return 0 }}
		r.add(s, now)
		r.took(s, now)
	}
	r.use("1", use)
	r.complete(now)
	return r, ks, now
}

// TestRosterHandsOverWhatIsTooMuch: after settleTime, only maxHandoffs at a time, and none that it keeps for now; and
// only to a dispatcher that has the same catalog.
func TestRosterHandsOverWhatIsTooMuch(t *testing.T) {
	r, ks, now := held(40)
	start := now
	gives := func(want int, why string) []*Claim {
		t.Helper()
		try, give := r.decide(now)
		if len(give) != want || len(try) != 0 {
			t.Fatalf("%s: %d are handed over, want %d; %d leases are asked for", why, len(give), want, len(try))
		}
		return give
	}
	gives(0, "alone")
	r.member("other", &stream.LeaseState{Owner: "other", Note: "0"}, now)
	gives(0, "the other has another catalog")
	now = now.Add(settleTime)
	gives(0, "the other has another catalog")
	r.member("other", &stream.LeaseState{Owner: "other", Note: "1"}, now)
	gives(0, "it has joined just now")
	now = now.Add(settleTime - 1)
	gives(0, "it has joined just now")
	now = now.Add(1)
	first := gives(maxHandoffs, "it is there")
	gives(0, "as many as may are on their way")
	r.left(first[0], now)
	gives(1, "one is done")
	r.keep(first[1], now)
	next := gives(1, "one is kept: another in its place")
	given := 0
	for range 100 {
		for _, s := range r.claims {
			if s.state == leaving {
				given++
				r.left(s, now)
			}
			if s.state == waiting {
				r.lease(s.queue, &stream.LeaseState{Owner: "other"}, now)
			}
		}
		r.member("other", &stream.LeaseState{Owner: "other", Note: "1"}, now)
		if try, _ := r.decide(now); len(try) != 0 {
			t.Fatal("it asks for what another has")
		}
		if now = now.Add(lookEvery); now.Sub(start) < keepFor && first[1].state == leaving {
			t.Fatal("what it keeps is handed over")
		}
	}
	if given != 19 || len(next) != 1 { // and the first
		t.Errorf("%d were handed over", given)
	}
	n := 0
	for _, k := range ks {
		if r.claims[k].state == holding {
			n++
		}
	}
	if n != 20 {
		t.Errorf("it has %d of 40 queues in the end", n)
	}
}

// TestRosterTakesNothingBack: messages from when it held a queue that it has released since come late.
func TestRosterTakesNothingBack(t *testing.T) {
	r, ks, now := held(2)
	r.member("other", &stream.LeaseState{Owner: "other", Note: "1"}, now)
	r.decide(now)
	now = now.Add(settleTime)
	_, give := r.decide(now)
	if len(give) != 1 {
		t.Fatalf("%d are handed over", len(give))
	}
	if _, more := r.decide(now); len(more) != 0 {
		t.Fatal("it hands over more while it does so")
	}
	k := give[0].queue
	r.left(give[0], now)
	r.lease(k, &stream.LeaseState{Owner: "me"}, now)
	if try, _ := r.decide(now); len(try) != 0 {
		t.Fatal("it asks for what it has given up")
	}
	r.lease(k, new(stream.LeaseState), now)
	if try, _ := r.decide(now); len(try) != 0 {
		t.Fatal("it asks for what it has given up")
	}
	// The planned owner doesn't come.
	now = now.Add(standInAfter - 1)
	if try, _ := r.decide(now); len(try) != 0 {
		t.Fatal("it doesn't wait for who is to have it")
	}
	try, _ := r.decide(now.Add(1))
	if len(try) != 1 || try[0].queue != k || len(ks) != 2 {
		t.Fatal("it does not stand in")
	}
	r.took(try[0], now)
	other := r.claims[ks[0]]
	if other.queue == k {
		other = r.claims[ks[1]]
	}
	r.keep(other, now.Add(time.Hour)) // so that only k may be handed over
	for i, d := range []time.Duration{settleTime, keepFor - settleTime - 1, keepFor} {
		r.member("other", &stream.LeaseState{Owner: "other", Note: "1"}, now.Add(d))
		_, soon := r.decide(now.Add(d))
		_, give := r.decide(now.Add(d + settleTime))
		give = append(give, soon...)
		if i < 2 && len(give) != 0 {
			t.Fatal("it hands over what it has in another's place")
		}
		if i == 2 && (len(give) != 1 || give[0].queue != k) {
			t.Fatal("it keeps for ever what it has in another's place")
		}
	}
}

// TestRosterAsksBlindly, rarely, when it can't see the leases, and hands nothing over.
func TestRosterAsksBlindly(t *testing.T) {
	r, ks, now := held(2)
	r.left(r.claims[ks[0]], now)
	r.member("other", &stream.LeaseState{Owner: "other", Note: "1"}, now)
	r.reset(now)
	asked := 0
	for end := now.Add(time.Minute); now.Before(end); now = now.Add(lookEvery) {
		try, give := r.decide(now)
		if len(give) != 0 {
			t.Fatal("it hands over blindly")
		}
		for _, s := range try {
			asked++
			r.refused(s, now)
		}
	}
	if want := int((time.Minute-blindAfter)/blindEvery) + 1; asked != want {
		t.Errorf("it asked %d times in a minute, want %d", asked, want)
	}
}

// TestRosterBelievesARefusal: a lease that seems free and was refused is requested again only when it must have expired.
func TestRosterBelievesARefusal(t *testing.T) {
	r, ks, now := held(1)
	s := r.claims[ks[0]]
	r.left(s, now)
	r.refused(s, now)
	if try, _ := r.decide(now.Add(stream.LeaseTTL)); len(try) != 0 {
		t.Fatal("it asks again")
	}
	if try, _ := r.decide(now.Add(stream.LeaseTTL + leaseGrace)); len(try) != 1 {
		t.Fatal("it does not ask again")
	}
	// But a change delivered during the request is later than the refusal.
	r.lease(ks[0], new(stream.LeaseState), now)
	r.refused(s, now)
	if try, _ := r.decide(now.Add(1)); len(try) != 1 {
		t.Fatal("it does not ask for what has become free")
	}
}
