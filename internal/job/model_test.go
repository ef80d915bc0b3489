package job_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestModel runs random scripts: some jobs are begun, end, are cancelled, reported on and redriven, up to three at the same
// moment, while owners follow each other, orderly, killed, or paused: those go on with the calls that they have begun. What
// anybody was answered is then held against what the contracts promise. WEIR_LONG=1 runs 10,000 scripts, WEIR_SEED=N one.
func TestModel(t *testing.T) {
	first, n := rand.Uint64N(1<<32), 200
	if os.Getenv("WEIR_LONG") != "" {
		n = 10_000
	}
	if seed, err := strconv.ParseUint(os.Getenv("WEIR_SEED"), 10, 64); err == nil {
		first, n = seed, 1
	}
	conn := testkit.Conn(t, testkit.NATS(t))
	q := catalog.Queue{
		Key: catalog.Key{Namespace: "default", Name: "reports"}, MaxAge: hour, MaxBytes: 16 << 20, DeadLetterMaxAge: hour,
		Jobs: true, Results: catalog.Results{MaxAge: hour, MaxBytes: 1 << 30},
	}
	if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for i := range n {
		seed := first + uint64(i)
		s := &modelScript{conn: conn, queue: q.Key, r: rand.New(rand.NewPCG(seed, 0)), t: t}
		for what, n := range s.run() {
			counts[what] += n
		}
		if t.Failed() {
			t.Fatalf("WEIR_SEED=%d runs this script again", seed)
		}
	}
	t.Logf("%d scripts from seed %d: %v", n, first, counts)
}

// modelScript is one script. Its steps and choices are those of its seed, not what runs at the same moment.
type modelScript struct {
	t     *testing.T
	conn  *stream.Conn
	queue catalog.Key
	r     *rand.Rand
	clock atomic.Int64
	owner *modelOwner
	past  []*modelOwner // paused

	mu     sync.Mutex
	jobs   []*modelJob
	counts map[string]int
}

type modelOwner struct {
	number int
	owner  *ledger.Owner
	jobs   *ledger.Jobs
	stop   func()
	asleep atomic.Bool
}

type modelJob struct {
	n      int
	rec    record.Record   // of its next attempt
	copies []record.Record // that may be delivered again
	id     job.ID
	under  []*modelAttempt // under way
	taken  bool            // the present owner has the record in hand: it makes one attempt at a time
	tokens []*modelAttempt // whose callbacks were given out
	events []modelEvent
}

type modelAttempt struct {
	a     *job.Attempt // used by one step at a time
	token job.Callback
	owner *modelOwner
	rec   record.Record
}

// modelEvent is what somebody was answered: between start and end by the script's clock.
type modelEvent struct {
	kind       string // began, told, looked, reported
	start, end int64
	owner      int // that had the queue at its start
	redrives   int
	status     job.Status
	result     string
	version    uint64
	attempt    time.Time // began, reported
}

func (e modelEvent) final() bool { return e.kind != "began" && e.status.Final() }

func (s *modelScript) run() map[string]int {
	s.counts = map[string]int{}
	for n := range 3 {
		rec, id := newJob(s.t, s.queue)
		s.jobs = append(s.jobs, &modelJob{n: n, rec: *rec, copies: []record.Record{*rec}, id: id})
	}
	s.take()
	for range 12 + s.r.IntN(20) {
		if s.r.IntN(8) == 0 {
			s.follow()
		}
		var wg sync.WaitGroup
		for range 1 + s.r.IntN(3) {
			j, what, luck := s.jobs[s.r.IntN(len(s.jobs))], s.r.IntN(len(modelSteps)), s.r.Uint64()
			wg.Go(func() { modelSteps[what](s, j, rand.New(rand.NewPCG(luck, 0))) })
		}
		wg.Wait()
	}
	s.follow()
	for _, j := range s.jobs {
		s.look(j, nil)
		s.check(j)
	}
	s.leave(s.owner)
	for _, o := range s.past {
		s.leave(o)
	}
	return s.counts
}

