package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

const (
	catalogBucket = "WEIR_CATALOG"
	catalogKey    = "catalog"
	catalogRetry  = time.Second
)

// PublishCatalog makes cat the one that the data plane works by.
func (c *Conn) PublishCatalog(ctx context.Context, cat *catalog.Catalog, replicas int) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: catalogBucket, History: 1, Replicas: replicas, Storage: jetstream.FileStorage, Compression: true,
	})
	if err != nil {
		return fmt.Errorf("catalog bucket: %w", err)
	}
	data, err := json.Marshal(cat)
	if err != nil {
		return fmt.Errorf("encode the catalog: %w", err)
	}
	if _, err := kv.Put(ctx, catalogKey, data); err != nil {
		return fmt.Errorf("publish the catalog: %w", err)
	}
	return nil
}

// WatchCatalog calls use with the published catalog and with every later one until ctx ends. A bucket
// that is not there yet, or NATS being away, only delays it.
func (c *Conn) WatchCatalog(ctx context.Context, use func(*catalog.Catalog)) error {
	for ctx.Err() == nil {
		if err := c.watchCatalog(ctx, use); err != nil && ctx.Err() == nil {
			c.log.Warn("the catalog can't be watched", "retry", catalogRetry, "error", err)
		}
		select {
		case <-time.After(catalogRetry):
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *Conn) watchCatalog(ctx context.Context, use func(*catalog.Catalog)) error {
	if err := c.WaitUp(ctx); err != nil {
		return err
	}
	live := c.Live()
	actx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	kv, err := c.js.KeyValue(actx, catalogBucket)
	if err != nil {
		return fmt.Errorf("catalog bucket: %w", err)
	}
	w, err := kv.Watch(ctx, catalogKey, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return ErrUnavailable
			}
			if e == nil { // the end of the initial values
				continue
			}
			var cat catalog.Catalog
			if err := json.Unmarshal(e.Value(), &cat); err != nil {
				c.log.Error("the published catalog can't be read; the last good one stays", "revision", e.Revision(), "error", err)
				continue
			}
			use(&cat)
		case <-live.Done():
			return ErrUnavailable
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
