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

// The published catalog is a bucket of entries (package catalog), and one more, the head: the revision of the complete
// set of entries.
//
//  1. a publisher sets the head to the new revision by compare-and-set, so that of two that replace the same catalog
//     one fails before it has written anything;
//  2. it writes the entries that differ, and deletes those that are gone;
//  3. a reader uses the entries once their revision is that of the head.
//
// A publisher that dies in between has changed nothing that is in use; the next one completes it.
//
// The head says whose the catalog is, too: two releases with one NATS would take each other's entries away.
// docs/decisions/0018 says why.
const (
	catalogBucket = "WEIR_CATALOG"
	catalogHead   = "head"
	catalogPrefix = "$KV." + catalogBucket + "."

	// maxCatalogWrites bounds the entry writes in flight.
	maxCatalogWrites = 256
	// catalogTimeout bounds a publication: the first one of ten thousand routes is as many synced writes.
	catalogTimeout = time.Minute
	// catalogPatience is how long a reader waits for the rest of a set. Then it uses what is there: the publisher has
	// died half-way, and a part of the change may be better than nothing.
	catalogPatience = 5 * time.Second
	// markerTTL is how long the tombstone of a deleted entry stays: readers have seen it by then, or read all anew.
	markerTTL = time.Hour
)

// Catalogs keeps the published catalog.
type Catalogs interface {
	Catalog(ctx context.Context) (*PublishedCatalog, error)
	PublishCatalog(ctx context.Context, cat *catalog.Catalog, replicas int, former *PublishedCatalog) error
	WatchCatalog(ctx context.Context, use func(*catalog.Catalog)) error
}

// ErrCatalogChanged means that another has published since the catalog was read.
var ErrCatalogChanged = errors.New("stream: the catalog was changed by another")

// EntriesTooLargeError means that nothing of a catalog was published, because some of its entries fit into no message.
type EntriesTooLargeError struct {
	Limit   int          // bytes that an entry may have
	Entries []LargeEntry // by their keys; at least one
}

// LargeEntry is an entry that is too large.
type LargeEntry struct {
	Key   string
	Bytes int
}

// Error names the first of them.
func (e *EntriesTooLargeError) Error() string {
	return fmt.Sprintf("stream: the catalog's entry %s, one of %d, is too large for a message of NATS: %d bytes, of %d", e.Entries[0].Key, len(e.Entries), e.Entries[0].Bytes, e.Limit)
}

// tooLarge returns an EntriesTooLargeError, if some of entries are.
func (c *Conn) tooLarge(entries map[string][]byte) error {
	e := &EntriesTooLargeError{Limit: c.Room(DefaultMaxPayload)}
	for _, k := range slices.Sorted(maps.Keys(entries)) {
		if n := len(entries[k]); n > e.Limit {
			e.Entries = append(e.Entries, LargeEntry{k, n})
		}
	}
	if len(e.Entries) == 0 {
		return nil
	}
	return e
}

// head is the value of the head entry.
type head struct {
	Revision string `json:"revision"`
	// Release is empty if an earlier version has published, or who is none (weir local).
	Release string `json:"release,omitempty"`
}

// PublishedCatalog is the catalog that the data plane works by, as it was read.
type PublishedCatalog struct {
	Catalog *catalog.Catalog // never nil; empty when none was published yet
	// Release is the one that has published it, as NAMESPACE/NAME; empty if nobody has said. Whoever publishes the next one sets it to
	// its own before, or leaves it.
	Release string
	entries *catalog.Builder
	head    head              // as it was read
	at      map[string]uint64 // revisions of the bucket, by key, deleted ones too
}

// None reports whether no catalog was published yet.
func (p *PublishedCatalog) None() bool { return p.at[catalogHead] == 0 }

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
	w, stop, err := watchAll(ctx, kv)
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", c.apiError(ctx, err))
	}
	defer stop()
	for {
		e, err := nextUpdate(ctx, w)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the catalog: %w", err)
		case e == nil: // that was all
			if !p.None() {
				p.Catalog = p.entries.Catalog()
			}
			return p, nil
		}
		p.at[e.Key()] = e.Revision()
		if !c.readEntry(p.entries, e) {
			p.head = c.readHead(e)
			p.Release = p.head.Release
		}
	}
}

