package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
)

// exchange is one request on its way through the steps that all requests take, to routes of APIs and to Weir's own
// paths alike, in this order. A step is a file; it returns a problem, or nil to go on.
//
//  1. requestid.go  which name has it in logs and answers
//  2. throttle.go   has its route, and its API, a token left
//  3. media.go      is its body of a media type that the route takes
//  4. body.go       is its body within its bounds, and is there memory for it
//  5. validate.go   does the body match the route's schema
//  6. the target: buffered.go, job.go, synchronous.go, or one of Weir's own paths (own.go)
type exchange struct {
	w    http.ResponseWriter
	req  *http.Request
	seen *observation
	now  time.Time
	*route

	body     []byte
	read     bool    // the whole body has come
	memory   *[]byte // pooled memory of body; nil if none
	spurned  *answer // over w, if the request's body is wanted by nobody and still to come
	reserved int64   // bytes charged to the gateway's budget
}

// ctx is the request's context, with its span. It is made when it is asked for: most requests need none.
func (x *exchange) ctx() context.Context { return x.seen.Context() }

// serve takes the request through the steps.
func (r *route) serve(w http.ResponseWriter, req *http.Request) {
	if r.long() && !streams(req) {
		a := newAnswer(w)
		defer a.end()
		w = a
	}
	seen := observationOf(w)
	seen.route = r
	x := exchange{w: w, req: req, seen: seen, now: seen.start, route: r}
	x.identify()
	p := x.throttle() //nolint:contextcheck // metrics need none
	x.trace(p != nil)
	if p == nil {
		p = x.open()
	}
	if p == nil {
		p = x.checkMedia()
	}
	if p == nil {
		p = x.readBody()
	}
	defer x.release()
	defer x.forgetBody()
	if p == nil {
		p = x.validate()
	}
	if p == nil {
		p = x.deliver() //nolint:contextcheck // each target uses the request's
	}
	if p != nil {
		x.release() // the answer may take a while
		x.refuse(*p)
	}
}

// long reports whether answers may be long. Objects, and what is told to those who listen, have paces of their own.
func (r *route) long() bool {
	return r.kind == toFunction || r.kind == toOwn && r.own.Class != jobapi.ClassObjects && r.own.Class != jobapi.ClassListen
}

// open refuses a request that the route can't serve now.
func (x *exchange) open() *problem.Problem {
	switch {
	case x.kind == toNothing:
		return new(problemNotServed(x.unserved))
	case x.kind == toQueue && x.writer == nil:
		return new(problemQueueClosed())
	case x.schema != nil: // before its body is read
		if _, err := x.schema(); err != nil {
			return new(problemNotServed(err.Error()))
		}
	}
	return nil
}

// deliver hands the request to the route's target. A problem that it returns is the answer; nil means that it has
// answered.
func (x *exchange) deliver() *problem.Problem {
	if x.read || x.req.ContentLength == 0 {
		x.unhurried()
	}
	switch {
	case x.kind == toOwn:
		req := x.req
		if x.seen.span != nil {
			req = req.WithContext(x.ctx())
		}
		x.own.Serve(x.w, req, x.body)
		return nil
	case x.kind == toFunction:
		x.synchronous()
		return nil
	case x.spec.Job == nil:
		return x.buffered()
	case x.uploaded():
		return x.jobOfUpload()
	default:
		return x.job(nil)
	}
}

func (x *exchange) refuse(p problem.Problem) {
	ensureRequestID(x.w.Header())
	if x.read || x.req.ContentLength == 0 || x.req.Body == nil || x.req.Body == http.NoBody {
		p.Write(x.w)
		return
	}
	x.leave(p)
}
