package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/coding"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/pace"
	"github.com/weir-dev/weir/internal/problem"
)

// Bounds of bodies.
const (
	// maxBodiesBytes bounds the bodies in memory together, maxRouteBytes those of one route; past it requests get 503.
	maxBodiesBytes = 128 << 20
	maxRouteBytes  = maxBodiesBytes / 2
	// firstRead is the memory that a body gets before any of it has arrived. It grows as the body arrives, so that a
	// client can't hold much of the budget by announcing a large body.
	firstRead = 2 << 10
	maxPooled = 64 << 10
	// bodyGrace is how long a client may send nothing of a body, and minBodyRate what it has to send over all, in bytes a
	// second, once that is over.
	bodyGrace   = 10 * time.Second
	minBodyRate = 4 << 10
	// linger is how long a client that still sends has to read its answer until the connection is closed.
	linger = time.Second
	// atOnce is how long the rest of a body that has been sent already may take to come.
	atOnce = 5 * time.Millisecond
)

// Why a body can't be read.
var (
	errBodyTooLarge = errors.New("gateway: body too large")
	errNoMemory     = errors.New("gateway: too many bodies in memory")
)

// Pools of plain memory: bodies begin in a small piece, and go on in one that may have grown before.
var (
	small = sync.Pool{New: func() any { //nolint:gochecknoglobals // a pool
		p := make([]byte, 0, firstRead)
		return &p
	}}
	grown sync.Pool //nolint:gochecknoglobals // a pool
)

// readBody reads the whole body, unless the target reads it itself. The budget is charged for what has arrived, not
// for what was announced: TestBodiesAreChargedAsTheyCome guards it.
func (x *exchange) readBody() *problem.Problem {
	coded := x.coding()
	limit := x.maxBody(x.req)
	size := x.req.ContentLength
	switch {
	case coded != "" && (x.kind == toOwn && x.own.Class == jobapi.ClassObjects || !coding.Supports(coded)):
		return x.problemOfCoding()
	case limit == jobapi.Stream:
		return x.decodeStream(coded)
	case size > limit && x.kind != toOwn, size > limit && limit > 0:
		return new(problemTooLarge(limit))
	case limit == 0:
		x.spurn()
		return nil
	case x.kind == toFunction && x.schema == nil, x.uploaded(), size == 0:
		return nil
	case x.schema != nil && !jsonMedia(x.req.Header):
		return x.refuseNoJSON()
	}
	x.memory, _ = small.Get().(*[]byte)
	body, err := x.readAll(size, limit)
	if err == nil && coded != "" {
		body, err = x.decode(coded, body, limit)
	}
	if err != nil {
		return new(problemOfBody(err, limit))
	}
	x.body, x.read = body, true
	return nil
}

// coding is how the body is coded; empty if it isn't, or that is the function's business.
func (x *exchange) coding() string {
	if len(x.req.Header["Content-Encoding"]) == 0 || x.kind == toFunction && x.schema == nil || x.uploaded() {
		return ""
	}
	return coding.Of(x.req.Header)
}

// problemOfCoding is 415 with Accept-Encoding (RFC 9110, section 15.5.16).
func (x *exchange) problemOfCoding() *problem.Problem {
	accepted := coding.Supported
	if x.kind == toOwn && x.own.Class == jobapi.ClassObjects {
		accepted = "identity" // an object is stored as it comes, in the size that was given with its URL
	}
	x.w.Header().Set("Accept-Encoding", accepted)
	return &problem.Problem{
		Status: http.StatusUnsupportedMediaType, Type: problem.UnsupportedMedia, Title: "Unsupported content coding",
		Detail: "Content-Encoding must be one of: " + accepted + "; or send the body as it is.",
	}
}

// decodeStream lets the target, which reads the body itself, read it decoded.
func (x *exchange) decodeStream(coded string) *problem.Problem {
	if coded == "" {
		return nil
	}
	r, err := coding.NewReader(coded, x.req.Body)
	if err != nil {
		return x.problemOfCoding()
	}
	x.req.Body, x.req.ContentLength = r, -1
	x.req.Header.Del("Content-Encoding")
	return nil
}

