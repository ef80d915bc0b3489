package catalog

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A catalog is published as entries, one for each resource and each route, so that a change is one of some hundred bytes
// however large the whole is. An entry's key is
//
//	queue.NAMESPACE.NAME
//	mapping.NAMESPACE.NAME
//	api.NAMESPACE.NAME           without its routes
//	route.NAMESPACE.API.NAME
//
// (names are DNS labels: they hold no dot), its value the JSON of an envelope with a format. A reader ignores fields and
// kinds of keys that it doesn't know: a later version may add some. What it can't read at all concerns that entry alone.
const (
	kindQueue   = "queue"
	kindMapping = "mapping"
	kindAPI     = "api"
	kindRoute   = "route"

	// entryFormat is that of the values. One with a higher format is not read: something in it must not be ignored.
	entryFormat = 1
)

// envelope is the value of an entry.
type envelope struct {
	Format int             `json:"format"`
	Spec   json.RawMessage `json:"spec"`
}

// Entries returns the catalog as entries.
func (c *Catalog) Entries() (map[string][]byte, error) {
	out := make(map[string][]byte, len(c.Queues)+len(c.Mappings)+len(c.APIs))
	put := func(spec any, parts ...string) error {
		data, err := json.Marshal(spec)
		if err == nil {
			data, err = json.Marshal(envelope{entryFormat, data})
		}
		if err != nil {
			return fmt.Errorf("catalog: %s: %w", strings.Join(parts, " "), err)
		}
		out[strings.Join(parts, ".")] = data
		return nil
	}
	for i := range c.Queues {
		if err := put(c.Queues[i], kindQueue, c.Queues[i].Namespace, c.Queues[i].Name); err != nil {
			return nil, err
		}
	}
	for i := range c.Mappings {
		if err := put(c.Mappings[i], kindMapping, c.Mappings[i].Namespace, c.Mappings[i].Name); err != nil {
			return nil, err
		}
	}
	for i := range c.APIs {
		api := c.APIs[i]
		routes := api.Routes
		api.Routes = nil
		if err := put(api, kindAPI, api.Namespace, api.Name); err != nil {
			return nil, err
		}
		for j := range routes {
			if err := put(routes[j], kindRoute, api.Namespace, api.Name, routes[j].Name); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// CompareKeys orders the keys of entries so that what is referred to comes before what refers to it.
func CompareKeys(a, b string) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

func rank(key string) int {
	kind, _, _ := strings.Cut(key, ".")
	return slices.Index([]string{kindQueue, kindMapping, kindAPI, kindRoute}, kind) // of a later version: first
}

// Builder makes catalogs of entries as they come and go. What did not change is decoded once. It is not safe for
// concurrent use.
type Builder struct {
	sums     map[string][sha256.Size]byte // of every entry, known or not
	total    uint64                       // of the sums
	queues   map[string]*Queue
	mappings map[string]*Mapping
	apis     map[string]*API
	routes   map[string]*Route
}

// NewBuilder returns one without entries.
func NewBuilder() *Builder {
	return &Builder{
		sums: map[string][sha256.Size]byte{}, queues: map[string]*Queue{}, mappings: map[string]*Mapping{},
		apis: map[string]*API{}, routes: map[string]*Route{},
	}
}

// Set puts an entry in the place of the one of the same key. With an error, which names the key, what could be read of the
// former one stays in use.
func (b *Builder) Set(key string, value []byte) error {
	b.forget(key)
	sum := sumOf(key, value)
	b.sums[key] = sum
	b.total += binary.BigEndian.Uint64(sum[:])
	var err error
	switch kind, _, _ := strings.Cut(key, "."); kind {
	case kindQueue:
		err = set(b.queues, key, value)
	case kindMapping:
		err = set(b.mappings, key, value)
	case kindAPI:
		err = set(b.apis, key, value)
	case kindRoute:
		err = set(b.routes, key, value)
	}
	return err
}

func set[T any](of map[string]*T, key string, value []byte) error {
	var e envelope
	err := json.Unmarshal(value, &e)
	if err == nil && e.Format > entryFormat {
		err = fmt.Errorf("it has format %d; this version reads %d", e.Format, entryFormat)
	}
	spec := new(T)
	if err == nil {
		err = json.Unmarshal(e.Spec, spec)
	}
	if err != nil {
		return fmt.Errorf("catalog: entry %s: %w", key, err)
	}
	of[key] = spec
	return nil
}

// Delete removes an entry.
func (b *Builder) Delete(key string) {
	b.forget(key)
	delete(b.queues, key)
	delete(b.mappings, key)
	delete(b.apis, key)
	delete(b.routes, key)
}

func (b *Builder) forget(key string) {
	if sum, ok := b.sums[key]; ok {
		b.total -= binary.BigEndian.Uint64(sum[:])
		delete(b.sums, key)
	}
}

// Has reports whether the entry is there with this value.
func (b *Builder) Has(key string, value []byte) bool {
	sum, ok := b.sums[key]
	return ok && sum == sumOf(key, value)
}

// Keys are those of all entries.
func (b *Builder) Keys() []string { return slices.Collect(maps.Keys(b.sums)) }

// Revision names the set of entries: equal ones have equal revisions.
func (b *Builder) Revision() string {
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], b.total)
	return hex.EncodeToString(p[:6])
}

// Catalog returns what the entries say now. A route whose API isn't there is left out.
func (b *Builder) Catalog() *Catalog {
	c := &Catalog{revision: b.Revision()}
	for _, k := range slices.Sorted(maps.Keys(b.queues)) {
		c.Queues = append(c.Queues, *b.queues[k])
	}
	for _, k := range slices.Sorted(maps.Keys(b.mappings)) {
		c.Mappings = append(c.Mappings, *b.mappings[k])
	}
	byAPI := make(map[string][]string, len(b.apis))
	for k := range b.routes {
		api, _, _ := cutLast(strings.TrimPrefix(k, kindRoute))
		byAPI[kindAPI+api] = append(byAPI[kindAPI+api], k)
	}
	for _, k := range slices.Sorted(maps.Keys(b.apis)) {
		api := *b.apis[k]
		keys := byAPI[k]
		slices.Sort(keys)
		api.Routes = make([]Route, len(keys))
		for i, r := range keys {
			api.Routes[i] = *b.routes[r]
		}
		c.APIs = append(c.APIs, api)
	}
	return c
}

func cutLast(s string) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, '.'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func sumOf(key string, value []byte) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(key), []byte{0}, value))
}

// Revision is a short hash of the content: equal catalogs have equal revisions, in whatever order they are written.
func (c *Catalog) Revision() string {
	if c.revision != "" {
		return c.revision
	}
	entries, err := c.Entries()
	if err != nil {
		panic(fmt.Sprintf("catalog: plain structs always marshal: %v", err))
	}
	b := NewBuilder()
	for k, v := range entries {
		b.forget(k)
		sum := sumOf(k, v)
		b.sums[k] = sum
		b.total += binary.BigEndian.Uint64(sum[:])
	}
	return b.Revision()
}
