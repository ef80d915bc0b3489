package realtime

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
)

// maxPending bounds the states that are pending for one client. A client with more is too slow: it is disconnected,
// and resumes where it was when it reconnects.
const maxPending = 128

var (
	// errSlow means that more than maxPending states are pending.
	errSlow = errors.New("realtime: the client reads too slowly")
	// errNoNews means that a state could not be looked up, of a job of which the client was told one: it is no worse off
	// than without the look, which is to be repeated.
	errNoNews = errors.New("realtime: the state can't be looked up now")
)

// updates are the states to send to one client.
type updates interface {
	// next takes the oldest pending one. The error is errNoNews if it couldn't be had, and the client has another already.
	next(ctx context.Context) (told, error)
	// now takes the oldest pending one that needs no waiting. The error is errWait if there is none such, but others.
	now() (told, error)
	// ended reports whether nothing more will come.
	ended() bool
	// lookAgain reads again what may have been missed (job.LookAgain).
	lookAgain()
	// stale reports whether the client should reconnect.
	stale() bool
	close()
}

// told is what next took.
type told struct {
	any  bool      // false if nothing is pending
	doc  *shownDoc // nil if the client has it already
	over *followed // a job that has ended; nil if none
	at   string    // the cursor that the client gives when it reconnects, to get what is later
}

// subscription has the states to send to one client of the jobs that it follows: of each the current state, then every
// later one, each once.
//
// The hub adds states at any time, while it holds its lock; one goroutine at a time takes them by next. A job is
// followed before its state is read, so a change in between is pending here, in the state that is read, or both: what
// is not later than what was sent is dropped. TestEachStateOnce and TestRace guard it.
type subscription struct {
	s    *Server
	wake func() // called when a state is pending: must not block, may be called with the subscription's lock held
	open bool   // other jobs may be followed later

	mu      sync.Mutex
	jobs    []*followed
	named   []*followed // unless open: those that the client has named, in its order, also when they are followed no more
	pending []pending
	states  int   // in pending, without those to be read
	err     error // errSlow
}

// followed is one job of a subscription.
type followed struct {
	sub    *subscription
	id     job.ID
	text   string        // of id
	maxAge time.Duration // of its queue

	looking bool // a look is pending; guarded by the subscription's mu

	// The latest state that was sent, or that the client says it has; written only by the goroutine that calls next.
	sent    bool
	version uint64
	said    string // version as the client has it
	final   bool
	epoch   string // of the queue's states at the first look; empty before
}

// pending is a state to be sent; a nil state means the current one, which is to be read.
type pending struct {
	job   *followed
	state *job.State
}

// newJob is a job to follow. after is the version that the client has already; empty means none.
func (f *subscription) newJob(id job.ID, text string, maxAge time.Duration, after string) *followed {
	j := &followed{sub: f, id: id, text: text, maxAge: maxAge}
	if v, ok := jobapi.ParseVersion(after); ok {
		j.sent, j.version, j.said = true, v, after
	} else if after == string(job.Expired) { // what it has sent is told by show
		j.said = after
	}
	return j
}

// follow adds a job.
func (f *subscription) follow(j *followed) {
	f.mu.Lock()
	f.jobs = append(f.jobs, j)
	if !f.open {
		f.named = append(f.named, j)
	}
	f.mu.Unlock()
	f.s.hub.Follow(j.id.Queue, j.id.Key(), j)
	j.Changed(nil)
}

// leave stops following one job. Its pending states are not sent.
func (f *subscription) leave(j *followed) {
	f.s.hub.Leave(j.id.Queue, j.id.Key(), j)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.jobs = slices.DeleteFunc(f.jobs, func(o *followed) bool { return o == j })
	f.pending = slices.DeleteFunc(f.pending, func(p pending) bool {
		if p.job == j && p.state != nil {
			f.states--
		}
		return p.job == j
	})
}

// close implements updates: it stops following all jobs.
func (f *subscription) close() {
	for _, j := range f.all() {
		f.leave(j)
	}
}

func (f *subscription) all() []*followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.jobs)
}

// Changed implements job.Follower.
func (j *followed) Changed(s *job.State) {
	f := j.sub
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil, s == nil && j.looking:
		return
	case s == nil:
		j.looking = true // so there are no more pending looks than jobs
	case f.states == maxPending:
		f.pending, f.err = nil, errSlow
	default:
		f.states++
	}
	if f.err == nil {
		f.pending = append(f.pending, pending{j, s})
	}
	if s == nil || f.err != nil {
		f.wake()
		return
	}
	f.s.shown.whenMade(j, s, f.wake)
}

