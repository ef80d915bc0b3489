package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// Oldest says since when the oldest block of queue k that was not purged is there, by the server's clock alone, and the
// sequence of the newest. ok is false when the queue holds none, or has no stream.
func (c *Conn) Oldest(ctx context.Context, k catalog.Key) (age time.Duration, newest uint64, ok bool, err error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, queueStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("queue %s: %w", k, c.apiError(ctx, err))
	}
	info := st.CachedInfo()
	return info.TimeStamp.Sub(info.State.FirstTime), info.State.LastSeq, info.State.Msgs > 0, nil
}