// take becomes the owner.
func (s *modelScript) take() {
	owner, err := ledger.Open(s.t.Context(), s.conn, s.queue, testkit.Log(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	o := &modelOwner{owner: owner, jobs: owner.Jobs(s.conn)}
	if s.owner != nil {
		o.number = s.owner.number + 1
	}
	if o.stop, err = o.jobs.Serve(func() bool { return !o.asleep.Load() }); err != nil {
		s.t.Fatal(err)
	}
	s.owner = o
}

func (s *modelScript) leave(o *modelOwner) {
	o.stop()
	o.owner.Close(s.t.Context())
}

// follow has another owner follow the present one.
func (s *modelScript) follow() {
	former := s.owner
	switch s.r.IntN(3) {
	case 0: // orderly
		s.leave(former)
	case 1: // killed
		former.stop()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		former.owner.Close(ctx)
	default: // it sleeps past its lease: it makes no call any more, but writes what became of those that it has made
		former.asleep.Store(true)
		s.past = append(s.past, former)
	}
	for _, j := range s.jobs {
		j.taken = false
	}
	s.take()
}

func (s *modelScript) now() int64 { return s.clock.Add(1) }

// add notes an event, which has ended now.
func (s *modelScript) add(j *modelJob, e modelEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.end = s.now()
	j.events = append(j.events, e)
	s.counts[e.kind+" "+string(e.status)]++
}

// fine reports whether err is nil; one that a script can't bring about fails the test.
func (s *modelScript) fine(what string, err error) bool {
	for _, can := range []error{job.ErrFinal, job.ErrOver, job.ErrWaiting, job.ErrLapsed, stream.ErrUnavailable, stream.ErrLeaseLost, ledger.ErrLost} {
		if errors.Is(err, can) {
			return false
		}
	}
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
	return err == nil
}

func (s *modelScript) event(kind string) modelEvent {
	return modelEvent{kind: kind, start: s.now(), owner: s.owner.number}
}

var modelSteps = []func(*modelScript, *modelJob, *rand.Rand){
	(*modelScript).begin, (*modelScript).begin, (*modelScript).begin, (*modelScript).finish, (*modelScript).finish, (*modelScript).finish,
	(*modelScript).cancel, (*modelScript).report, (*modelScript).report, (*modelScript).look, (*modelScript).look, (*modelScript).redrive,
}

// begin begins an attempt, as when a record, or a copy of a former one, is delivered.
func (s *modelScript) begin(j *modelJob, r *rand.Rand) {
	s.mu.Lock()
	if j.taken {
		s.mu.Unlock()
		return
	}
	j.taken = true
	rec := j.rec
	if r.IntN(4) == 0 {
		rec = j.copies[r.IntN(len(j.copies))]
	}
	s.mu.Unlock()
	e, o := s.event("began"), s.owner
	made := &modelAttempt{owner: o, rec: rec}
	a, err := job.Begin(s.t.Context(), o.jobs, s.queue, &made.rec, s.conn.Now(), time.Time{})
	if errors.Is(err, job.ErrLapsed) {
		s.fail(j, &modelAttempt{a: a, owner: o, rec: rec}, r)
	}
	if !s.fine("begin", err) {
		s.settled(j, made)
		return
	}
	made.a, made.token = a, a.Callback()
	e.redrives, e.status, e.attempt = rec.Redrives, job.Running, made.token.Started
	s.add(j, e)
	s.mu.Lock()
	defer s.mu.Unlock()
	j.under, j.tokens = append(j.under, made), append(j.tokens, made)
}

// settled is told that at's record is not in its owner's hands any more.
func (s *modelScript) settled(j *modelJob, at *modelAttempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.owner == s.owner {
		j.taken = false
	}
}

// finish stores what became of an attempt.
func (s *modelScript) finish(j *modelJob, r *rand.Rand) {
	s.mu.Lock()
	if len(j.under) == 0 {
		s.mu.Unlock()
		return
	}
	i := r.IntN(len(j.under))
	at := j.under[i]
	j.under = append(j.under[:i:i], j.under[i+1:]...)
	s.mu.Unlock()
	defer s.settled(j, at)
	switch r.IntN(4) {
	case 0, 1:
		e := s.event("told")
		result := fmt.Sprint("result ", e.start)
		if s.fine("succeed", at.a.Succeed(s.t.Context(), job.Result{ContentType: "text/plain"}, []byte(result), time.Now())) {
			e.redrives, e.status, e.result = at.rec.Redrives, job.Succeeded, result
			s.add(j, e)
		}
	case 2:
		s.fail(j, at, r)
	default: // 202
		s.fine("wait", at.a.Wait(s.t.Context(), hour, s.conn.Now()))
	}
}

// fail fails an attempt: for good, or its record is made durable for another one.
func (s *modelScript) fail(j *modelJob, at *modelAttempt, r *rand.Rand) {
	e := s.event("told")
	if r.IntN(2) == 0 {
		if s.fine("fail", at.a.Fail(s.t.Context(), job.Error{Detail: "no"}, time.Now())) {
			e.redrives, e.status = at.rec.Redrives, job.Failed
			s.add(j, e)
		}
		return
	}
	s.mu.Lock()
	next := at.rec
	next.Attempts++
	if next.Redrives == j.rec.Redrives && next.Attempts > j.rec.Attempts {
		j.rec, j.copies = next, append(j.copies, next)
	}
	s.mu.Unlock()
	s.fine("requeue", at.a.Requeue(s.t.Context(), &job.Error{Detail: "no"}, time.Now()))
}

func (s *modelScript) cancel(j *modelJob, _ *rand.Rand) {
	e := s.event("told")
	state, err := job.Cancel(s.t.Context(), s.conn, j.id, hour, time.Now())
	if errors.Is(err, job.ErrFinal) || s.fine("cancel", err) {
		e.redrives, e.status, e.version = state.Redrives, state.Status, state.Version()
		s.add(j, e)
	}
}

// report is what a function reports of an attempt, maybe of a former one.
func (s *modelScript) report(j *modelJob, r *rand.Rand) {
	s.mu.Lock()
	if len(j.tokens) == 0 {
		s.mu.Unlock()
		return
	}
	at := j.tokens[r.IntN(len(j.tokens))]
	s.mu.Unlock()
	token, e := at.token, s.event("reported")
	e.redrives, e.status, e.attempt = at.rec.Redrives, job.Running, token.Started
	switch r.IntN(4) {
	case 0:
		if !s.fine("alive", job.Alive(s.t.Context(), s.conn, token, &job.Progress{Percent: 50})) {
			return
		}
	case 1:
		if !s.fine("fail by", job.FailBy(s.t.Context(), s.conn, token, job.Error{Detail: "no"})) {
			return
		}
	default:
		result := fmt.Sprint("report ", e.start)
		if _, err := job.SucceedBy(s.t.Context(), s.conn, token, job.Result{ContentType: "text/plain"}, []byte(result), time.Now()); !s.fine("succeed by", err) {
			return
		}
		e.status, e.result = job.Succeeded, result
	}
	s.add(j, e)
}

func (s *modelScript) look(j *modelJob, _ *rand.Rand) {
	e := s.event("looked")
	state, body, err := job.Get(s.t.Context(), s.conn, j.id, hour, time.Now())
	if s.fine("look", err) {
		e.redrives, e.status, e.result, e.version = state.Redrives, state.Status, string(body), state.Version()
		s.add(j, e)
	}
}

// redrive is an operator's, of a job whose failure was told.
func (s *modelScript) redrive(j *modelJob, _ *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range j.events {
		if e.kind == "told" && e.status == job.Failed && e.redrives == j.rec.Redrives {
			j.rec.Redrive()
			j.copies = append(j.copies, j.rec)
			return
		}
	}
}

// check holds what was answered against what is promised.
func (s *modelScript) check(j *modelJob) {
	last := j.events[len(j.events)-1]
	for i, a := range j.events {
		for k, b := range j.events {
			switch {
			case i == k:
			case a.final() && b.final() && a.redrives == b.redrives && (a.status != b.status || a.result != b.result && a.result != "" && b.result != ""):
				s.t.Errorf("job %d ended twice: %+v, %+v", j.n, a, b)
			case a.end >= b.start: // they may have happened in either order
			case a.final() && b.kind == "began" && (b.redrives <= a.redrives || a.status != job.Failed):
				s.t.Errorf("job %d began after its end: %+v, %+v", j.n, a, b)
			case a.version > 0 && b.kind == "looked" && b.version < a.version:
				s.t.Errorf("job %d was seen in an older state: %+v, %+v", j.n, a, b)
			case a.kind == "began" && b.kind == "reported" && a.owner == b.owner && !a.attempt.Equal(b.attempt) && s.after(j, b, a):
				s.t.Errorf("job %d: a report of an attempt before the last one was taken: %+v, %+v", j.n, a, b)
			}
		}
		if a.final() && (last.redrives < a.redrives || last.redrives == a.redrives && last.status != a.status) {
			s.t.Errorf("job %d: its end was lost: %+v; at last it is %+v", j.n, a, last)
		}
	}
}

// after reports whether the attempt that report is of had begun before another, and nothing since can have undone that.
func (s *modelScript) after(j *modelJob, report, later modelEvent) bool {
	for _, e := range j.events {
		if e.kind == "began" && e.attempt.Equal(report.attempt) {
			return e.end < later.start
		}
	}
	return false
}