// readEntry applies an entry of the bucket to b. It reports whether it was one, and not the head.
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

// readHead returns the head; empty if it can't be read, which the next publication fixes.
func (c *Conn) readHead(e jetstream.KeyValueEntry) head {
	var h head
	if err := json.Unmarshal(e.Value(), &h); err != nil {
		c.log.Error("the catalog's head can't be read", "revision", e.Revision(), "error", err)
	}
	return h
}

// PublishCatalog makes cat the one that the data plane works by, in place of former, and former.Release whose it is; nil means
// whatever is there. It writes what differs. It returns ErrCatalogChanged when former is not the published one any more, and
// EntriesTooLargeError.
func (c *Conn) PublishCatalog(ctx context.Context, cat *catalog.Catalog, replicas int, former *PublishedCatalog) error {
	ctx, cancel := c.bound(ctx, catalogTimeout)
	defer cancel()
	if former == nil {
		var err error
		if former, err = c.Catalog(ctx); err != nil {
			return err
		}
	}
	diff, err := former.entries.Diff(cat)
	if err != nil {
		return err
	}
	next := head{Revision: diff.Revision, Release: former.Release}
	if len(diff.Changed)+len(diff.Gone) == 0 && !former.None() && former.head == next {
		return nil
	}
	if err := c.tooLarge(diff.Changed); err != nil {
		return err
	}
	_, err = c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: catalogBucket, History: 1, Replicas: replicas, Storage: jetstream.FileStorage, LimitMarkerTTL: markerTTL,
	})
	if err != nil {
		return fmt.Errorf("catalog bucket: %w", c.apiError(ctx, err))
	}
	value, err := json.Marshal(next)
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
	if err := c.writeEntries(ctx, diff, former); err != nil {
		return err
	}
	c.log.Info("catalog published", "revision", diff.Revision, "changed", len(diff.Changed), "gone", len(diff.Gone),
		"apis", len(cat.APIs), "queues", len(cat.Queues), "mappings", len(cat.Mappings))
	return nil
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
// that is not there yet, or NATS being away, only delays it. Changes that come together are one. An entry that can't be
// read keeps its former version, also across an outage of NATS.
func (c *Conn) WatchCatalog(ctx context.Context, use func(*catalog.Catalog)) error {
	w := &catalogWatch{conn: c, use: use, entries: catalog.NewBuilder()}
	c.watchBucket(ctx, catalogBucket, w.follow)
	return nil
}

// catalogWatch is one WatchCatalog.
type catalogWatch struct {
	conn    *Conn
	use     func(*catalog.Catalog)
	entries *catalog.Builder // kept across connections
	used    string           // revision
}

// follow uses the entries whenever their revision is that of the head.
func (w *catalogWatch) follow(ctx context.Context, kw jetstream.KeyWatcher) error {
	whole := ""                // the revision of the head; empty if none was published yet
	there := map[string]bool{} // keys, until the watch has delivered the initial state; nil after that
	patience := time.NewTimer(catalogPatience)
	patience.Stop()
	defer patience.Stop()
	for {
		select {
		case e, ok := <-kw.Updates():
			switch {
			case !ok:
				return ErrUnavailable
			case e == nil:
				w.entries.Keep(there) // what is in use stays until a set is whole, also if the bucket was made anew
				there = nil
			case w.conn.readEntry(w.entries, e):
				if there != nil {
					there[e.Key()] = true
				}
			default:
				whole = w.conn.readHead(e).Revision
			}
			switch {
			case there != nil || whole == "":
			case w.entries.Revision() == whole:
				patience.Stop()
				w.flush()
			default:
				patience.Reset(catalogPatience)
			}
		case <-patience.C:
			w.conn.log.Warn("a change of the catalog is incomplete; the part that is there is used", "revision", whole, "present", w.entries.Revision())
			w.flush()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *catalogWatch) flush() {
	if revision := w.entries.Revision(); revision != w.used { // usually the same after a reconnect
		w.used = revision
		w.use(w.entries.Catalog())
	}
}
