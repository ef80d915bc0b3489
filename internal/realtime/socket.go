package realtime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/problem"
)

const (
	maxSocketJobs   = 1000
	maxRequestBytes = 1 << 10
	// maxIdle is how long a socket for many jobs may watch none.
	maxIdle = 10 * time.Minute
	// pongTimeout is how long a client may take to answer a ping.
	pongTimeout = 10 * time.Second
)

// socket is one client's WebSocket (RFC 6455). An idle one costs one goroutine, run, which reads. Pending states are
// sent by a goroutine that lives only while there are some; the timer's goroutine pings and ends the connection.
type socket struct {
	s       *Server
	conn    *websocket.Conn
	updates updates
	sub     subscription // the updates, unless the socket is for a client's feed
	many    bool         // for jobs that the client names by messages

	ctx  context.Context // ends with the connection
	end  context.CancelFunc
	stop func() bool // stops waiting for the drain

	timer *time.Timer
	until time.Time // end of its lifetime

	mu      sync.Mutex
	sending bool
	more    bool // something arrived since the sender looked
	closed  bool
	jobs    map[string]*followed // with many: by the id's text
	idle    time.Time            // with many: since when no job is watched; zero while one is
	wg      sync.WaitGroup       // of senders and timers
}

// request is a message of the client of a socket for many jobs.
type request struct {
	Watch   string `json:"watch,omitempty"`   // an id
	After   string `json:"after,omitempty"`   // with watch: the version that the client has
	Unwatch string `json:"unwatch,omitempty"` // an id
}

// refusal answers a request that is refused.
type refusal struct {
	ID    string          `json:"id,omitempty"`
	Error problem.Problem `json:"error"`
}

// socket serves a WebSocket: for the job in the path, with the states after the version in the query, or for the jobs
// that the client names by messages.
func (s *Server) socket(w http.ResponseWriter, req *http.Request) {
	if !s.begin(w, false) {
		return
	}
	k := &socket{s: s, many: req.PathValue("id") == "", until: time.Now().Add(lifetime())}
	k.sub = subscription{s: s, wake: k.wake}
	k.updates = &k.sub
	var id job.ID
	var maxAge time.Duration
	if k.many {
		k.jobs, k.idle = map[string]*followed{}, time.Now()
	} else {
		var err error
		if id, maxAge, err = s.parse(req.PathValue("id")); err != nil {
			s.done()
			problem.UnknownJob().Write(w)
			return
		}
	}
	text, after := req.PathValue("id"), req.URL.Query().Get("after")
	s.serve(w, req, k, func() { //nolint:contextcheck // the connection outlives the request, with a context of its own
		if !k.many {
			k.sub.follow(k.sub.newJob(id, text, maxAge, after))
		}
	})
}

// feedSocket serves a WebSocket for all jobs of a feed.
func (s *Server) feedSocket(w http.ResponseWriter, req *http.Request) {
	if !s.begin(w, false) {
		return
	}
	k := &socket{s: s, until: time.Now().Add(lifetime())}
	f, err := s.newClientFeed(req.PathValue("id"), req.URL.Query().Get("after"), k.wake)
	if err != nil {
		s.done()
		refuseFeed(w, false, err)
		return
	}
	k.updates = f
	s.serve(w, req, k, func() { f.start(k.ctx) }) //nolint:contextcheck // as in socket
}

// serve runs a connection that begin has counted, until it ends. follow begins delivery.
func (s *Server) serve(w http.ResponseWriter, req *http.Request, k *socket, follow func()) {
	if p := handshake(req); p != nil {
		k.updates.close()
		s.done()
		if p.Status == http.StatusUpgradeRequired {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Sec-Websocket-Version", "13")
		}
		p.Write(w)
		return
	}
	// The id is the only credential that a job needs: a page of another origin that has been given one may use it.
	conn, err := websocket.Accept(frugal{w}, req, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{subprotocol}})
	if err != nil {
		k.updates.close()
		s.done()
		s.cfg.Log.Debug("no WebSocket", "error", err)
		return
	}
	conn.SetReadLimit(maxRequestBytes)
	k.conn = conn
	k.ctx, k.end = context.WithCancel(context.Background())
	// Not in this goroutine: it and the request would stay in memory for as long as the client does.
	begun := s.work.Go(func() {
		defer s.done()
		follow()
		k.run()
	})
	if !begun {
		k.updates.close()
		k.end()
		_ = conn.CloseNow()
		s.done()
	}
}

