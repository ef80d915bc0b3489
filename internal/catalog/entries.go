package catalog

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A catalog is published as entries, one for each resource and each route, so that a change takes some hundred bytes
// however large the catalog is. An entry's key is
//
//	queue.NAMESPACE.NAME
//	machine.NAMESPACE.NAME
//	service.NAMESPACE.NAME
//	mapping.NAMESPACE.NAME
//	api.NAMESPACE.NAME           without its routes
//	route.NAMESPACE.API.NAME
//
// (names are DNS labels: they hold no dot), its value the JSON of an envelope with a format. A reader ignores fields
// and kinds of keys that it doesn't know: a later version may add some. An entry that can't be read at all affects no
// other.
const (
	kindQueue   = "queue"
	kindMachine = "machine"
	kindService = "service"
	kindMapping = "mapping"
	kindAPI     = "api"
	kindRoute   = "route"

	// entryFormat is the highest format of the values that is read. An entry with a higher one is not: something in it must
	// not be ignored. An entry is written in the lowest format that has all that is in it (item.format).
	entryFormat = 3
	// formatH2C is the format from which on Function.H2C is known: a reader that ignored it would call in a protocol that
	// the function doesn't speak, and count that as its failure.
	formatH2C = 2
	// formatHost is the format from which on Route.Host is known: a reader that ignored it would serve the route on every host.
	formatHost = 3
)

// envelope is the value of an entry.
type envelope struct {
	Format int             `json:"format"`
	Spec   json.RawMessage `json:"spec"`
}

// item is a resource or a route as an entry has it.
type item struct {
	key  string
	spec any // a pointer
}

func keyOf(kind string, parts ...string) string { return kind + "." + strings.Join(parts, ".") }

// Owner is the resource that an entry belongs to; a route belongs to its API. It is zero for a key of an unknown kind.
type Owner struct {
	Kind string // "queue", "machine", "service", "mapping" or "api"
	Key
}

// OwnerOf returns the owner of the entry of key.
func OwnerOf(key string) Owner {
	parts := strings.Split(key, ".")
	if rank(key) < 0 || len(parts) < 3 {
		return Owner{}
	}
	o := Owner{Kind: parts[0], Key: Key{Namespace: parts[1], Name: parts[2]}}
	if o.Kind == kindRoute {
		o.Kind = kindAPI
	}
	return o
}

// items calls f with each item, until it returns an error.
func (c *Catalog) items(f func(item) error) error {
	for i := range c.Queues {
		if err := f(item{keyOf(kindQueue, c.Queues[i].Namespace, c.Queues[i].Name), &c.Queues[i]}); err != nil {
			return err
		}
	}
	for i := range c.Machines {
		if err := f(item{keyOf(kindMachine, c.Machines[i].Namespace, c.Machines[i].Name), &c.Machines[i]}); err != nil {
			return err
		}
	}
	for i := range c.Services {
		if err := f(item{keyOf(kindService, c.Services[i].Namespace, c.Services[i].Name), &c.Services[i]}); err != nil {
			return err
		}
	}
	for i := range c.Mappings {
		if err := f(item{keyOf(kindMapping, c.Mappings[i].Namespace, c.Mappings[i].Name), &c.Mappings[i]}); err != nil {
			return err
		}
	}
	for i := range c.APIs {
		api := c.APIs[i] // without its routes
		routes := api.Routes
		api.Routes = nil
		if err := f(item{keyOf(kindAPI, api.Namespace, api.Name), &api}); err != nil {
			return err
		}
		for j := range routes {
			if err := f(item{keyOf(kindRoute, api.Namespace, api.Name, routes[j].Name), &routes[j]}); err != nil {
				return err
			}
		}
	}
	return nil
}