// decode replaces a coded body by what it holds. Both are charged while it is at work.
func (x *exchange) decode(coded string, body []byte, limit int64) ([]byte, error) {
	if !x.charge(int64(cap(body)) + limit + coding.Memory(coded)) {
		return nil, errNoMemory
	}
	out, err := coding.Decode(coded, body, limit)
	x.recycle()
	switch {
	case errors.Is(err, coding.ErrTooLarge):
		return nil, errBodyTooLarge
	case err != nil:
		return nil, err
	}
	x.charge(int64(cap(out)))
	x.req.Header.Del("Content-Encoding")
	x.req.Header.Del("Content-Length")
	x.req.ContentLength = int64(len(out))
	return out, nil
}

// readAll reads the body into x.memory, charging the budget as it grows. size is the announced length, -1 if unknown.
func (x *exchange) readAll(size, limit int64) ([]byte, error) {
	p := (*x.memory)[:0]
	defer func() { *x.memory = p }()
	whole := size // as far as it may be read
	if size < 0 {
		whole = limit + 1 // one byte more shows that it is too large
	}
	var from io.Reader = x.req.Body // what has come with the head, usually all, needs no pace
	var paced *pacedBody
	for {
		if !x.charge(int64(cap(p))) {
			return p, errNoMemory
		}
		want := min(int64(cap(p)), whole)
		for int64(len(p)) < want {
			n, err := from.Read(p[len(p):want])
			p = p[:len(p)+n]
			switch {
			case int64(len(p)) > limit: // even if it ends here
				return p, errBodyTooLarge
			case errors.Is(err, io.EOF) && size >= 0 && int64(len(p)) < size:
				return p, io.ErrUnexpectedEOF
			case errors.Is(err, io.EOF):
				return p, nil
			case err != nil:
				return p, err
			case paced == nil && (size < 0 || int64(len(p)) < size):
				paced = x.paced()
				paced.pace.Bytes = int64(n)
				from = paced
			}
		}
		if int64(len(p)) == size {
			return p, nil
		}
		q := x.grow(p, min(2*int64(cap(p)), whole))
		if q == nil {
			return p, errNoMemory
		}
		p = q
	}
}

// grow returns p in a piece of memory of at least want bytes, nil if the budget has none left. It gives back the smaller
// one.
func (x *exchange) grow(p []byte, want int64) []byte {
	next, _ := grown.Get().(*[]byte)
	if next == nil || int64(cap(*next)) < want {
		fresh := make([]byte, 0, want)
		next = &fresh
	}
	if !x.charge(int64(cap(p) + cap(*next))) {
		return nil
	}
	q := append((*next)[:0], p...)
	*x.memory = p
	x.recycle()
	x.memory = next
	return q
}

// paced is the rest of the body, whose client must keep pace.
func (x *exchange) paced() *pacedBody {
	return &pacedBody{
		ReadCloser: x.req.Body, rc: http.NewResponseController(x.w),
		pace: pace.Pace{Start: x.now, Grace: bodyGrace, Rate: minBodyRate},
	}
}

// pacedBody is a body whose reads fail with os.ErrDeadlineExceeded when the client is too slow, or once abort was called.
// After its end no deadline is left, and none is set any more: net/http reads on then, to see whether the client is there,
// and a deadline that passes would end this request, and each later one of the connection.
type pacedBody struct {
	io.ReadCloser
	pace pace.Pace

	mu    sync.Mutex // a transport may still read when the request is over, whose connection is the next one's then
	rc    *http.ResponseController
	done  bool  // nothing more is to be read: its end has come, or Close
	ended error // why no further read begins; nil if one may

	reading sync.Mutex // held while one goes on
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	b.reading.Lock() // before it is asked whether one may begin
	defer b.reading.Unlock()
	if err := b.begin(); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	b.pace.Bytes += int64(n)
	if errors.Is(err, io.EOF) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.done {
			b.done = true
			if derr := b.rc.SetReadDeadline(time.Time{}); derr != nil {
				return n, derr
			}
		}
	}
	return n, err
}

// begin sets the deadline of the next read.
func (b *pacedBody) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended != nil || b.done {
		return b.ended
	}
	return b.rc.SetReadDeadline(b.pace.Deadline())
}

// abort ends a read that waits for the client, and those to come.
func (b *pacedBody) abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.done {
		b.ended = os.ErrDeadlineExceeded
		_ = b.rc.SetReadDeadline(time.Now())
	}
}

// whole reports whether all of it has come.
func (b *pacedBody) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done && b.ended == nil
}

