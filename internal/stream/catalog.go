package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

const (
	catalogBucket = "WEIR_CATALOG"
	catalogKey    = "catalog"
	// maxCatalogBytes bounds the published value: a message of NATS holds 1 MiB unless its server says otherwise.
	// Compressed, that is some ten thousand routes with schemas.
	maxCatalogBytes = 1<<20 - 4<<10
	// maxCatalogMemory bounds what a published value may unfold to.
	maxCatalogMemory = 64 << 20
)

// The ways in which a catalog can't be published.
var (
	// ErrCatalogTooLarge means that all resources together don't fit into one message.
	ErrCatalogTooLarge = errors.New("stream: the catalog is too large for one message of NATS")
	// ErrCatalogChanged means that another has published since the catalog was read.
	ErrCatalogChanged = errors.New("stream: the catalog was changed by another")
)

// PublishedCatalog is the catalog that the data plane works by, as it was read.
type PublishedCatalog struct {
	Catalog  *catalog.Catalog // never nil; empty when none was published yet
	revision uint64           // of the bucket; 0: none was published yet
}

// None reports that no catalog was published yet.
func (p *PublishedCatalog) None() bool { return p.revision == 0 }

// Catalog reads the published catalog.
func (c *Conn) Catalog(ctx context.Context) (*PublishedCatalog, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	none := &PublishedCatalog{Catalog: new(catalog.Catalog)}
	kv, err := c.js.KeyValue(ctx, catalogBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return none, nil
	}
	if err != nil {
		return nil, fmt.Errorf("catalog bucket: %w", c.apiError(ctx, err))
	}
	e, err := kv.Get(ctx, catalogKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return none, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", c.apiError(ctx, err))
	}
	cat, err := decodeCatalog(e.Value())
	if err != nil {
		c.log.Error("the published catalog can't be read; it counts as empty", "revision", e.Revision(), "error", err)
		cat = new(catalog.Catalog)
	}
	return &PublishedCatalog{Catalog: cat, revision: e.Revision()}, nil
}

// PublishCatalog makes cat the one that the data plane works by, in place of former; nil: of whatever is there.
// It returns ErrCatalogChanged when former is not the published one any more.
func (c *Conn) PublishCatalog(ctx context.Context, cat *catalog.Catalog, replicas int, former *PublishedCatalog) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	data, err := encodeCatalog(cat)
	if err != nil {
		return err
	}
	kv, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: catalogBucket, History: 1, Replicas: replicas, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return fmt.Errorf("catalog bucket: %w", c.apiError(ctx, err))
	}
	if former == nil {
		_, err = kv.Put(ctx, catalogKey, data)
	} else {
		_, err = kv.Update(ctx, catalogKey, data, former.revision) // 0: there is none yet
	}
	if wrongSequence(err) {
		return ErrCatalogChanged
	}
	if err != nil {
		return fmt.Errorf("publish the catalog: %w", c.apiError(ctx, err))
	}
	return nil
}

func encodeCatalog(cat *catalog.Catalog) ([]byte, error) {
	data, err := json.Marshal(cat)
	if err != nil {
		return nil, fmt.Errorf("encode the catalog: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("encode the catalog: %w", err)
	}
	data = enc.EncodeAll(data, nil)
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("encode the catalog: %w", err)
	}
	if len(data) > maxCatalogBytes {
		return nil, fmt.Errorf("%w: %d bytes compressed, at most %d", ErrCatalogTooLarge, len(data), maxCatalogBytes)
	}
	return data, nil
}

func decodeCatalog(data []byte) (*catalog.Catalog, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxCatalogMemory))
	if err != nil {
		return nil, fmt.Errorf("decode the catalog: %w", err)
	}
	defer dec.Close()
	if data, err = dec.DecodeAll(data, nil); err != nil {
		return nil, fmt.Errorf("decode the catalog: %w", err)
	}
	cat := new(catalog.Catalog)
	if err := json.Unmarshal(data, cat); err != nil {
		return nil, fmt.Errorf("decode the catalog: %w", err)
	}
	return cat, nil
}

// WatchCatalog calls use with the published catalog and with every later one until ctx ends. A bucket
// that is not there yet, or NATS being away, only delays it.
func (c *Conn) WatchCatalog(ctx context.Context, use func(*catalog.Catalog)) error {
	return c.watchKey(ctx, catalogBucket, catalogKey, func(e jetstream.KeyValueEntry) {
		cat, err := decodeCatalog(e.Value())
		if err != nil {
			c.log.Error("the published catalog can't be read; the last good one stays", "revision", e.Revision(), "error", err)
			return
		}
		use(cat)
	})
}

// watchKey calls use with the value of a key and with every later one until ctx ends.
func (c *Conn) watchKey(ctx context.Context, bucket, key string, use func(jetstream.KeyValueEntry)) error {
	for ctx.Err() == nil {
		if err := c.watchKeyOnce(ctx, bucket, key, use); err != nil && ctx.Err() == nil {
			c.log.Warn("a bucket of NATS can't be watched", "bucket", bucket, "retry", watchRetry, "error", err)
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *Conn) watchKeyOnce(ctx context.Context, bucket, key string, use func(jetstream.KeyValueEntry)) error {
	if err := c.WaitUp(ctx); err != nil {
		return err
	}
	live := c.Live()
	actx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	kv, err := c.js.KeyValue(actx, bucket)
	if err != nil {
		return err
	}
	w, err := kv.Watch(ctx, key, jetstream.IgnoreDeletes())
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
			if e != nil { // nil: the end of the initial values
				use(e)
			}
		case <-live.Done():
			return ErrUnavailable
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
