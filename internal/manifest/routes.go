package manifest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// routeTable finds routes that collide, by the gateway's own matching rules: ServeMux's. It asks a mux of only two
// patterns, for each pair that an index says may match the same paths: a mux of all patterns would name an arbitrary
// one of those that collide, can't remove any, and compares each pattern that ends with "{rest...}" with every other.
type routeTable struct {
	routes    []tableRoute
	byPattern map[string]int
	index     map[segment][]int // of routes, ascending
}

type tableRoute struct {
	pattern  string
	method   string
	host     string // empty: any
	segments []segment
	where    string // where it was registered, for messages
}

// segment is one segment of a path, with its position, below a host.
type segment struct {
	host  string // patterns of different hosts, or of one and of any, never collide
	place int
	kind  segmentKind
	text  string // of a literal
}

type segmentKind uint8

const (
	literal  segmentKind = iota
	wildcard             // any one segment
	rest                 // all that follow, if any
)

func newRouteTable() *routeTable {
	return &routeTable{byPattern: map[string]int{}, index: map[segment][]int{}}
}

// add registers a route, or says which other route it collides with and why. A method or path that is no valid pattern
// is not its concern. Of several that it collides with it names the one added first: a status that every
// reconciliation writes must not change.
func (t *routeTable) add(method, host, path, where string) (collision string) {
	pattern := method + " " + host + path
	if first, ok := t.byPattern[pattern]; ok {
		if host != "" {
			return fmt.Sprintf("has the method, host and path of %s", t.routes[first].where)
		}
		return fmt.Sprintf("has the method and path of %s", t.routes[first].where)
	}
	if register(http.NewServeMux(), pattern) != "" {
		return "" // not a pattern: API.Validate says so
	}
	r := tableRoute{pattern, method, host, segmentsOf(host, path), where}
	for _, i := range t.candidates(r.segments) {
		other := &t.routes[i]
		if !r.mayMeet(other) {
			continue
		}
		two := http.NewServeMux()
		_ = register(two, other.pattern)
		if msg := register(two, pattern); msg != "" {
			return explain(msg, other.where)
		}
	}
	t.byPattern[pattern] = len(t.routes)
	for _, s := range r.segments {
		t.index[s] = append(t.index[s], len(t.routes))
	}
	t.routes = append(t.routes, r)
	return ""
}

// segmentsOf reads a path as ServeMux does.
func segmentsOf(host, path string) []segment {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	out := make([]segment, len(parts))
	for i, p := range parts {
		s := segment{host: host, place: i}
		switch last := i == len(parts)-1; {
		case p == "" && last, strings.HasPrefix(p, "{") && strings.HasSuffix(p, "...}"):
			s.kind = rest
		case p == "{$}":
			s.text = "/" // as good as no other literal has one: one too many is asked
		case strings.HasPrefix(p, "{"):
			s.kind = wildcard
		default:
			s.text = p
			if plain, err := url.PathUnescape(p); err == nil {
				s.text = plain
			}
		}
		out[i] = s
	}
	return out
}

// candidates returns the routes, ascending, that may match a path that segments match, by the most selective of its
// literals.
func (t *routeTable) candidates(segments []segment) []int {
	var best [][]int
	fewest := len(t.routes) + 1
	var rests [][]int
	for i, s := range segments {
		rests = append(rests, t.index[segment{host: s.host, place: i, kind: rest}])
		if s.kind != literal {
			continue
		}
		lists := append(slices.Clone(rests), t.index[s], t.index[segment{host: s.host, place: i, kind: wildcard}])
		n := 0
		for _, l := range lists {
			n += len(l)
		}
		if n < fewest {
			best, fewest = lists, n
		}
	}
	if best == nil {
		all := make([]int, len(t.routes))
		for i := range all {
			all[i] = i
		}
		return all
	}
	out := slices.Concat(best...)
	slices.Sort(out)
	return out
}

// mayMeet reports whether there may be a request that both match.
func (r *tableRoute) mayMeet(o *tableRoute) bool {
	head := func(a, b string) bool { return a == http.MethodGet && b == http.MethodHead } // GET matches HEAD too
	if r.host != o.host || r.method != o.method && !head(r.method, o.method) && !head(o.method, r.method) {
		return false
	}
	for i := range min(len(r.segments), len(o.segments)) {
		a, b := &r.segments[i], &o.segments[i]
		switch {
		case a.kind == rest || b.kind == rest:
			return true
		case a.kind == literal && b.kind == literal && a.text != b.text:
			return false
		}
	}
	longer := r.segments
	if len(o.segments) > len(longer) {
		longer = o.segments
	}
	n := min(len(r.segments), len(o.segments))
	return len(longer) == n || longer[n].kind == rest
}

// forget removes all but the first n routes.
func (t *routeTable) forget(n int) {
	for i := len(t.routes) - 1; i >= n; i-- {
		r := &t.routes[i]
		delete(t.byPattern, r.pattern)
		for _, s := range r.segments {
			t.index[s] = t.index[s][:len(t.index[s])-1] // it is the last one
			if len(t.index[s]) == 0 {
				delete(t.index, s)
			}
		}
	}
	t.routes = t.routes[:n]
}

// register returns the message with which the mux refuses pattern, empty if it doesn't.
func register(mux *http.ServeMux, pattern string) (msg string) {
	defer func() {
		if r := recover(); r != nil {
			msg = fmt.Sprint(r)
		}
	}()
	mux.Handle(pattern, http.NotFoundHandler())
	return ""
}

// explain puts the user's words into ServeMux's message, which is
//
//	pattern "A" (registered at file.go:1) conflicts with pattern "B" (registered at file.go:1):
//	A matches the same requests as B
//
// and names lines of this program, not of the user's files.
func explain(msg, where string) string {
	_, reason, ok := strings.Cut(msg, "):\n")
	if !ok {
		return "" // not a pattern: API.Validate says so
	}
	return fmt.Sprintf("collides with %s: %s", where, strings.TrimSuffix(strings.Join(strings.Fields(reason), " "), "."))
}
