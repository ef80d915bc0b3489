package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// The published catalog is a bucket of entries (package catalog), and one more that says which set of them is whole:
//
//  1. whoever publishes compares and sets the head to the revision that is to be, so that of two that publish in place of
//     the same catalog one is told before it has written anything;
//  2. it writes the entries that differ, and deletes those that went;
//  3. a reader uses the entries once they are those that the head names.
//
// One that dies in between has changed nothing that is in use; the next one completes it. docs/decisions/0018 says why.
const (
	catalogBucket = "WEIR_CATALOG"
	catalogHead   = "head"
	catalogPrefix = "$KV." + catalogBucket + "."

	// maxCatalogWrites bounds the entries that are being written at a time.
	maxCatalogWrites = 256
	// catalogTimeout bounds a publication: the first one of ten thousand routes is as many synced writes.
	catalogTimeout = time.Minute
	// catalogPatience is how long a reader waits for the rest of a set. Then it uses what is there: whoever published it
	// has died half-way, and what there is may be better than nothing.
	catalogPatience = 5 * time.Second
	// markerTTL is how long the marker of a deleted entry stays: those who read have it by then, or read all anew.
	markerTTL = time.Hour
)

// The ways in which a catalog can't be published.
var (
	// ErrCatalogTooLarge means that an entry doesn't fit into one message.
	ErrCatalogTooLarge = errors.New("stream: an entry of the catalog is too large for a message of NATS")
	// ErrCatalogChanged means that another has published since the catalog was read.
	ErrCatalogChanged = errors.New("stream: the catalog was changed by another")
)

// head is the value of the entry that says which set is whole.
type head struct {
	Revision string `json:"revision"`
}

// PublishedCatalog is the catalog that the data plane works by, as it was read.
type PublishedCatalog struct {
	Catalog *catalog.Catalog // never nil; empty when none was published yet
	entries *catalog.Builder
	head    string            // the revision that is said to be whole
	at      map[string]uint64 // revisions of the bucket, by key, deleted ones too
}

// None reports that no catalog was published yet.
func (p *PublishedCatalog) None() bool { return p.at[catalogHead] == 0 }

// Is reports whether the published catalog is whole, and has this revision.
func (p *PublishedCatalog) Is(revision string) bool {
	return !p.None() && p.head == revision && p.entries.Revision() == revision
}

// Catalog reads the published catalog, as far as it was written.
func (c *Conn) Catalog(ctx context.Context) (*PublishedCatalog, error) {
	ctx, cancel := c.bound(ctx, catalogTimeout)
	defer cancel()
	p := &PublishedCatalog{Catalog: new(catalog.Catalog), entries: catalog.NewBuilder(), at: map[string]uint64{}}
	kv, err := c.js.KeyValue(ctx, catalogBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("catalog bucket: %w", c.apiError(ctx, err))
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", c.apiError(ctx, err))
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return nil, ErrUnavailable
			}
			if e == nil { // that was all
				if !p.None() {
					p.Catalog = p.entries.Catalog()
				}
				return p, nil
			}
			p.at[e.Key()] = e.Revision()
			if !c.readEntry(p.entries, e) {
				p.head = c.readHead(e)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("read the catalog: %w", context.Cause(ctx))
		}
	}
}

// readEntry puts an entry of the bucket among the others. It reports whether it was one.
func (c *Conn) readEntry(b *catalog.Builder, e jetstream.KeyValueEntry) bool {
	switch {
	case e.Key() == catalogHead:
		return false
	case e.Operation() != jetstream.KeyValuePut:
		b.Delete(e.Key())
	default:
		if err := b.Set(e.Key(), e.Value()); err != nil {
			c.log.Error("an entry of the catalog can't be read; its former version stays, if there was one", "revision", e.Revision(), "error", err)
		}
	}
	return true
}

// readHead returns the revision that the head says is whole; empty when it can't be read, which the next publication mends.
func (c *Conn) readHead(e jetstream.KeyValueEntry) string {
	var h head
	if err := json.Unmarshal(e.Value(), &h); err != nil {
		c.log.Error("the catalog's head can't be read", "revision", e.Revision(), "error", err)
	}
	return h.Revision
}

// PublishCatalog makes cat the one that the data plane works by, in place of former; nil: of whatever is there. It writes
// what differs. It returns ErrCatalogChanged when former is not the published one any more.
func (c *Conn) PublishCatalog(ctx context.Context, cat *catalog.Catalog, replicas int, former *PublishedCatalog) error {
	ctx, cancel := c.bound(ctx, catalogTimeout)
	defer cancel()
	_, err := c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: catalogBucket, History: 1, Replicas: replicas, Storage: jetstream.FileStorage, LimitMarkerTTL: markerTTL,
	})
	if err != nil {
		return fmt.Errorf("catalog bucket: %w", c.apiError(ctx, err))
	}
	if former == nil {
		if former, err = c.Catalog(ctx); err != nil {
			return err
		}
	}
	diff, err := former.entries.Diff(cat)
	if err != nil {
		return err
	}
	for k, v := range diff.Changed { // before anything is written
		if room := c.Room(DefaultMaxPayload); len(v) > room {
			return fmt.Errorf("%w: %s has %d bytes, of %d", ErrCatalogTooLarge, k, len(v), room)
		}
	}
	value, err := json.Marshal(head{diff.Revision})
	if err != nil {
		return fmt.Errorf("encode the catalog's head: %w", err)
	}
	_, err = c.js.PublishMsg(ctx, &nats.Msg{Subject: catalogPrefix + catalogHead, Data: value}, jetstream.WithExpectLastSequencePerSubject(former.at[catalogHead]))
	if wrongSequence(err) {
		return ErrCatalogChanged
	}
	if err != nil {
		return fmt.Errorf("publish the catalog: %w", c.apiError(ctx, err))
	}
	return c.writeEntries(ctx, diff, former)
}

