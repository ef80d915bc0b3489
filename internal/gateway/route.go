package gateway

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/mediatype"
)

// kind is where a route's requests go.
type kind int

const (
	toQueue    kind = iota + 1 // buffered writes, and jobs
	toFunction                 // synchronous calls
	toOwn                      // Weir's own paths
	toNothing                  // this process can't serve it
)

// route serves the requests of one route, or of one of Weir's own paths.
type route struct {
	g          *Gateway
	kind       kind
	spec       catalog.Route // zero for Weir's own paths
	source     string        // /apis/NAMESPACE/API/ROUTE: scope of idempotency keys and CloudEvents source
	method     string        // of the pattern
	pattern    string        // without the method: /orders/{id}
	spanName   string        // METHOD PATTERN
	apiName    string        // NAMESPACE/API; empty for Weir's own paths
	answers    *answers      // of all versions of it with this spec
	api        *bucket       // nil if not throttled
	bucket     *bucket       // the route's own; nil if not throttled
	maxBody    func(*http.Request) int64
	cors       *crossOrigin      // of the API; nil if pages of other origins may not use it
	media      []mediatype.Range // of bodies that it takes; none means all
	schema     lazySchema        // nil if there is none
	attributes []attribute
	wildcards  bool // attributes need the values of the path's wildcards

	held *atomic.Int64 // bytes charged by its requests, over all versions of it

	queue  catalog.Key   // toQueue
	maxAge time.Duration // of queue
	writer *writer       // of queue; nil if the queue is closed

	forward  http.Handler // toFunction
	unserved string       // toNothing: why
	own      jobapi.Route // toOwn
}
