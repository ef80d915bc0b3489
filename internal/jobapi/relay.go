package jobapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Bounds of the way to realtime.
const (
	// realtimeTimeout bounds how long realtime may take to begin its answer.
	realtimeTimeout = 10 * time.Second
	// passedWriteTimeout is how long a client that listens may read nothing.
	passedWriteTimeout = 30 * time.Second
	// lingerTimeout is how long one side may stay when the other has ended.
	lingerTimeout = 5 * time.Second
	// partSpread is the time over which a draining gateway disconnects clients that listen. They reconnect to another
	// one, and resume where they were.
	partSpread    = 2 * time.Second
	passedAtOnce  = 8 << 10  // bytes
	maxAnswerHead = 16 << 10 // bytes of realtime's
	maxLinks      = 100_000  // clients
	resizeStep    = 500      // clients
)

// Relay passes clients that listen on to the service realtime, so that one address serves all that clients ask about
// jobs. A connection that stays costs two goroutines and no buffer: once the answer has begun, both sides are taken
// from HTTP, and bytes are passed as they come. An HTTP/2 stream can't be taken: it costs its handler and a buffer.
type Relay struct {
	address string // HOST:PORT
	log     *slog.Logger
	resized func(clients int64)
	work    lifecycle.Work // requests, and what has become of them

	count atomic.Int64 // requests and links

	mu    sync.Mutex
	links map[*link]struct{}
	ended bool
}

// NewRelay returns a relay to the service at target, an http URL. Run must be called. resized is told of how many clients
// there are, about every 500.
func NewRelay(target *url.URL, resized func(clients int64), log *slog.Logger) *Relay {
	port := target.Port()
	if port == "" {
		port = "80"
	}
	return &Relay{address: net.JoinHostPort(target.Hostname(), port), resized: resized, log: log, links: map[*link]struct{}{}}
}

// Run waits until ctx is cancelled, drains, and returns once the last client was disconnected.
func (r *Relay) Run(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	r.Drain()
	r.work.Wait()
	return nil
}

// Drain refuses new clients and disconnects those there are within partSpread. It doesn't block, and is idempotent.
func (r *Relay) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	for l := range r.links {
		time.AfterFunc(rand.N(partSpread), l.cut)
	}
}

// ServeHTTP implements http.Handler.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	done, ok := r.work.Begin()
	if !ok {
		refuseListener(w, req)
		return
	}
	l := &link{r: r, done: done, head: heads.Get().(*bufio.ReadWriter)} //nolint:forcetypeassert // it holds nothing else
	taken := false
	defer func() {
		l.head.Reader.Reset(nil)
		l.head.Writer.Reset(nil)
		heads.Put(l.head)
		l.head = nil
		if taken {
			l.start()
		} else {
			l.close()
		}
	}()
	if r.counted(1) > maxLinks || r.draining() {
		refuseListener(w, req)
		return
	}
	answer, err := l.ask(req) //nolint:bodyclose // the connection is closed
	if err != nil {
		if req.Context().Err() == nil {
			r.log.InfoContext(req.Context(), "realtime can't be reached", "error", err)
		}
		refuseListener(w, req)
		return
	}
	for name, values := range answer.Header {
		if !hopByHop(name) && name != problem.HeaderRequestID { // the gateway has set its own, which realtime was told
			w.Header()[name] = values
		}
	}
	switch {
	case answer.StatusCode == http.StatusSwitchingProtocols:
		err = l.upgrade(w)
	case endless(req, answer):
		err = l.stream(w)
	default:
		l.answer(w, req, answer)
		return
	}
	if taken = err == nil; !taken {
		r.log.DebugContext(req.Context(), "a client that listens was not passed on", "error", err)
	}
}

// endless reports whether the answer is a stream of events whose chunks the client can be sent as they are.
func endless(req *http.Request, answer *http.Response) bool {
	media, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	return err == nil && media == "text/event-stream" && answer.StatusCode == http.StatusOK && req.Method == http.MethodGet &&
		slices.Equal(answer.TransferEncoding, []string{"chunked"}) && Chunks(req)
}

// Chunks reports whether the client of a request whose connection can be taken from HTTP knows chunks. Their end tells a
// stream that has ended from one that was cut off.
func Chunks(req *http.Request) bool { return req.ProtoMajor == 1 && req.ProtoMinor >= 1 }

// hopByHop reports whether a header field is about one connection (RFC 9110, section 7.6.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Proxy-Authorization":
		return true
	}
	return false
}

