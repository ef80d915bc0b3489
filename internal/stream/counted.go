package stream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/catalog"
)

// Reason is why records died: a token of the subject of their block.
type Reason string

// The reasons.
const (
	Refused    Reason = "refused"    // the function refuses them for good
	Exhausted  Reason = "exhausted"  // their attempts are used up
	TooOld     Reason = "too_old"    // still failing at retry.maxAge
	Expired    Reason = "expired"    // not called within the queue's maxAge
	Unreadable Reason = "unreadable" // no version can read their block
	Unknown    Reason = "unknown"    // of a former version
)

// Reasons are all of them.
func Reasons() []Reason { return []Reason{Refused, Exhausted, TooOld, Expired, Unreadable, Unknown} }

// reasonOf reads it from the subject of a block of dead letters.
func reasonOf(subject string) Reason {
	if parts := strings.Split(subject, "."); len(parts) == 6 && slices.Contains(Reasons(), Reason(parts[4])) {
		return Reason(parts[4])
	}
	return Unknown
}

// A stream takes no counted subjects if its controller is of the version before, as during an update, and seems to take none
// while it has no leader. So the plain ones are used for formerLeast first, and for twice as long each time that it is still so.
const (
	formerLeast = time.Second
	formerMost  = 30 * time.Second
)

// formerStreams are the streams that take no counted subjects yet.
type formerStreams struct {
	mu sync.Mutex
	of map[string]former // by the plain subject; those of queues that are gone go with the next note
}

type former struct {
	until time.Time
	wait  time.Duration
}

func (f *formerStreams) is(plain string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.of[plain].until)
}

// note is told that a stream took the plain subject after it had not taken the counted one.
func (f *formerStreams) note(plain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for k, v := range f.of {
		if k != plain && now.Sub(v.until) > formerMost {
			delete(f.of, k)
		}
	}
	if f.of == nil {
		f.of = map[string]former{}
	}
	wait := min(max(formerLeast, 2*f.of[plain].wait), formerMost)
	f.of[plain] = former{now.Add(wait), wait}
}

// forget is told that a stream takes counted subjects.
func (f *formerStreams) forget(plain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, plain)
}

// publishBlock publishes a block of n records to queue k.
func (c *Conn) publishBlock(ctx context.Context, k catalog.Key, n int, block []byte, id string) error {
	return c.publishCounted(ctx, countedSubject(k, n), queueSubject(k), block, id)
}

// publishDead publishes a block of n dead letters of queue k.
func (c *Conn) publishDead(ctx context.Context, k catalog.Key, why Reason, n int, block []byte, id string) error {
	return c.publishCounted(ctx, diedSubject(k, why, n), deadSubject(k), block, id)
}

// publishCounted publishes to counted or, while the stream takes that not yet, to plain. A gateway of this version beside a
// controller of the version before would else lose no record but serve no request. TestCountedBesideTheVersionBefore guards it.
func (c *Conn) publishCounted(ctx context.Context, counted, plain string, block []byte, id string) error {
	if !c.former.is(plain) {
		err := c.publish(ctx, &nats.Msg{Subject: counted, Data: block}, id)
		if err == nil {
			c.former.forget(plain)
		}
		if !errors.Is(err, ErrNoQueue) {
			return err
		}
	}
	err := c.publish(ctx, &nats.Msg{Subject: plain, Data: block}, id)
	if err == nil && !c.former.is(plain) {
		c.former.note(plain)
	}
	return err
}
