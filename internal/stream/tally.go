package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/catalog"
)

// Tally is what the owner of a queue knows of the records in its stream.
type Tally struct {
	Exact       bool   `json:"exact"`       // all that was settled before it took the queue has been removed
	Purged      uint64 `json:"purged"`      // the blocks up to this sequence have been removed
	Last        uint64 `json:"last"`        // sequence of the last block that was delivered to it
	Settled     int64  `json:"settled"`     // records in the blocks after Purged that are settled
	Total       int64  `json:"total"`       // records that it has settled, since Epoch
	Epoch       string `json:"epoch"`       // changes with the process
	Unaccounted int64  `json:"unaccounted"` // records that its books, or the sequences of the blocks, don't account for
	Work        *Work  `json:"work,omitempty"`
}

// Work is what the owner of a queue is at. It is nil where there is no owner, or one that doesn't say.
type Work struct {
	Records int `json:"records"` // in hand: waiting for a batch or a free call, or in one (weir.mapping.held)
	Calls   int `json:"calls"`   // in flight (weir.mapping.in_flight)
	Limit   int `json:"limit"`   // how many calls there may be now (weir.mapping.limit)
}

// Tallies is what owners of queues say about them, and how they are asked.
type Tallies interface {
	ServeTally(k catalog.Key, tally func() Tally) (stop func(), err error)
	Work(ctx context.Context, k catalog.Key) (w *Work, owned bool, err error)
}

// Owners are asked by a request to weir.tally.ns.name. Nobody answers for a queue without one, which the server says at once.
func tallySubject(k catalog.Key) string { return "weir.tally." + k.Namespace + "." + k.Name }

// ServeTally answers who asks for k's tally, until stop.
func (c *Conn) ServeTally(k catalog.Key, tally func() Tally) (stop func(), err error) {
	sub, err := c.nc.Subscribe(tallySubject(k), func(m *nats.Msg) {
		body, err := json.Marshal(tally())
		if err == nil {
			err = m.Respond(body)
		}
		if err != nil {
			c.log.Debug("who asked for a queue's tally was not answered", "queue", k.String(), "error", err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("queue %s: tally: %w", k, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // the connection may be gone
}

// Work asks k's owner what it is at. owned is false if k has none.
func (c *Conn) Work(ctx context.Context, k catalog.Key) (w *Work, owned bool, err error) {
	t, owned, err := c.tally(ctx, k)
	return t.Work, owned, err
}

// tally asks k's owner. owned is false if it has none, or one of the version before.
func (c *Conn) tally(ctx context.Context, k catalog.Key) (t Tally, owned bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, tallyTimeout)
	defer cancel()
	m, err := c.nc.RequestWithContext(ctx, tallySubject(k), nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return t, false, nil
	case err != nil && ctx.Err() != nil && c.Ready() == nil:
		return t, true, nil // it hangs: nothing of it is exact
	case err != nil:
		return t, false, c.apiError(ctx, err)
	}
	if err := json.Unmarshal(m.Data, &t); err != nil {
		return t, true, fmt.Errorf("the tally of its owner: %w", err)
	}
	return t, true, nil
}
