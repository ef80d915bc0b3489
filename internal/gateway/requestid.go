package gateway

import (
	"net/http"

	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
)

// identify sets the answer's X-Request-Id to the client's, if that is safe to log and to echo. Without one, Weir's own
// paths get an id here; an API's target sets it later, as a record has an id already.
func (x *exchange) identify() {
	if lines := x.req.Header[problem.HeaderRequestID]; len(lines) > 0 && problem.ValidRequestID(lines[0]) {
		x.w.Header()[problem.HeaderRequestID] = lines[:1:1]
	} else if x.route != nil && x.kind == toOwn {
		ensureRequestID(x.w.Header())
	}
}

// ensureRequestID returns the answer's request id, and makes one if there is none.
func ensureRequestID(h http.Header) string {
	if ids := h[problem.HeaderRequestID]; len(ids) > 0 {
		return ids[0]
	}
	id, err := record.NewID()
	if err != nil {
		return "" // no randomness: the request is still served
	}
	h[problem.HeaderRequestID] = []string{id.String()}
	return id.String()
}