// writeEntries writes what differs from former: what is referred to before what refers to it, then deletes the other way
// round.
func (c *Conn) writeEntries(ctx context.Context, diff catalog.Diff, former *PublishedCatalog) error {
	var writes []*nats.Msg
	for _, k := range slices.SortedFunc(maps.Keys(diff.Changed), catalog.CompareKeys) {
		writes = append(writes, &nats.Msg{Subject: catalogPrefix + k, Data: diff.Changed[k]})
	}
	slices.SortFunc(diff.Gone, func(a, b string) int { return catalog.CompareKeys(b, a) })
	for _, k := range diff.Gone {
		writes = append(writes, &nats.Msg{
			Subject: catalogPrefix + k, Header: nats.Header{"KV-Operation": {"DEL"}, jetstream.MsgTTLHeader: {markerTTL.String()}},
		})
	}
	var inFlight []jetstream.PubAckFuture
	await := func(n int) error { // until n are left
		for len(inFlight) > n {
			select {
			case <-inFlight[0].Ok():
			case err := <-inFlight[0].Err():
				if wrongSequence(err) {
					return ErrCatalogChanged
				}
				return fmt.Errorf("publish %s: %w", inFlight[0].Msg().Subject, c.apiError(ctx, err))
			case <-ctx.Done():
				return fmt.Errorf("publish the catalog: %w", context.Cause(ctx))
			}
			inFlight = inFlight[1:]
		}
		return nil
	}
	for _, m := range writes {
		f, err := c.js.PublishMsgAsync(m, jetstream.WithExpectLastSequencePerSubject(former.at[m.Subject[len(catalogPrefix):]]))
		if err != nil {
			return fmt.Errorf("publish %s: %w", m.Subject, c.apiError(ctx, err))
		}
		inFlight = append(inFlight, f)
		if err := await(maxCatalogWrites - 1); err != nil {
			return err
		}
	}
	return await(0)
}

// WatchCatalog calls use with the published catalog and with every later one until ctx ends. A bucket
// that is not there yet, or NATS being away, only delays it. Changes that come together are one.
func (c *Conn) WatchCatalog(ctx context.Context, use func(*catalog.Catalog)) error {
	used := ""
	return c.watchBucket(ctx, catalogBucket, func(w jetstream.KeyWatcher, live context.Context) error {
		return c.followCatalog(ctx, live, w, func(b *catalog.Builder) {
			if revision := b.Revision(); revision != used { // of a new connection it is the same, as a rule
				used = revision
				use(b.Catalog())
			}
		})
	})
}

// followCatalog calls use whenever the entries are those that the head names.
func (c *Conn) followCatalog(ctx, live context.Context, w jetstream.KeyWatcher, use func(*catalog.Builder)) error {
	b, whole := catalog.NewBuilder(), "" // the revision of the head
	all := false                         // that was there when the watch began
	patience := time.NewTimer(catalogPatience)
	patience.Stop()
	defer patience.Stop()
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return ErrUnavailable
			case e == nil:
				all = true
			case !c.readEntry(b, e):
				whole = c.readHead(e)
			}
			switch {
			case !all || whole == "": // none was published yet
			case b.Revision() == whole:
				patience.Stop()
				use(b)
			default:
				patience.Reset(catalogPatience)
			}
		case <-patience.C:
			c.log.Warn("a change of the catalog is not complete; what there is of it is used", "revision", whole, "present", b.Revision())
			use(b)
		case <-live.Done():
			return ErrUnavailable
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watchKey calls use with the value of a key and with every later one until ctx ends.
func (c *Conn) watchKey(ctx context.Context, bucket, key string, use func(jetstream.KeyValueEntry)) error {
	return c.watchBucket(ctx, bucket, func(w jetstream.KeyWatcher, live context.Context) error {
		for {
			select {
			case e, ok := <-w.Updates():
				if !ok {
					return ErrUnavailable
				}
				if e != nil && e.Key() == key && e.Operation() == jetstream.KeyValuePut { // nil: the end of the initial values
					use(e)
				}
			case <-live.Done():
				return ErrUnavailable
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

// watchBucket watches all keys of a bucket, as often as the watch breaks, until ctx ends. live ends with the connected
// period.
func (c *Conn) watchBucket(ctx context.Context, bucket string, watch func(w jetstream.KeyWatcher, live context.Context) error) error {
	for ctx.Err() == nil {
		if err := c.watchOnce(ctx, bucket, watch); err != nil && ctx.Err() == nil {
			c.log.Warn("a bucket of NATS can't be watched", "bucket", bucket, "retry", watchRetry, "error", err)
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *Conn) watchOnce(ctx context.Context, bucket string, watch func(w jetstream.KeyWatcher, live context.Context) error) error {
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
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer func() { _ = w.Stop() }()
	return watch(w, live)
}