// Close ends the Read that goes on, waits for its end, and allows none to come: net/http takes the connection over when
// the handler has returned, and panics if somebody still reads. It closes the body itself.
func (b *pacedBody) Close() error {
	b.mu.Lock()
	first := !b.done
	if first {
		b.done, b.ended = true, http.ErrBodyReadAfterClose
		_ = b.rc.SetReadDeadline(time.Now())
	}
	b.mu.Unlock()
	b.reading.Lock()
	defer b.reading.Unlock()
	if first { // net/http reads some of the rest before it closes the connection
		_ = b.rc.SetReadDeadline(time.Now().Add(linger))
	}
	return nil
}

// unhurried takes away the deadline of the request's head and body, of which all has come: it would end the request
// while its target is at work.
func (x *exchange) unhurried() {
	if err := http.NewResponseController(x.w).SetReadDeadline(time.Time{}); err != nil {
		x.g.cfg.Log.DebugContext(x.ctx(), "a connection's read deadline stays", "error", err)
	}
}

// leave answers by p while part of the body may still have to come. What has come already is read, so that the client can
// use its connection again; else it gets the answer at once, and the connection, or its stream, is closed once it had the
// time to read it.
func (x *exchange) leave(p problem.Problem) {
	if x.req.Header.Get("Expect") != "" { // reading would ask for the body; net/http closes the connection
		p.Write(x.w)
		return
	}
	if _, whole := x.drain(atOnce); whole || streams(x.req) {
		p.Write(x.w)
		return
	}
	x.dontWait()
	p.Write(x.w)
	_ = http.NewResponseController(x.w).Flush()
	x.drain(linger) // closing a connection on which bytes arrive can cost its client the answer
}

// spurn has a body that nobody wants hold up nothing.
func (x *exchange) spurn() {
	switch {
	case x.req.ContentLength == 0, x.req.Header.Get("Expect") != "":
		return
	case streams(x.req):
		_ = x.req.Body.Close() // what comes of it is dropped
		return
	}
	if _, whole := x.drain(atOnce); whole {
		x.req.Body = http.NoBody
		return
	}
	x.dontWait()
	x.spurned = newAnswer(x.w)
	x.w = x.spurned
}

// forgetBody has net/http close the connection of a body that is wanted by nobody, instead of reading it.
func (x *exchange) forgetBody() {
	if x.spurned != nil && !x.spurned.taken {
		_ = x.spurned.rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// dontWait has net/http answer before it has the body, and close the connection after that.
func (x *exchange) dontWait() {
	x.w.Header().Set("Connection", "close")
	_ = http.NewResponseController(x.w).EnableFullDuplex() // HTTP/2 needs none
}

// drain drops what comes of the body within d. It returns how much that was, and whether it was the whole rest.
func (x *exchange) drain(d time.Duration) (n int64, whole bool) {
	const most = 256 << 10
	rc := http.NewResponseController(x.w)
	if err := rc.SetReadDeadline(time.Now().Add(d)); err != nil {
		return 0, false
	}
	n, err := io.CopyN(io.Discard, x.req.Body, most)
	if !errors.Is(err, io.EOF) {
		return n, false
	}
	_ = rc.SetReadDeadline(time.Time{}) // as in pacedBody
	return n, true
}

// charge sets the exchange's share of the budget to n bytes; false means that the budget, or the route's share of it, has
// too few left.
func (x *exchange) charge(n int64) bool {
	more := n - x.reserved
	if more == 0 {
		return true
	}
	all, own := x.g.bodies.Add(more), x.held.Add(more)
	if more > 0 && (all > maxBodiesBytes || own > maxRouteBytes) {
		x.g.bodies.Add(-more)
		x.held.Add(-more)
		return false
	}
	x.reserved = n
	return true
}

// release returns the body's memory. It is idempotent. A target calls it before a wait that no longer needs the body.
func (x *exchange) release() {
	x.charge(0)
	x.body = nil
	x.recycle()
}

// recycle gives the body's memory to the pool. It is idempotent.
func (x *exchange) recycle() {
	p := x.memory
	x.memory = nil
	if p == nil || cap(*p) > maxPooled || x.kind == toFunction { // a transport may still be reading a body that it was given
		return
	}
	pool := &grown
	if cap(*p) == firstRead {
		pool = &small
	}
	*p = (*p)[:0]
	pool.Put(p)
}
