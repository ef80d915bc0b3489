package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/sign"
)

const (
	keysBucket = "WEIR_KEYS"
	keysKey    = "signing"
)

// Keys keeps the signing keys.
type Keys interface {
	EnsureKeys(ctx context.Context, replicas int, now time.Time) error
	WatchKeys(ctx context.Context, use func(sign.Ring)) error
}

// EnsureKeys creates the bucket of signing keys, and a new key when the newest is old. Whatever makes the queues calls it
// periodically.
func (c *Conn) EnsureKeys(ctx context.Context, replicas int, now time.Time) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: keysBucket, History: 1, Replicas: replicas, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return fmt.Errorf("bucket of keys: %w", c.apiError(ctx, err))
	}
	ring, revision := sign.Ring{}, uint64(0)
	e, err := kv.Get(ctx, keysKey)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return fmt.Errorf("read the signing keys: %w", c.apiError(ctx, err))
	default:
		revision = e.Revision()
		if err := json.Unmarshal(e.Value(), &ring); err != nil {
			return fmt.Errorf("read the signing keys: %w", err)
		}
	}
	ring, changed, err := ring.Rotate(now)
	if err != nil || !changed {
		return err
	}
	data, err := json.Marshal(ring)
	if err != nil {
		return fmt.Errorf("write the signing keys: %w", err)
	}
	_, err = kv.Update(ctx, keysKey, data, revision)
	if wrongSequence(err) {
		return nil // another process did it first: its key will do
	}
	if err != nil {
		return fmt.Errorf("write the signing keys: %w", c.apiError(ctx, err))
	}
	c.log.Info("a new signing key was made", "keys", len(ring.Keys))
	return nil
}

// WatchKeys calls use with the signing keys and whenever they change, until ctx ends, like WatchCatalog.
func (c *Conn) WatchKeys(ctx context.Context, use func(sign.Ring)) error {
	c.watchKey(ctx, keysBucket, keysKey, func(e jetstream.KeyValueEntry) {
		var ring sign.Ring
		if err := json.Unmarshal(e.Value(), &ring); err != nil {
			c.log.Error("the signing keys can't be read; the last good ones stay", "revision", e.Revision(), "error", err)
			return
		}
		use(ring)
	})
	return nil
}
