package invoke

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Limiter bounds the calls in flight to one function and adapts the bound to what the function can
// take: "not now" halves it and pauses all calls for a while; calls that get through raise it again
// step by step, up to the cap.
type Limiter struct {
	now func() time.Time

	mu       sync.Mutex
	cap      int
	limit    int       // 1 to cap
	inFlight int       // calls between Acquire and Release
	held     bool      // no call starts until Resume
	credit   int       // calls that got through since the last step up
	resume   time.Time // no call starts before
	strikes  int       // "not now" in a row
	unready  time.Time // when the function was last seen to be away; zero if an instance has answered since
	warmth   warmth
	changed  chan struct{}
}

// The pause after "not now" without a Retry-After: pauseMin doubled with each in a row, up to pauseMax,
// half of it jitter.
const (
	pauseMin = 100 * time.Millisecond
	pauseMax = 10 * time.Second
	// unreadyGrace is how long 502 and 504 pass for "no instance is ready" after the function was last
	// seen to be away. After it they count as failures, so that a record which makes a proxy time out can't
	// block the queue for ever.
	unreadyGrace = 2 * time.Minute
)

// NewLimiter returns a limiter that starts at its cap.
func NewLimiter(limit int) *Limiter {
	return &Limiter{cap: limit, limit: limit, now: time.Now, changed: make(chan struct{})}
}

// SetMax makes n the cap. A higher one lets more calls start at once, unless "not now" has lowered the limit: then
// it goes on rising step by step. With a lower one no call starts before fewer than n are in flight.
func (l *Limiter) SetMax(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit == l.cap {
		l.limit = n
	}
	l.cap, l.limit = n, min(n, l.limit)
	l.wake()
}

// Forget drops what was learned about the function, because the calls go to another one from now on: the limit is the
// cap again, and no pause is left.
func (l *Limiter) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit, l.credit, l.strikes = l.cap, 0, 0
	l.resume, l.unready, l.warmth = time.Time{}, time.Time{}, warmth{}
	l.wake()
}

// wake lets those who wait in Acquire look again. The caller holds mu.
func (l *Limiter) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Acquire waits until a call may start, or ctx ends.
func (l *Limiter) Acquire(ctx context.Context) error {
	for {
		l.mu.Lock()
		wait := l.resume.Sub(l.now())
		if wait <= 0 && l.inFlight < l.limit && !l.held {
			l.inFlight++
			l.mu.Unlock()
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Quiesce holds back new calls until Resume, and waits until none is in flight. If ctx ends first, it returns why.
func (l *Limiter) Quiesce(ctx context.Context) error {
	for {
		l.mu.Lock()
		l.held = true
		idle, changed := l.inFlight == 0, l.changed
		l.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Resume ends what Quiesce began.
func (l *Limiter) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.wake()
}

// Cancel gives back what Acquire took, when no call was made.
func (l *Limiter) Cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.wake()
}

// Release ends a call with its outcome, and returns the outcome as it is to be treated: 502 and 504
// while no instance is ready are "not now".
func (l *Limiter) Release(o Outcome) Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	now := l.now()
	if o.GatewayErr && !l.unready.IsZero() && now.Sub(l.unready) < unreadyGrace {
		o.Class = NotNow
	}
	o.ColdStart = l.warmth.see(o, now)
	if o.Class == NotNow {
		l.throttled(o, now)
	} else {
		l.strikes = 0
		if !o.GatewayErr && o.Status != 0 {
			l.unready = time.Time{}
		}
		if l.credit++; l.limit < l.cap && l.credit >= l.limit {
			l.limit++
			l.credit = 0
		}
	}
	l.wake()
	return o
}

func (l *Limiter) throttled(o Outcome, now time.Time) {
	if !o.GatewayErr && !o.Undelivered && o.Status != http.StatusTooManyRequests {
		l.unready = now
	}
	l.credit = 0
	if now.Before(l.resume) {
		return // one of the calls that were in flight together: they are one signal
	}
	l.limit = max(1, l.limit/2)
	pause := o.RetryAfter
	if pause == 0 {
		pause = pauseMax
		if l.strikes < 7 { // pauseMin << 7 is past pauseMax
			pause = min(pauseMax, pauseMin<<l.strikes)
		}
	}
	l.strikes++
	l.resume = now.Add(pause/2 + rand.N(pause/2+1))
	if o.RetryAfter > 0 { // Retry-After is respected, jitter comes on top
		l.resume = now.Add(pause + rand.N(pause/10+1))
	}
}

// State returns the present limit, the calls in flight, and how long until calls may start.
func (l *Limiter) State() (limit, inFlight int, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit, l.inFlight, max(0, l.resume.Sub(l.now()))
}