// stayer is a TCP connection.
type stayer interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// link is a client and the connection to realtime that was opened for it.
type link struct {
	r          *Relay
	done       func()
	client, up stayer            // client is nil until it was taken from HTTP
	passing    atomic.Int32      // directions
	head       *bufio.ReadWriter // to and from realtime, until both connections are passed on
}

var heads = sync.Pool{New: func() any { //nolint:gochecknoglobals // a pool
	return bufio.NewReadWriter(bufio.NewReader(nil), bufio.NewWriter(nil))
}}

// ask sends the request to realtime.
func (l *link) ask(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), realtimeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", l.r.address)
	if err != nil {
		return nil, err
	}
	l.up = conn.(stayer) //nolint:forcetypeassert // a TCP connection
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	out := &http.Request{Method: req.Method, URL: &url.URL{Scheme: "http", Host: l.r.address, Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}, Header: http.Header{}}
	for name, values := range req.Header {
		if !hopByHop(name) && !named(req.Header, name) {
			out.Header[name] = values
		}
	}
	if sc := trace.SpanContextFromContext(req.Context()); sc.IsValid() { // the gateway's, whose child realtime's is
		out.Header.Set("Traceparent", telemetry.TraceParent(sc))
	}
	if up := req.Header["Upgrade"]; up != nil && named(req.Header, "Upgrade") {
		out.Header["Upgrade"] = up
		out.Header.Set("Connection", "Upgrade")
	} else {
		out.Close = true
	}
	l.head.Writer.Reset(conn)
	if err := errors.Join(out.Write(l.head.Writer), l.head.Flush()); err != nil {
		return nil, err
	}
	bounded := &io.LimitedReader{R: conn, N: maxAnswerHead}
	l.head.Reader.Reset(bounded)
	answer, err := http.ReadResponse(l.head.Reader, out)
	if err != nil {
		return nil, err
	}
	bounded.N = math.MaxInt64 // what follows has no bound
	switch upgraded := answer.StatusCode == http.StatusSwitchingProtocols; {
	case upgraded && (out.Close || req.ProtoMajor != 1), !upgraded && (answer.StatusCode < 200 || answer.StatusCode > 599):
		return nil, fmt.Errorf("its answer is %q", answer.Status)
	case !stop():
		return nil, context.Cause(ctx)
	}
	return answer, nil
}

// named reports whether the header Connection names the field.
func named(h http.Header, field string) bool {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(name), field) {
				return true
			}
		}
	}
	return false
}

// upgrade answers 101. What follows is to be passed on.
func (l *link) upgrade(w http.ResponseWriter) error {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	w.WriteHeader(http.StatusSwitchingProtocols)
	buf, err := l.take(w)
	if err != nil {
		return err
	}
	ahead, err := buf.Peek(buf.Reader.Buffered())
	if err == nil {
		_, err = l.up.Write(ahead)
	}
	if err != nil {
		return err
	}
	return l.begin(buf)
}

// stream answers 200. The events that follow are to be passed on.
func (l *link) stream(w http.ResponseWriter) error {
	buf, err := l.take(w)
	if err == nil {
		err = BeginTaken(buf.Writer, w.Header(), true)
	}
	if err != nil {
		return err
	}
	return l.begin(buf)
}

// BeginTaken writes the head of an answer 200 whose connection was taken from HTTP. Its body comes in chunks (RFC 9112,
// section 7.1), or ends with the connection.
func BeginTaken(w *bufio.Writer, h http.Header, chunks bool) error {
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if chunks {
		h.Set("Transfer-Encoding", "chunked")
	}
	_, err := w.WriteString("HTTP/1.1 200 OK\r\n")
	if err == nil {
		err = h.Write(w)
	}
	if err == nil {
		_, err = w.WriteString("\r\n")
	}
	return err
}

// take takes the client's connection from HTTP.
func (l *link) take(w http.ResponseWriter) (*bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	client, ok := conn.(stayer)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a connection of type %T can't be passed on", conn), conn.Close())
	}
	l.client = client
	return buf, nil
}

// begin sends the client what there is.
func (l *link) begin(buf *bufio.ReadWriter) error {
	if _, err := io.CopyN(buf.Writer, l.head, int64(l.head.Reader.Buffered())); err != nil { // what came with the head
		return err
	}
	if err := l.client.SetWriteDeadline(time.Now().Add(passedWriteTimeout)); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	if !l.r.add(l) {
		return errors.New("the gateway is stopping")
	}
	return nil
}

// start passes on what follows.
func (l *link) start() {
	l.passing.Store(2)
	go l.pass(l.up, l.client)
	go l.pass(l.client, l.up)
}