// subprotocol is the only one: what docs/contracts.md says of sockets. A client that names none speaks it too.
const subprotocol = "weir.v1"

// handshake says why a request can't become a WebSocket; nil if it can.
func handshake(req *http.Request) *problem.Problem {
	h := req.Header
	key, err := base64.StdEncoding.DecodeString(h.Get("Sec-Websocket-Key"))
	offered := tokens(h, "Sec-Websocket-Protocol")
	switch {
	case req.Method != http.MethodGet, !slices.Contains(tokens(h, "Connection"), "upgrade"), !slices.Contains(tokens(h, "Upgrade"), "websocket"), h.Get("Sec-Websocket-Version") != "13":
		return &problem.Problem{
			Status: http.StatusUpgradeRequired, Type: problem.NoWebSocket, Title: "This is a WebSocket",
			Detail: "Connect with a WebSocket client (RFC 6455, version 13), or use the link events.",
		}
	case err != nil || len(key) != 16 || len(h["Sec-Websocket-Key"]) != 1:
		return &problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Bad handshake", Detail: "Sec-WebSocket-Key must be 16 bytes in base64."}
	case len(offered) > 0 && !slices.Contains(offered, subprotocol):
		return &problem.Problem{
			Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Unknown subprotocol",
			Detail: "The only subprotocol is " + subprotocol + ". Offer it, or none.",
		}
	}
	return nil
}

// tokens are the members of a list field, in lower case.
func tokens(h http.Header, name string) []string {
	var out []string
	for _, line := range h[name] {
		for t := range strings.SplitSeq(line, ",") {
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}

// Buffers are most of an idle socket's memory: net/http's are 4 KiB each way.
const (
	readBuffer  = 256
	writeBuffer = 1 << 10 // most states fit
)

// frugal is an http.ResponseWriter whose connection has small buffers once it is hijacked.
type frugal struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (f frugal) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(f.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// Bytes that arrived after the request must be in the new buffer: the hijacker reads them there.
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), conn), max(readBuffer, len(early)))
	if _, err := r.Peek(len(early)); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, bufio.NewReadWriter(r, bufio.NewWriterSize(conn, writeBuffer)), nil
}

// run reads until the connection ends.
func (k *socket) run() {
	k.mu.Lock()
	k.timer = time.AfterFunc(job.LookAgain, func() { k.spawn(k.look) })
	k.mu.Unlock()
	k.stop = context.AfterFunc(k.s.drain, func() {
		k.spawn(func() {
			select {
			case <-time.After(rand.N(k.s.cfg.DrainSpread)):
				k.close(closeLife)
			case <-k.ctx.Done():
			}
		})
	})
	for {
		kind, message, err := k.conn.Read(k.ctx)
		if err != nil {
			break
		}
		if kind == websocket.MessageText && !utf8.Valid(message) { // RFC 6455, section 8.1
			_ = k.conn.Close(websocket.StatusInvalidFramePayloadData, "a text message must be UTF-8")
			break
		}
		if k.many && kind == websocket.MessageText {
			k.receive(message)
		}
	}
	k.mu.Lock()
	k.closed = true
	k.timer.Stop()
	k.mu.Unlock()
	k.stop()
	k.updates.close()
	k.end()
	k.wg.Wait()
	_ = k.conn.CloseNow()
}

// spawn runs f in this goroutine unless the socket is closed; run waits for it.
func (k *socket) spawn(f func()) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	k.wg.Add(1)
	k.mu.Unlock()
	defer k.wg.Done()
	f()
}

// look has the states read once more, soon after the start.
func (k *socket) look() {
	k.updates.lookAgain()
	k.again(k.ping)
}

// ping checks that the client is there, and closes a connection that was idle or has lasted for too long.
func (k *socket) ping() {
	k.mu.Lock()
	idle := k.many && !k.idle.IsZero() && time.Since(k.idle) > maxIdle
	k.mu.Unlock()
	switch {
	case idle:
		k.close(closeIdle)
		return
	case time.Now().After(k.until), k.updates.stale():
		k.close(closeLife)
		return
	}
	ctx, cancel := context.WithTimeout(k.ctx, pongTimeout)
	defer cancel()
	if err := k.conn.Ping(ctx); err != nil {
		k.end()
		return
	}
	k.updates.lookAgain() // in case an event of NATS was lost
	k.again(k.ping)
}

