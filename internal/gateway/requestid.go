package gateway

import (
	"net/http"

	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
)

const maxRequestID = 128

// identify gives the answer the client's X-Request-Id, if that is fit to be logged and repeated. Without one an API's
// target gives it another: a record has one already.
func (x *exchange) identify() {
	if lines := x.req.Header[problem.HeaderRequestID]; len(lines) > 0 && validRequestID(lines[0]) {
		x.w.Header()[problem.HeaderRequestID] = lines[:1:1]
	} else if x.route != nil && x.kind == toOwn {
		ensureRequestID(x.w.Header())
	}
}

func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return false
		}
	}
	return true
}

// ensureRequestID makes an id for an answer that has none, and returns it.
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
