package realtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
)

const (
	// maxEventJobs bounds the jobs of one stream of events: their ids are in its address.
	maxEventJobs = 64
	// maxUnasked bounds what a client may send once its stream of events has begun, in bytes: it has nothing to say.
	maxUnasked = 64 << 10
)

// events streams the states of a job, or of those that the query names, as Server-Sent Events (WHATWG HTML, section
// 9.2). The id of each event holds the versions that the client has then, in the order of the jobs, so that it resumes
// by Last-Event-ID. The stream ends with the last job; a client that reconnects then gets 204, which ends an
// EventSource.
func (s *Server) events(w http.ResponseWriter, req *http.Request) {
	l, ok := s.begin(w, byEvents)
	if !ok {
		return
	}
	texts := req.URL.Query()["id"]
	if one := req.PathValue("id"); one != "" {
		texts = []string{one}
	}
	if len(texts) == 0 || len(texts) > maxEventJobs {
		l.refused()
		problem.Problem{
			Type: problem.BadRequest, Status: http.StatusBadRequest, Title: "Which jobs?",
			Detail: fmt.Sprintf("The query must name 1 to %d jobs, as in ?id=A&id=B, not %d. A WebSocket takes more.", maxEventJobs, len(texts)),
		}.Write(w)
		return
	}
	f := &subscription{s: s, wake: l.wake}
	l.updates = f
	jobs := make([]*followed, len(texts))
	id := jobapi.EventID(req)
	l.resumed = id != ""
	have := strings.Split(id, ",")
	for i, text := range texts {
		id, maxAge, err := s.parse(text)
		if err != nil {
			l.refused()
			problem.UnknownJob().Write(w)
			return
		}
		after := ""
		if len(have) == len(texts) {
			after = have[i]
		}
		jobs[i] = f.newJob(id, text, maxAge, after)
	}
	l.stream(w, req, func() { //nolint:contextcheck // what is shown is for all followers
		for _, j := range jobs {
			f.follow(j)
		}
	})
}

// feedEvents streams the states of all jobs of a feed. It has no end of its own.
func (s *Server) feedEvents(w http.ResponseWriter, req *http.Request) {
	l, ok := s.begin(w, byEvents)
	if !ok {
		return
	}
	f, err := s.newClientFeed(req.PathValue("id"), jobapi.EventID(req), l.wake)
	if err != nil {
		l.refused()
		refuseFeed(w, true, err)
		return
	}
	l.updates, l.resumed = f, jobapi.EventID(req) != ""
	l.stream(w, req, func() { f.start(l.ctx) })
}

// stream answers with a stream of events. follow begins delivery.
func (l *listener) stream(w http.ResponseWriter, req *http.Request, follow func()) {
	if req.Method == http.MethodHead { // its answer has no body that could end
		jobapi.BeginEvents(w.Header())
		w.WriteHeader(http.StatusOK)
		l.refused()
		return
	}
	l.sending = true // by this goroutine, until it is known how to answer
	follow()
	first, err := l.first(req.Context())
	switch {
	case err != nil: // NATS is unavailable; a client that reconnects gets the state then
		jobapi.RefuseEvents(w, jobapi.ComeBack(), closeAway.reason)
		l.refused()
		return
	case !first.any && l.updates.ended(): // the client has it all
		w.WriteHeader(http.StatusNoContent)
		l.refused()
		return
	}
	e := &eventStream{listener: l, chunks: jobapi.Chunks(req)}
	l.wire = e
	jobapi.BeginEvents(w.Header())
	l.wg.Add(1)
	again := func() { go l.send() } // something may have come meanwhile
	conn, buf, err := http.NewResponseController(w).Hijack()
	switch {
	case errors.Is(err, errors.ErrUnsupported): // HTTP/2
		e.chunks = false
		ctx, cancel := context.WithCancel(req.Context())
		defer cancel()
		e.conn = &response{w: w, ctx: ctx, cancel: cancel}
		if err = e.begin(first); err == nil {
			l.serve(again)
			return
		}
	case err == nil:
		if err = e.take(conn, buf, w.Header(), first); err == nil {
			go l.serve(again) // not in this goroutine: it and the request would stay in memory for as long as the client does
			return
		}
		_ = conn.Close()
	}
	l.wg.Done()
	l.s.cfg.Log.Debug("no stream of events", "error", err)
	l.refused()
}

// take begins the answer on a connection that was taken from HTTP.
func (e *eventStream) take(conn net.Conn, buf *bufio.ReadWriter, h http.Header, first told) error {
	out, err := newPaced(conn)
	if err == nil {
		e.conn = out
		err = jobapi.BeginTaken(buf.Writer, h, e.chunks)
	}
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = e.begin(first)
	}
	return err
}

// first takes the first state to send.
func (l *listener) first(ctx context.Context) (told, error) {
	for {
		t, err := l.updates.next(ctx)
		if err != nil || !t.any || t.doc != nil {
			return t, err
		}
	}
}

