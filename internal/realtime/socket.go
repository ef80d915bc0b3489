package realtime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	// closeTimeout is how long a client may take to answer the close frame.
	closeTimeout = 5 * time.Second
)

// socket is a client's WebSocket (RFC 6455).
type socket struct {
	*listener
	conn *websocket.Conn
	out  *paced
	sub  subscription // the updates, unless the socket is for a client's feed
	many bool         // for jobs that the client names by messages

	mu    sync.Mutex
	jobs  map[string]*followed // with many: by the id's text
	since time.Time            // with many: since when no job is watched; zero while one is
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
	l, ok := s.begin(w, bySocket)
	if !ok {
		return
	}
	k := &socket{listener: l, many: req.PathValue("id") == ""}
	k.sub = subscription{s: s, wake: k.wake, open: k.many}
	k.wire, k.updates = k, &k.sub
	var id job.ID
	var maxAge time.Duration
	if k.many {
		k.jobs, k.since = map[string]*followed{}, time.Now()
	} else {
		var err error
		if id, maxAge, err = s.parse(req.PathValue("id")); err != nil {
			k.refused()
			problem.UnknownJob().Write(w)
			return
		}
	}
	text, after := req.PathValue("id"), req.URL.Query().Get("after")
	k.resumed = after != ""
	k.accept(w, req, func() { //nolint:contextcheck // what is shown is for all followers
		if !k.many {
			k.sub.follow(k.sub.newJob(id, text, maxAge, after))
		}
	})
}

// feedSocket serves a WebSocket for all jobs of a feed.
func (s *Server) feedSocket(w http.ResponseWriter, req *http.Request) {
	l, ok := s.begin(w, bySocket)
	if !ok {
		return
	}
	k := &socket{listener: l}
	after := req.URL.Query().Get("after")
	k.resumed = after != ""
	f, err := s.newClientFeed(req.PathValue("id"), after, k.wake)
	if err != nil {
		k.refused()
		refuseFeed(w, false, err)
		return
	}
	k.wire, k.updates = k, f
	k.accept(w, req, func() { f.start(k.ctx) })
}

// accept makes a connection that begin has counted a WebSocket. follow begins delivery.
func (k *socket) accept(w http.ResponseWriter, req *http.Request, follow func()) {
	if p := handshake(req); p != nil {
		k.refused()
		if p.Status == http.StatusUpgradeRequired {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Sec-Websocket-Version", "13")
		}
		p.Write(w)
		return
	}
	// The id is the only credential that a job needs: a page of another origin that has been given one may use it.
	front := &frugal{ResponseWriter: w}
	conn, err := websocket.Accept(front, req, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{subprotocol}})
	if err != nil {
		k.refused()
		k.s.cfg.Log.Debug("no WebSocket", "error", err)
		return
	}
	conn.SetReadLimit(maxRequestBytes)
	k.conn, k.out = conn, front.out
	go k.serve(follow) // not in this goroutine: it and the request would stay in memory for as long as the client does
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
	writeBuffer = 256 // of control frames: the library writes nothing else, each in one piece
)

// frugal is an http.ResponseWriter whose connection has small buffers once it is hijacked.
type frugal struct {
	http.ResponseWriter
	out *paced // the connection
}

// Hijack implements http.Hijacker.
func (f *frugal) Hijack() (net.Conn, *bufio.ReadWriter, error) {
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
	if f.out, err = newPaced(conn); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return f.out, bufio.NewReadWriter(r, bufio.NewWriterSize(f.out, writeBuffer)), nil
}

// read implements wire.
func (k *socket) read() {
	for {
		kind, message, err := k.conn.Read(k.ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageText && !utf8.Valid(message) { // RFC 6455, section 8.1
			_ = k.conn.Close(websocket.StatusInvalidFramePayloadData, "a text message must be UTF-8")
			return
		}
		if k.many && kind == websocket.MessageText {
			k.receive(message)
		}
	}
}

// idle implements wire.
func (k *socket) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.many && !k.since.IsZero() && time.Since(k.since) > maxIdle
}

// beat implements wire.
func (k *socket) beat() error {
	ctx, cancel := context.WithTimeout(k.ctx, pongTimeout)
	defer cancel()
	return k.conn.Ping(ctx)
}

// last implements wire. The client's answer ends read.
func (k *socket) last() error {
	if err := k.out.last(closeFrame(closeEnded)); err != nil {
		return err
	}
	return k.out.SetReadDeadline(time.Now().Add(closeTimeout))
}

// bye implements wire.
func (k *socket) bye(c closing) {
	_ = k.conn.Close(websocket.StatusCode(c.code), c.reason) // waits for the client's answer, for 5 s at most
}

// cut implements wire.
func (k *socket) cut() {
	k.end()
	_ = k.out.Close() // the library waits for its own end
	_ = k.conn.CloseNow()
}

// state implements wire.
func (k *socket) state(t told, wait bool) error {
	if t.over != nil && k.many { // before the client learns of it, and may watch it again
		k.forget(t.over)
	}
	if t.doc == nil {
		return nil
	}
	return k.out.write(t.doc.framed(), wait)
}

// finish implements wire.
func (k *socket) finish() error { return k.out.write(nil, true) }

// The first bytes of whole messages.
const (
	textOpcode  = 0x81
	closeOpcode = 0x88
)

// frame is an unfragmented text message of a server (RFC 6455, section 5.2).
func frame(text []byte) []byte {
	b := make([]byte, 0, len(text)+10)
	switch n := len(text); {
	case n < 126:
		b = append(b, textOpcode, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, textOpcode, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, textOpcode, 127), uint64(n))
	}
	return append(b, text...)
}

// closeFrame is a close frame of a server (RFC 6455, section 5.5.1).
func closeFrame(c closing) []byte {
	b := binary.BigEndian.AppendUint16([]byte{closeOpcode, byte(2 + len(c.reason))}, uint16(c.code))
	return append(b, c.reason...)
}

// say sends a message of another kind.
func (k *socket) say(v any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = k.out.write(frame(data), true)
	}
	if err != nil {
		k.cut()
	}
}

// receive handles a message of the client.
func (k *socket) receive(message []byte) {
	var r request
	if err := json.Unmarshal(message, &r); err != nil || (r.Watch == "") == (r.Unwatch == "") {
		k.say(refusal{Error: problem.Problem{
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
		k.say(refusal{ID: r.Watch, Error: problem.UnknownJob()})
		return
	}
	k.mu.Lock()
	n, there := len(k.jobs), k.jobs[r.Watch] != nil
	k.mu.Unlock()
	switch {
	case there: // it is watched already: its states come anyway
	case n >= maxSocketJobs:
		k.say(refusal{ID: r.Watch, Error: problem.Problem{
			Type: problem.BadRequest, Status: http.StatusBadRequest, Title: "Too many jobs",
			Detail: fmt.Sprintf("One connection watches at most %d jobs. Unwatch some, or open another one.", maxSocketJobs),
		}})
	default:
		if r.After != "" {
			k.resumes()
		}
		k.watch(id, r.Watch, maxAge, r.After)
	}
}

func (k *socket) watch(id job.ID, text string, maxAge time.Duration, after string) {
	j := k.sub.newJob(id, text, maxAge, after)
	k.mu.Lock()
	k.jobs[text], k.since = j, time.Time{}
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
	if len(k.jobs) == 0 && k.since.IsZero() {
		k.since = time.Now()
	}
	k.mu.Unlock()
	k.sub.leave(j)
}