// again sets the timer, with jitter so that pings spread.
func (k *socket) again(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.timer = time.AfterFunc(pingEvery-rand.N(pingEvery/5), func() { k.spawn(f) })
	}
}

func (k *socket) close(c closing) {
	k.updates.close()
	_ = k.conn.Close(websocket.StatusCode(c.code), c.reason) // waits for the client's answer, for 5 s at most
	k.end()
}

// wake starts a sender unless one is running.
func (k *socket) wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
	case k.sending:
		k.more = true
	default:
		k.sending = true
		k.wg.Go(k.send)
	}
}

// send sends what is pending.
func (k *socket) send() {
	for {
		k.mu.Lock()
		k.more = false
		k.mu.Unlock()
		c := k.flush()
		if c != nil {
			k.close(*c)
		}
		k.mu.Lock()
		if !k.more || c != nil {
			k.sending = c != nil // nothing is sent after the end
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
	}
}

// flush sends what is pending and returns why the connection is to be closed then, nil if it stays open.
func (k *socket) flush() *closing {
	for {
		t, err := k.updates.next(k.ctx)
		switch {
		case errors.Is(err, errSlow):
			return &closeSlow
		case err != nil:
			return &closeAway
		case !t.any && !k.many && k.updates.ended():
			return &closeEnded
		case !t.any:
			return nil
		}
		if t.over != nil && k.many { // before the client learns of it, and may watch it again
			k.forget(t.over)
		}
		if t.doc != nil && !k.write(t.doc) {
			return nil // run gets the error too
		}
	}
}

func (k *socket) write(v any) bool {
	data, err := json.Marshal(v)
	if err == nil {
		ctx, cancel := context.WithTimeout(k.ctx, writeTimeout)
		defer cancel()
		err = k.conn.Write(ctx, websocket.MessageText, data)
	}
	if err != nil {
		k.end()
	}
	return err == nil
}

// receive handles a message of the client.
func (k *socket) receive(message []byte) {
	var r request
	if err := json.Unmarshal(message, &r); err != nil || (r.Watch == "") == (r.Unwatch == "") {
		k.write(refusal{Error: problem.Problem{
			Type: problem.BadRequest, Status: http.StatusBadRequest, Title: "Bad message",
			Detail: `A message must be like {"watch": ID}, {"watch": ID, "after": VERSION} or {"unwatch": ID}.`,
		}})
		return
	}
	if r.Unwatch != "" {
		k.unwatch(r.Unwatch)
		return
	}
	id, maxAge, err := k.s.parse(r.Watch)
	if err != nil {
		k.write(refusal{ID: r.Watch, Error: problem.UnknownJob()})
		return
	}
	k.mu.Lock()
	n, there := len(k.jobs), k.jobs[r.Watch] != nil
	k.mu.Unlock()
	switch {
	case there: // it is watched already: its states come anyway
	case n >= maxSocketJobs:
		k.write(refusal{ID: r.Watch, Error: problem.Problem{
			Type: problem.BadRequest, Status: http.StatusBadRequest, Title: "Too many jobs",
			Detail: fmt.Sprintf("One connection watches at most %d jobs. Unwatch some, or open another one.", maxSocketJobs),
		}})
	default:
		k.watch(id, r.Watch, maxAge, r.After)
	}
}

func (k *socket) watch(id job.ID, text string, maxAge time.Duration, after string) {
	j := k.sub.newJob(id, text, maxAge, after)
	k.mu.Lock()
	k.jobs[text], k.idle = j, time.Time{}
	k.mu.Unlock()
	k.sub.follow(j)
}

func (k *socket) unwatch(text string) {
	k.mu.Lock()
	j := k.jobs[text]
	k.mu.Unlock()
	if j != nil {
		k.forget(j)
	}
}

// forget ends the watch j, which another watch of the same job may have replaced.
func (k *socket) forget(j *followed) {
	k.mu.Lock()
	if k.jobs[j.text] == j {
		delete(k.jobs, j.text)
	}
	if len(k.jobs) == 0 && k.idle.IsZero() {
		k.idle = time.Now()
	}
	k.mu.Unlock()
	k.sub.leave(j)
}
