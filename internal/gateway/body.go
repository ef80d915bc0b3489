package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
)

// Bounds of bodies in memory.
const (
	// maxBodiesBytes bounds the bodies in memory together; past it requests get 503.
	maxBodiesBytes = 128 << 20
	// firstRead is the memory that a body gets before any of it has arrived. It grows as the body arrives, so that a
	// client can't hold much of the budget by announcing a large body.
	firstRead = 16 << 10
	maxPooled = 64 << 10
)

// Why a body can't be read.
var (
	errBodyTooLarge = errors.New("gateway: body too large")
	errNoMemory     = errors.New("gateway: too many bodies in memory")
)

var bodies = sync.Pool{New: func() any { //nolint:gochecknoglobals // a pool of plain memory
	p := make([]byte, 0, 2<<10)
	return &p
}}

// readBody reads the whole body, unless the target reads it itself. The budget is charged for what has arrived, not
// for what was announced: TestBodiesAreChargedAsTheyCome guards it.
func (x *exchange) readBody() *problem.Problem {
	limit := x.maxBody(x.req)
	size := x.req.ContentLength
	switch {
	case limit == jobapi.Stream:
		return nil
	case size > limit && x.kind != toOwn, size > limit && limit > 0:
		return new(problemTooLarge(limit))
	case limit == 0, x.kind == toFunction && x.schema == nil, x.uploaded(), size == 0:
		return nil
	case x.schema != nil && !jsonMedia(x.req.Header):
		return &problem.Problem{
			Status: http.StatusUnsupportedMediaType, Type: problem.UnsupportedMedia, Title: "Unsupported media type",
			Detail: "This route takes JSON: send Content-Type: application/json.",
		}
	}
	p, _ := bodies.Get().(*[]byte)
	x.memory = p
	body, err := x.readAll((*p)[:0], size, limit)
	if *p = body; err != nil {
		return new(problemOfBody(err, limit))
	}
	x.body = body
	return nil
}

// readAll reads the body into p, charging the budget as it grows. size is the announced length, -1 if unknown.
func (x *exchange) readAll(p []byte, size, limit int64) ([]byte, error) {
	want := int64(firstRead)
	if size >= 0 {
		want = min(want, size)
	} else {
		want = min(want, int64(cap(p)))
	}
	for {
		if !x.charge(want) {
			return p, errNoMemory
		}
		if int64(cap(p)) < want {
			grown := make([]byte, len(p), want)
			copy(grown, p)
			p = grown
		}
		for int64(len(p)) < want {
			n, err := x.req.Body.Read(p[len(p):want])
			p = p[:len(p)+n]
			switch {
			case int64(len(p)) > limit: // even if it ends here
				return p, errBodyTooLarge
			case errors.Is(err, io.EOF) && size >= 0 && int64(len(p)) < size:
				return p, io.ErrUnexpectedEOF
			case errors.Is(err, io.EOF):
				x.charge(int64(len(p)))
				return p, nil
			case err != nil:
				return p, err
			}
		}
		switch {
		case want == size:
			return p, nil
		case size >= 0:
			want = min(2*want, size)
		default:
			want = min(2*want, limit+1) // one byte more shows that it is too large
		}
	}
}

// charge sets the exchange's share of the budget to n bytes; false means that the budget has too few left.
func (x *exchange) charge(n int64) bool {
	more := n - x.reserved
	if more > 0 && x.g.bodies.Add(more) > maxBodiesBytes {
		x.g.bodies.Add(-more)
		return false
	}
	if more < 0 {
		x.g.bodies.Add(more)
	}
	x.reserved = n
	return true
}

// release returns the body's memory. It is idempotent. A target calls it before a wait that no longer needs the body.
func (x *exchange) release() {
	x.charge(0)
	x.body = nil
	p := x.memory
	if x.memory = nil; p == nil || cap(*p) > maxPooled {
		return
	}
	if x.kind != toFunction { // a transport may still be reading a body that it was given
		*p = (*p)[:0]
		bodies.Put(p)
	}
}