// eventStream is a client's stream of Server-Sent Events.
type eventStream struct {
	*listener
	conn   eventConn
	chunks bool // of HTTP/1.1
}

// eventConn is a connection whose client has the headers of its answer.
type eventConn interface {
	io.Reader
	io.Closer
	// write sends text. If it may not wait, the error is errWait when not all could be sent at once, and the next call
	// sends the rest first.
	write(text []byte, wait bool) error
}

// begin sends what comes first.
func (e *eventStream) begin(first told) error {
	if err := e.say([]byte(jobapi.RetryLine(jobapi.ComeBack())), true); err != nil || !first.any {
		return err
	}
	err := e.state(first, true)
	e.counted(first, err)
	return err
}

// read implements wire: a client has nothing to say.
func (e *eventStream) read() {
	var buf [64]byte
	for n := 0; n < maxUnasked; {
		m, err := e.conn.Read(buf[:])
		if err != nil {
			return
		}
		n += m
	}
}

// state implements wire.
func (e *eventStream) state(t told, wait bool) error {
	if t.doc == nil {
		return nil
	}
	at := t.at
	text := make([]byte, 0, len(at)+len(t.doc.text)+32)
	text = append(append(append(text, "event: state\nid: "...), at...), "\ndata: "...)
	text = append(append(text, t.doc.text...), "\n\n"...)
	return e.say(text, wait)
}

// say sends text.
func (e *eventStream) say(text []byte, wait bool) error {
	if e.chunks {
		chunk := strconv.AppendInt(make([]byte, 0, len(text)+12), int64(len(text)), 16)
		text = append(append(append(chunk, "\r\n"...), text...), "\r\n"...)
	}
	return e.conn.write(text, wait)
}

// ended is what follows the last chunk.
func (e *eventStream) ended() []byte {
	if e.chunks {
		return []byte("0\r\n\r\n")
	}
	return nil
}

// finish implements wire.
func (e *eventStream) finish() error { return e.conn.write(nil, true) }

// beat implements wire. An empty line would end an event.
func (e *eventStream) beat() error { return e.say([]byte(": ping\n"), true) }

// idle implements wire: a stream lasts no longer than its jobs or its feed.
func (e *eventStream) idle() bool { return false }

// last implements wire: the stream ends with its connection.
func (e *eventStream) last() error {
	if err := e.conn.write(nil, false); err != nil {
		return err
	}
	_ = e.conn.write(e.ended(), false) // a client without it comes back, and gets 204
	e.cut()
	return nil
}

// bye implements wire.
func (e *eventStream) bye(c closing) {
	if c != closeEnded {
		_ = e.say([]byte(jobapi.CloseEvent(c.code, c.reason)), true)
	}
	_ = e.conn.write(e.ended(), true)
}

// cut implements wire.
func (e *eventStream) cut() {
	e.end()
	_ = e.conn.Close()
}

// response is an answer whose connection can't be taken from HTTP.
type response struct {
	w      http.ResponseWriter
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex // held by who writes
	late struct {   // what is to be written before anything else
		mu   sync.Mutex
		text []byte
	}
}

// Read waits for the end of the request.
func (r *response) Read([]byte) (int, error) {
	<-r.ctx.Done()
	return 0, io.EOF
}

// write implements eventConn: whether it would have to wait can't be known.
func (r *response) write(text []byte, wait bool) error {
	if !wait {
		r.late.mu.Lock()
		defer r.late.mu.Unlock()
		r.late.text = append(r.late.text, text...)
		return errWait
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late.mu.Lock()
	text = append(r.late.text, text...)
	r.late.text = nil
	r.late.mu.Unlock()
	if len(text) == 0 {
		return nil
	}
	return jobapi.Push(r.w, http.NewResponseController(r.w), text, writeTimeout)
}

// Close ends Read.
func (r *response) Close() error {
	r.cancel()
	return nil
}

// lifetime is how long a connection may last.
func lifetime() time.Duration { return maxLife/2 + rand.N(maxLife/2) }

// closing is why a connection is ended: a WebSocket's close code, and a text (docs/contracts.md).
type closing struct {
	code   int
	reason string
	why    ending // for metrics
}

// Why a connection ends. After all but the first a client reconnects and resumes where it was.
var (
	closeEnded = closing{1000, "the job has ended", endedDone}               //nolint:gochecknoglobals // constant
	closeLife  = closing{1001, "reconnect", endedLife}                       //nolint:gochecknoglobals // constant
	closeDrain = closing{1001, "reconnect", endedDrain}                      //nolint:gochecknoglobals // constant
	closeAway  = closing{jobapi.CodeAway, "try again later", endedError}     //nolint:gochecknoglobals // constant
	closeSlow  = closing{4008, "too slow: reconnect and go on", endedSlow}   //nolint:gochecknoglobals // constant
	closeIdle  = closing{4001, "no job was watched for too long", endedIdle} //nolint:gochecknoglobals // constant
)
