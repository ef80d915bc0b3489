package manifest

import (
	"fmt"
	"net/http"
	"strings"
)

// routeTable finds routes that collide, by the rules that the gateway matches with: ServeMux's own.
type routeTable struct {
	mux    *http.ServeMux
	routes map[string]string // pattern: where it was registered first, for people
	order  []string          // the patterns, as they came
}

func newRouteTable() *routeTable {
	return &routeTable{mux: http.NewServeMux(), routes: map[string]string{}}
}

// add registers a route, or says which other route it collides with and why. A method or path that is
// no pattern at all is not its concern.
func (t *routeTable) add(method, path, where string) (collision string) {
	pattern := method + " " + path
	if first, ok := t.routes[pattern]; ok {
		return fmt.Sprintf("has the method and path of %s", first)
	}
	if register(t.mux, pattern) == "" {
		t.routes[pattern] = where
		t.order = append(t.order, pattern)
		return ""
	}
	// The mux names any of those that collide; the first that came is the same one each time, which a status that is
	// written again and again needs.
	for _, other := range t.order {
		two := http.NewServeMux()
		_ = register(two, other)
		if msg := register(two, pattern); msg != "" {
			return t.explain(msg)
		}
	}
	return "" // not a pattern: API.Validate says so
}

// forget takes back what came after the first n patterns. A mux can't, so there is a new one.
func (t *routeTable) forget(n int) {
	for _, pattern := range t.order[n:] {
		delete(t.routes, pattern)
	}
	t.order = t.order[:n]
	t.mux = http.NewServeMux()
	for _, pattern := range t.order {
		_ = register(t.mux, pattern) // it did not collide before
	}
}

// register returns what the mux has against pattern.
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
func (t *routeTable) explain(msg string) string {
	head, reason, ok := strings.Cut(msg, "):\n")
	if !ok {
		return "" // not a pattern: API.Validate says so
	}
	_, other, _ := strings.Cut(head, `conflicts with pattern "`)
	other, _, _ = strings.Cut(other, `" (registered at`)
	where := t.routes[other]
	if where == "" {
		where = "another route"
	}
	return fmt.Sprintf("collides with %s: %s", where, strings.TrimSuffix(strings.Join(strings.Fields(reason), " "), "."))
}
