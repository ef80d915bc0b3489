package gateway

import (
	"net/http"
	"slices"
	"time"

	"github.com/rs/cors"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ownpath"
)

// crossOrigin lets pages of other origins use an API: its routes, and Weir's own paths.
type crossOrigin struct {
	spec        catalog.CORS
	routes, own *cors.Cors
}

// What requests to Weir have, and pages may read of its answers, without an API naming it.
var (
	ownHeaders = []string{ //nolint:gochecknoglobals // a constant list
		"Content-Type", "Content-Encoding", "Idempotency-Key", "Prefer", "If-None-Match", "If-Match", "If-Range", "Range", "Last-Event-ID",
		headerFeed, headerInput, "Cache-Control", "X-Request-Id", "Traceparent", "Tracestate",
	}
	ownExposed = []string{ //nolint:gochecknoglobals // a constant list
		"Location", "Operation-Location", "ETag", "Retry-After", "Preference-Applied", "RateLimit", "RateLimit-Policy", "X-Request-Id",
		"Accept", "Accept-Encoding", "Accept-Ranges", "Content-Range",
	}
	ownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} //nolint:gochecknoglobals // a constant list
)

func newCrossOrigin(spec *catalog.CORS) *crossOrigin {
	if spec == nil {
		return nil
	}
	of := func(methods []string) *cors.Cors {
		if slices.Contains(methods, http.MethodGet) { // a GET route answers HEAD too
			methods = append(slices.Clip(methods), http.MethodHead)
		}
		return cors.New(cors.Options{
			AllowedOrigins: spec.Origins, AllowedMethods: methods,
			AllowedHeaders: slices.Concat(ownHeaders, spec.Headers), ExposedHeaders: slices.Concat(ownExposed, spec.Expose),
			AllowCredentials: spec.Credentials, MaxAge: int(spec.MaxAge / time.Second),
		})
	}
	return &crossOrigin{spec: *spec, routes: of(spec.Methods), own: of(ownMethods)}
}

// allow sets the headers by which a browser lets the page of another origin use what it asked for, and reports whether
// the request was only to ask for that, and is answered. An API that has no cors says nothing, which means no.
func (t *table) allow(g *Gateway, w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(r.Header["Origin"]) == 0 {
		w.Header().Add("Vary", "Origin") // a cache must not give this answer to a page of another origin
		return false
	}
	ask := r.Header.Get("Access-Control-Request-Method")
	asks := r.Method == http.MethodOptions && ask != ""
	c := t.policy(g, r, ask, asks)
	if c == nil {
		w.Header().Add("Vary", "Origin")
		return false
	}
	c.HandlerFunc(w, r)
	return asks
}

// policy is that of the API whose route the request is for, or, of Weir's own paths and those that no route has, of the
// first API that allows the origin.
func (t *table) policy(g *Gateway, r *http.Request, ask string, asks bool) *cors.Cors {
	probe := r
	if asks {
		probe = &http.Request{Method: ask, URL: r.URL, Host: r.Host}
	}
	if !ownpath.Reserved(r.URL.Path) {
		route, _, _ := t.match(probe)
		switch {
		case route != nil && route.cors != nil:
			return route.cors.routes
		case route != nil, asks:
			return nil
		}
	} else if _, pattern := g.own.Handler(probe); asks && pattern == "" {
		return nil
	}
	var found *cors.Cors
	for _, c := range t.cors {
		switch {
		case !c.own.OriginAllowed(r):
		case !slices.Contains(c.spec.Origins, "*"):
			return c.own // it names the origin, and may allow more than one that names none
		case found == nil:
			found = c.own
		}
	}
	return found
}

// crossHeaders are what only one may say.
var crossHeaders = []string{ //nolint:gochecknoglobals // a constant list
	"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
	"Access-Control-Expose-Headers", "Access-Control-Max-Age",
}
