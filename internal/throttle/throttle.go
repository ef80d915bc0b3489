// Package throttle is the token bucket of API and route throttles. It is pure: the caller passes the
// time, so that it is tested with tables and no sleeping.
//
// May import: the standard library only.
package throttle

import (
	"math"
	"sync"
	"time"
)

// Bucket holds at most burst tokens and gains rate tokens a second. It is safe for concurrent use.
type Bucket struct {
	rate  float64
	burst float64

	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// New returns a full bucket. rate is in tokens a second and positive, burst at least 1.
func New(rate float64, burst int, now time.Time) *Bucket {
	return &Bucket{rate: rate, burst: float64(burst), tokens: float64(burst), last: now}
}

// Changed returns a bucket with another rate and burst that is as full as b, as a fraction: so that changing a
// throttle, however often, gives nobody tokens.
func (b *Bucket) Changed(rate float64, burst int, now time.Time) *Bucket {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gain(now)
	return &Bucket{rate: rate, burst: float64(burst), tokens: b.tokens / b.burst * float64(burst), last: b.last}
}

// Take takes one token. When there is none it takes nothing and returns how long until there is one.
func (b *Bucket) Take(now time.Time) (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gain(now)
	if b.tokens >= 1 {
		b.tokens--
		return true, 0
	}
	return false, time.Duration(math.Ceil((1 - b.tokens) / b.rate * float64(time.Second)))
}

// gain adds the tokens since the last time. The caller holds mu.
func (b *Bucket) gain(now time.Time) {
	// A clock that steps back must not drain the bucket.
	if d := now.Sub(b.last); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.last = now
	}
}

// Return puts back a token that was taken for something that was then refused elsewhere.
func (b *Bucket) Return() {
	b.mu.Lock()
	b.tokens = min(b.burst, b.tokens+1)
	b.mu.Unlock()
}