// format is the lowest that has all of i.
func (i item) format() int {
	h2c := false
	switch spec := i.spec.(type) {
	case *Mapping:
		h2c = spec.Function.H2C
	case *Route:
		if spec.Host != "" {
			return formatHost
		}
		h2c = spec.Function != nil && spec.Function.Function.H2C
	}
	if h2c {
		return formatH2C
	}
	return 1
}

// value doesn't escape a schema's text for HTML, which could make it six times as long.
func (i item) value() ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"format":%d,"spec":`, i.format())
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(i.spec); err != nil {
		return nil, fmt.Errorf("catalog: entry %s: %w", i.key, err)
	}
	out.Truncate(out.Len() - 1) // its newline
	out.WriteByte('}')
	return out.Bytes(), nil
}

// Entries returns the catalog as entries.
func (c *Catalog) Entries() (map[string][]byte, error) {
	out := map[string][]byte{}
	return out, c.items(func(i item) (err error) {
		out[i.key], err = i.value()
		return err
	})
}

// Diff is the change from one set of entries to another.
type Diff struct {
	Revision string            // of the new set
	Changed  map[string][]byte // new and changed ones
	Gone     []string
}

// Diff returns the change from the builder's entries to those of c. Unchanged ones are not encoded again. Entries of
// kinds that this version doesn't know are a later version's, and stay.
func (b *Builder) Diff(c *Catalog) (Diff, error) {
	d := Diff{Changed: map[string][]byte{}}
	next := NewBuilder()
	err := c.items(func(i item) error {
		sum, known := b.sums[i.key]
		if !known || !b.same(i) {
			value, err := i.value()
			if err != nil {
				return err
			}
			if s := sumOf(i.key, value); !known || s != sum {
				sum = s
				d.Changed[i.key] = value
			}
		}
		next.add(i.key, sum)
		return nil
	})
	for k, sum := range b.sums {
		switch _, stays := next.sums[k]; {
		case stays:
		case rank(k) < 0:
			next.add(k, sum)
		default:
			d.Gone = append(d.Gone, k)
		}
	}
	d.Revision = next.Revision()
	return d, err
}

// same reports whether the entry of i's key has the same spec.
func (b *Builder) same(i item) bool {
	switch spec := i.spec.(type) {
	case *Queue:
		return equal(b.queues[i.key], spec)
	case *Machine:
		return equal(b.machines[i.key], spec)
	case *Service:
		return equal(b.services[i.key], spec)
	case *Mapping:
		return equal(b.mappings[i.key], spec)
	case *API:
		return equal(b.apis[i.key], spec)
	case *Route:
		return equal(b.routes[i.key], spec)
	}
	return false
}

func equal[T any](a, b *T) bool { return a != nil && reflect.DeepEqual(*a, *b) }

// CompareKeys orders the keys of entries so that an entry comes before those that refer to it.
func CompareKeys(a, b string) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

func rank(key string) int {
	kind, _, _ := strings.Cut(key, ".")
	return slices.Index([]string{kindQueue, kindMachine, kindService, kindMapping, kindAPI, kindRoute}, kind) // -1 for a kind of a later version: first
}

// Builder builds catalogs from entries that come and go one by one. An unchanged one is decoded once. It is not safe
// for concurrent use.
type Builder struct {
	sums     map[string][sha256.Size]byte // of every entry, known or not
	total    uint64                       // of the sums
	queues   map[string]*Queue
	machines map[string]*Machine
	services map[string]*Service
	mappings map[string]*Mapping
	apis     map[string]*API
	routes   map[string]*Route
	places   map[string]bool // keys of routes of which no more than their place is known
}

// NewBuilder returns an empty Builder.
func NewBuilder() *Builder {
	return &Builder{
		sums: map[string][sha256.Size]byte{}, queues: map[string]*Queue{}, machines: map[string]*Machine{}, services: map[string]*Service{}, mappings: map[string]*Mapping{},
		apis: map[string]*API{}, routes: map[string]*Route{}, places: map[string]bool{},
	}
}

// Set adds an entry or replaces the one of the same key. With an error, which names the key, the former one stays in
// use; a route without a former one has its method and path only, no target. The same value again does nothing.
func (b *Builder) Set(key string, value []byte) error {
	sum := sumOf(key, value)
	if former, ok := b.sums[key]; ok && former == sum {
		return nil
	}
	b.forget(key)
	b.add(key, sum)
	var err error
	switch kind, _, _ := strings.Cut(key, "."); kind {
	case kindQueue:
		err = set(b.queues, key, value)
	case kindMachine:
		err = set(b.machines, key, value)
	case kindService:
		err = set(b.services, key, value)
	case kindMapping:
		err = set(b.mappings, key, value)
	case kindAPI:
		err = set(b.apis, key, value)
	case kindRoute:
		known := b.routes[key] != nil && !b.places[key]
		if err = set(b.routes, key, value); err == nil {
			delete(b.places, key)
		} else if r := placeOf(value); r != nil && !known {
			b.routes[key], b.places[key] = r, true
		}
	}
	return err
}

// placeOf returns what a route's entry has in every format, nil if this one lacks it.
func placeOf(value []byte) *Route {
	var e struct {
		Spec struct{ Name, Method, Host, Path string } `json:"spec"`
	}
	if err := json.Unmarshal(value, &e); err != nil || e.Spec.Name == "" || e.Spec.Method == "" || e.Spec.Path == "" {
		return nil
	}
	return &Route{Name: e.Spec.Name, Method: e.Spec.Method, Host: e.Spec.Host, Path: e.Spec.Path}
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
	delete(b.machines, key)
	delete(b.services, key)
	delete(b.mappings, key)
	delete(b.apis, key)
	delete(b.routes, key)
	delete(b.places, key)
}

// Keep deletes the entries whose key isn't in keys.
func (b *Builder) Keep(keys map[string]bool) {
	for k := range b.sums {
		if !keys[k] {
			b.Delete(k)
		}
	}
}

func (b *Builder) add(key string, sum [sha256.Size]byte) {
	b.sums[key] = sum
	b.total += binary.BigEndian.Uint64(sum[:])
}

func (b *Builder) forget(key string) {
	if sum, ok := b.sums[key]; ok {
		b.total -= binary.BigEndian.Uint64(sum[:])
		delete(b.sums, key)
	}
}

// Revision names the set of entries: equal ones have equal revisions.
func (b *Builder) Revision() string {
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], b.total)
	return hex.EncodeToString(p[:6])
}

// Catalog returns the catalog of the current entries. A route whose API isn't there is left out.
func (b *Builder) Catalog() *Catalog {
	c := &Catalog{revision: b.Revision()}
	for _, k := range slices.Sorted(maps.Keys(b.queues)) {
		c.Queues = append(c.Queues, *b.queues[k])
	}
	for _, k := range slices.Sorted(maps.Keys(b.machines)) {
		c.Machines = append(c.Machines, *b.machines[k])
	}
	for _, k := range slices.Sorted(maps.Keys(b.services)) {
		c.Services = append(c.Services, *b.services[k])
	}
	for _, k := range slices.Sorted(maps.Keys(b.mappings)) {
		c.Mappings = append(c.Mappings, *b.mappings[k])
	}
	byAPI := make(map[string][]string, len(b.apis))
	for k := range b.routes {
		api := strings.TrimPrefix(k[:strings.LastIndexByte(k, '.')], kindRoute) // with its dot
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

func sumOf(key string, value []byte) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(key), []byte{0}, value))
}

// Revision is a short hash of the content: equal catalogs have equal revisions, in whatever order they are written.
func (c *Catalog) Revision() string {
	if c.revision != "" {
		return c.revision
	}
	d, err := NewBuilder().Diff(c)
	if err != nil {
		panic(fmt.Sprintf("catalog: plain structs always marshal: %v", err))
	}
	return d.Revision
}
