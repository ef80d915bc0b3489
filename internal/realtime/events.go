package realtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
)

// maxEventJobs bounds the jobs of one stream of events: their ids are in its address.
const maxEventJobs = 64

// events streams the states of a job, or of those that the query names, as Server-Sent Events (WHATWG HTML, section
// 9.2). The id of each event holds the versions that the client has then, in the order of the jobs, so that it resumes
// by Last-Event-ID. The stream ends with the last job; a client that reconnects then gets 204, which ends an
// EventSource.
func (s *Server) events(w http.ResponseWriter, req *http.Request) {
	if !s.begin(w, true) {
		return
	}
	defer s.done()
	texts := req.URL.Query()["id"]
	if one := req.PathValue("id"); one != "" {
		texts = []string{one}
	}
	if len(texts) == 0 || len(texts) > maxEventJobs {
		problem.Problem{
			Type: problem.BadRequest, Status: http.StatusBadRequest, Title: "Which jobs?",
			Detail: fmt.Sprintf("The query must name 1 to %d jobs, as in ?id=A&id=B, not %d. A WebSocket takes more.", maxEventJobs, len(texts)),
		}.Write(w)
		return
	}
	wake, signal := newSignal()
	f := &subscription{s: s, wake: wake}
	defer f.close()
	have := strings.Split(jobapi.EventID(req), ",")
	for i, text := range texts {
		id, maxAge, err := s.parse(text)
		if err != nil {
			problem.UnknownJob().Write(w)
			return
		}
		after := ""
		if len(have) == len(texts) {
			after = have[i]
		}
		f.follow(f.newJob(id, text, maxAge, after))
	}
	s.stream(w, req, f, wake, signal)
}

// newSignal returns the function that sets a signal, and the signal. Signals that nobody has received yet are one.
func newSignal() (wake func(), signal chan struct{}) {
	signal = make(chan struct{}, 1)
	return func() {
		select {
		case signal <- struct{}{}:
		default: // one is pending
		}
	}, signal
}

// feedEvents streams the states of all jobs of a feed. It has no end of its own.
func (s *Server) feedEvents(w http.ResponseWriter, req *http.Request) {
	if !s.begin(w, true) {
		return
	}
	defer s.done()
	wake, signal := newSignal()
	f, err := s.newClientFeed(req.PathValue("id"), jobapi.EventID(req), wake)
	if err != nil {
		refuseFeed(w, true, err)
		return
	}
	f.start(req.Context())
	defer f.close()
	s.stream(w, req, f, wake, signal)
}

func (s *Server) stream(w http.ResponseWriter, req *http.Request, f updates, wake func(), signal <-chan struct{}) {
	if req.Method == http.MethodHead { // its answer has no body that could end
		jobapi.BeginEvents(w.Header())
		w.WriteHeader(http.StatusOK)
		return
	}
	e := &eventStream{s: s, w: w, rc: http.NewResponseController(w), f: f}
	if err := e.run(req, wake, signal); err != nil && !errors.Is(err, errEnded) {
		s.cfg.Log.Debug("a stream of events ended", "error", err)
	}
}

// eventStream is one client's connection.
type eventStream struct {
	s  *Server
	w  http.ResponseWriter
	rc *http.ResponseController
	f  updates
	on bool // the answer has begun
}

func (e *eventStream) run(req *http.Request, wake func(), signal <-chan struct{}) error {
	ctx := req.Context()
	again, ping, life := time.NewTimer(job.LookAgain), time.NewTicker(pingEvery), time.NewTimer(lifetime())
	defer again.Stop()
	defer ping.Stop()
	defer life.Stop()
	drain := e.s.drain.Done()
	for {
		more, err := e.flush(req)
		if err != nil {
			return err
		}
		if more { // after the other events
			wake()
		}
		select {
		case <-signal:
		case <-again.C:
			e.f.lookAgain()
		case <-ping.C:
			if e.f.stale() {
				return e.bye(closeLife)
			}
			e.f.lookAgain()                             // what NATS published and didn't get through
			if err := e.write(": ping\n"); err != nil { // without an empty line, which would end an event
				return err
			}
		case <-life.C:
			return e.bye(closeLife)
		case <-drain:
			drain = nil
			life.Reset(rand.N(e.s.cfg.DrainSpread))
		case <-ctx.Done():
			return nil
		}
	}
}

// errEnded means that all has been sent.
var errEnded = errors.New("realtime: the jobs have ended")

// maxFlushed is how many states are sent before the other events are looked at.
const maxFlushed = 16

// flush sends what is pending; more reports that something is left.
func (e *eventStream) flush(req *http.Request) (more bool, err error) {
	for range maxFlushed {
		t, err := e.f.next(req.Context())
		switch {
		case errors.Is(err, errSlow):
			return false, errors.Join(err, e.bye(closeSlow))
		case err != nil: // NATS is unavailable; a client that reconnects gets the state then
			return false, errors.Join(err, e.bye(closeAway))
		case !t.any && !e.f.ended():
			return false, e.write("")
		case !t.any:
			if !e.on { // the client has it all
				e.w.WriteHeader(http.StatusNoContent)
			}
			return false, errEnded
		case t.doc == nil:
			continue
		}
		data, err := json.Marshal(t.doc)
		if err != nil {
			return false, err
		}
		if err := e.write("event: state\nid: " + e.f.position() + "\ndata: " + string(data) + "\n\n"); err != nil {
			return false, err
		}
	}
	return true, nil
}

// position is the id of an event.
func (f *subscription) position() string {
	var b strings.Builder
	for i, j := range f.all() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(j.said) // empty if nothing was told
	}
	return b.String()
}

// write sends text, the first time after the answer's headers.
func (e *eventStream) write(text string) error {
	if !e.on {
		e.on = true
		jobapi.BeginEvents(e.w.Header())
		text = jobapi.RetryLine(jobapi.ComeBack()) + text
	}
	if text == "" {
		return nil
	}
	if err := e.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.rc.Flush()
}

// bye says why the stream ends.
func (e *eventStream) bye(c closing) error {
	return e.write(jobapi.CloseEvent(c.code, c.reason))
}

// lifetime is how long a connection may last.
func lifetime() time.Duration { return maxLife/2 + rand.N(maxLife/2) }

// closing is why a connection is ended: a WebSocket's close code, and a text (docs/contracts.md).
type closing struct {
	code   int
	reason string
}

// Why a connection ends. After all but the first a client reconnects and resumes where it was.
var (
	closeEnded = closing{1000, "the job has ended"}               //nolint:gochecknoglobals // constant
	closeLife  = closing{1001, "reconnect"}                       //nolint:gochecknoglobals // constant
	closeAway  = closing{jobapi.CodeAway, "try again later"}      //nolint:gochecknoglobals // constant
	closeSlow  = closing{4008, "too slow: reconnect and go on"}   //nolint:gochecknoglobals // constant
	closeIdle  = closing{4001, "no job was watched for too long"} //nolint:gochecknoglobals // constant
)