// answer passes an answer on while its request is served.
func (l *link) answer(w http.ResponseWriter, req *http.Request, answer *http.Response) {
	stop := context.AfterFunc(req.Context(), l.cut)
	defer stop()
	if answer.StatusCode == http.StatusUpgradeRequired {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
	}
	if !l.r.add(l) && answer.ContentLength < 0 {
		panic(http.ErrAbortHandler) // it would hold the drain up
	}
	w.WriteHeader(answer.StatusCode)
	rc := http.NewResponseController(w)
	buf := buffers.Get().(*[passedAtOnce]byte) //nolint:forcetypeassert // it holds nothing else
	defer buffers.Put(buf)
	for {
		n, err := answer.Body.Read(buf[:])
		if n > 0 {
			if werr := Push(w, rc, buf[:n], passedWriteTimeout); werr != nil {
				return // the client has gone
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			panic(http.ErrAbortHandler) // what the client has must not look whole
		}
	}
}

// Push writes a part of an answer and sends it at once. The client has as long as wait to take it.
func Push(w io.Writer, rc *http.ResponseController, part []byte, wait time.Duration) error {
	if err := rc.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := w.Write(part); err != nil {
		return err
	}
	if err := rc.Flush(); err != nil {
		return err
	}
	return rc.SetWriteDeadline(time.Time{}) // by HTTP/2 it would end a stream that nothing is written to
}

// pass passes bytes on until one side ends. Each end has the other side end soon, but not before it was heard out.
func (l *link) pass(to, from stayer) {
	err := passOn(to, from)
	var refused *writeError
	if !errors.As(err, &refused) {
		_ = to.CloseWrite()
	}
	_ = to.SetReadDeadline(time.Now().Add(lingerTimeout))
	if refused != nil {
		_ = passOn(nil, from) // bytes that nobody has read when a connection is closed cost its peer what is on its way
	}
	if l.passing.Add(-1) == 0 {
		l.close()
	}
}

// writeError is of writing, not of reading.
type writeError struct{ error }

var buffers = sync.Pool{New: func() any { return new([passedAtOnce]byte) }} //nolint:gochecknoglobals // a pool

// passOn passes bytes on, or drops them if to is nil, until an error: io.EOF if from has ended. It holds a buffer only while there are bytes, so it
// doesn't wait in Read; nor in splice, which takes a pipe for as long as it waits.
func passOn(to, from stayer) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	var buf *[passedAtOnce]byte
	var n int
	var rerr error
	read := func(fd uintptr) bool {
		buf = buffers.Get().(*[passedAtOnce]byte) //nolint:forcetypeassert // it holds nothing else
		for {
			if n, rerr = syscall.Read(int(fd), buf[:]); !errors.Is(rerr, syscall.EINTR) {
				break
			}
		}
		if errors.Is(rerr, syscall.EAGAIN) {
			buffers.Put(buf)
			return false
		}
		return true
	}
	for {
		if err := raw.Read(read); err != nil { // the deadline has passed, or from was closed: there is no buffer
			return err
		}
		err := rerr
		switch {
		case err != nil:
		case n <= 0:
			err = io.EOF
		case to != nil:
			werr := to.SetWriteDeadline(time.Now().Add(passedWriteTimeout))
			if werr == nil {
				_, werr = to.Write(buf[:n])
			}
			if werr != nil {
				err = &writeError{werr}
			}
		}
		buffers.Put(buf)
		if err != nil {
			return err
		}
	}
}

// add makes l one to be disconnected when the relay ends. It reports false if the relay is ending.
func (r *Relay) add(l *link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.links[l] = struct{}{}
	}
	return !r.ended
}

// counted counts clients, and returns how many there are.
func (r *Relay) counted(n int64) int64 {
	now := r.count.Add(n)
	if now%resizeStep == 0 {
		r.resized(now)
	}
	return now
}

func (r *Relay) draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// cut ends both sides' connections. What passes on ends then.
func (l *link) cut() {
	if l.up != nil {
		_ = l.up.Close()
	}
	if l.client != nil {
		_ = l.client.Close()
	}
}

// close ends the link. Nothing passes on any more.
func (l *link) close() {
	l.cut()
	l.r.mu.Lock()
	delete(l.r.links, l)
	l.r.mu.Unlock()
	l.r.counted(-1)
	l.done()
}

// refuseListener answers a client that can't listen now.
func refuseListener(w http.ResponseWriter, req *http.Request) {
	if strings.HasSuffix(req.URL.Path, "/events") {
		RefuseEvents(w, ComeBack(), "try again later")
		return
	}
	problem.NotNow("Events can't be had now", "The service that pushes events gave no answer. Try again, or poll the job.", time.Second).Write(w)
}
