package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/catalog"
)

// Whoever is not the owner of a queue's states asks the owner to change one: compared and set by its version. What happened
// comes back once it is durable and can be looked up.
const (
	headerKey    = "Weir-Key"
	headerSettle = "Weir-Settle"
	headerFailed = "Weir-Failed"

	saidChanged = "changed"
	saidFull    = "full"
	saidLost    = "lost"

	// maxChanges bounds the changes that one owner is asked for at a time; more wait in the connection.
	maxChanges = 256
)

// StateChange is a state that is to replace the one of version Last, zero if there is none. With Settle it is no change: the
// newest state is asked to be durable and seen.
type StateChange struct {
	Key    string
	Last   uint64
	Header string
	Body   []byte
	Settle bool
}

func changesSubject(k catalog.Key) string { return "weir.c." + k.Namespace + "." + k.Name }

// ServeChanges calls f for each change that the owner of queue k's states is asked for, and answers with the version that it
// returns or with its error. When it returns, NATS knows that this is the owner; stop ends it, and returns once f is called
// no more.
func (c *Conn) ServeChanges(k catalog.Key, f func(ctx context.Context, change StateChange) (uint64, error)) (stop func(), err error) {
	return c.serve(changesSubject(k), func(ctx context.Context, m *nats.Msg) { c.answerChange(ctx, m, f) })
}

// serve calls f for each message of a subject, for at most maxChanges at a time. When it returns, NATS knows of it; stop ends
// it, and returns once f is called no more.
func (c *Conn) serve(subject string, f func(ctx context.Context, m *nats.Msg)) (stop func(), err error) {
	ctx, cancel := c.whileUp(context.Background())
	requests := make(chan *nats.Msg, maxChanges)
	sub, err := c.nc.ChanSubscribe(subject, requests)
	if err == nil {
		bctx, bcancel := c.bound(ctx, apiTimeout)
		defer bcancel()
		err = c.nc.FlushWithContext(bctx)
	}
	if err != nil {
		cancel()
		return nil, c.apiError(ctx, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		slots := make(chan struct{}, maxChanges)
		for {
			select {
			case m := <-requests:
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return
				}
				wg.Go(func() {
					defer func() { <-slots }()
					f(ctx, m)
				})
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		_ = sub.Unsubscribe()
		cancel()
		wg.Wait()
	}, nil
}

func (c *Conn) answerChange(ctx context.Context, m *nats.Msg, f func(context.Context, StateChange) (uint64, error)) {
	answer := &nats.Msg{Subject: m.Reply, Header: nats.Header{}}
	last, err := strconv.ParseUint(m.Header.Get(headerVersion), 10, 64)
	var version uint64
	if err == nil {
		version, err = f(ctx, StateChange{m.Header.Get(headerKey), last, m.Header.Get(headerJobState), m.Data, m.Header.Get(headerSettle) != ""})
	}
	switch {
	case errors.Is(err, ErrLeaseLost):
		return // another is the owner now: it has heard the same
	case err == nil:
		answer.Header.Set(headerVersion, strconv.FormatUint(version, 10))
	case errors.Is(err, ErrJobChanged):
		answer.Header.Set(headerFailed, saidChanged)
	case errors.Is(err, ErrQueueFull):
		answer.Header.Set(headerFailed, saidFull)
	default:
		answer.Header.Set(headerFailed, saidLost)
	}
	if err := c.nc.PublishMsg(answer); err != nil {
		c.log.DebugContext(ctx, "the answer to a change of a state was not sent", "error", err)
	}
}

// askOwner asks the owner of queue k's states for a change, and returns the new version. ErrUnavailable also means that
// nobody owns them now.
func (c *Conn) askOwner(ctx context.Context, k catalog.Key, change StateChange) (uint64, error) {
	ctx, cancel := c.bound(ctx, commitTimeout)
	defer cancel()
	header := nats.Header{headerKey: {change.Key}, headerJobState: {change.Header}, headerVersion: {strconv.FormatUint(change.Last, 10)}}
	if change.Settle {
		header.Set(headerSettle, "1")
	}
	answer, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: changesSubject(k), Data: change.Body, Header: header})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return 0, fmt.Errorf("%w: no dispatcher has the queue now", ErrUnavailable)
	case err != nil:
		return 0, publishError(ctx, err)
	}
	switch failed := answer.Header.Get(headerFailed); failed {
	case "":
		return strconv.ParseUint(answer.Header.Get(headerVersion), 10, 64)
	case saidChanged:
		return 0, ErrJobChanged
	case saidFull:
		return 0, ErrQueueFull
	default:
		return 0, fmt.Errorf("%w: the queue's owner answered %q", ErrUnavailable, failed)
	}
}