// lookAgain implements updates.
func (f *subscription) lookAgain() {
	for _, j := range f.all() {
		j.Changed(nil)
	}
}

// ended reports whether the client has the final states of all jobs that will ever be followed. Only the goroutine that
// calls next may call it.
func (f *subscription) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.open && len(f.jobs) > 0 && !slices.ContainsFunc(f.jobs, func(j *followed) bool { return !j.final })
}

// next implements updates.
func (f *subscription) next(ctx context.Context) (told, error) { return f.take(ctx, true) }

// now implements updates: to look a state up takes time.
func (f *subscription) now() (told, error) { return f.take(context.Background(), false) }

func (f *subscription) take(ctx context.Context, wait bool) (told, error) {
	for {
		p, err := f.first(wait)
		if p.job == nil || err != nil {
			return told{}, err
		}
		d, err := p.job.show(ctx, p.state)
		if err != nil || d != nil || p.job.final {
			t := told{any: true, doc: d, at: f.position()}
			if p.job.final {
				t.over = p.job
			}
			return t, err
		}
	}
}

// stale implements updates.
func (f *subscription) stale() bool { return false }

// position is the id of an event: the versions that the client has, in the order in which it has named the jobs.
func (f *subscription) position() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.named) == 1 {
		return f.named[0].said
	}
	var b strings.Builder
	for i, j := range f.named {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(j.said) // empty if nothing was told
	}
	return b.String()
}

// first takes the oldest pending one, or, if it may not wait, the oldest that needs no waiting.
func (f *subscription) first(wait bool) (pending, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || len(f.pending) == 0 {
		return pending{}, f.err
	}
	i := 0
	if !wait {
		i = slices.IndexFunc(f.pending, func(p pending) bool { return p.state != nil && f.s.shown.made(p.job, p.state) })
		if i < 0 {
			return pending{}, errWait
		}
	}
	p := f.pending[i]
	switch {
	case len(f.pending) == 1:
		f.pending = nil // an idle client costs no memory for it
	case i == 0:
		f.pending = f.pending[1:]
	default:
		f.pending = slices.Delete(f.pending, i, i+1)
	}
	if p.state == nil {
		p.job.looking = false
	} else {
		f.states--
	}
	return p, nil
}

// show returns the document to send, or nil when the state isn't later than the last one sent. A nil s means the
// current state, which is sent unless the client has the very same one: an earlier version, if not of a replica that lags, is
// of a queue that was deleted and created again.
func (j *followed) show(ctx context.Context, s *job.State) (doc *shownDoc, err error) {
	pushed, another := s != nil, false
	var body []byte
	if !pushed {
		if s, body, err = j.look(ctx); err != nil {
			if j.sent {
				err = errNoNews
			}
			return nil, err
		}
		another = j.said != jobapi.Version(s) && s.Status != job.Expired
		if another && j.sent && s.Version() < j.version && j.sameQueue(ctx) {
			return nil, errNoNews // a replica lags
		}
	}
	if !pushed && j.epoch == "" {
		j.epoch, _ = j.sub.s.cfg.Conn.Epoch(ctx, j.id.Queue, false) // without it an older state is believed
	}
	if had := s.Status == job.Expired && j.said == jobapi.Version(s); had || !j.later(s) && !another {
		j.final = j.final || s.Status.Final() && jobapi.Version(s) == j.said // the client had it when it connected
		return nil, nil
	}
	if pushed {
		doc, err = j.sub.s.shown.of(j, s) //nolint:contextcheck // it is for all followers
	} else {
		doc, err = shownOnce(jobapi.NewDocument(j.sub.s.cfg.Base, j.text, s, body))
	}
	if err != nil {
		return nil, err
	}
	j.sent, j.version, j.said, j.final = true, s.Version(), doc.version, s.Status.Final()
	return doc, nil
}

// look reads the current state, if possible no older than the one that the client has.
func (j *followed) look(ctx context.Context) (*job.State, []byte, error) {
	var version uint64
	if j.sent {
		version = j.version
	}
	return job.GetSince(ctx, j.sub.s.cfg.Conn, j.id, j.maxAge, version)
}

// sameQueue reports whether the queue is still the one of the first look, or it can't be known now.
func (j *followed) sameQueue(ctx context.Context) bool {
	if j.epoch == "" { // what it has was told by somebody else, maybe of a former queue
		return false
	}
	epoch, err := j.sub.s.cfg.Conn.Epoch(ctx, j.id.Queue, true)
	return err != nil || epoch == j.epoch
}

func (j *followed) later(s *job.State) bool {
	return !j.sent || s.Version() > j.version || s.Status == job.Expired && !j.final
}
