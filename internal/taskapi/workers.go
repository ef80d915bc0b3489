package taskapi

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// maxWaiting bounds the workers that wait for a task at a time, in this process.
	maxWaiting = 10_000
	// lookAgain is how often all partitions are asked for an activity that workers wait for: hints may be lost.
	lookAgain = 20 * time.Second
	// askAgain is the wait before partitions are asked that gave no answer.
	askAgain = time.Second
)

// partitions is a set of them, by bit.
type partitions uint64

const everyPartition partitions = 1<<stream.MachinePartitions - 1

func (p partitions) has(n int) bool { return p>>n&1 != 0 }

// workers are those that wait for tasks, by activity.
//
// A worker listens for hints before it asks, so it misses none. A hint at n tasks wakes n workers that wait, each once; what a
// worker is told and does not ask any more it passes on when it leaves. So whoever waits idly has nothing to be given, but for
// hints that NATS has lost.
type workers struct {
	conn stream.Asks

	mu    sync.Mutex
	lines map[catalog.Key]*line
	count int
}

// line is the workers that wait for the same activity, the longest first.
type line struct {
	ready   chan struct{} // closed once hints are heard, or err says why not
	err     error
	stop    func()
	workers []*worker
	looked  time.Time // when all partitions were last asked, and had nothing
}

// worker is one that waits.
type worker struct {
	told partitions    // that have something, it was told, and that it has not asked since
	idle bool          // it waits for a hint
	wake chan struct{} // capacity 1: told has grown
}

func newWorkers(conn stream.Asks) *workers {
	return &workers{conn: conn, lines: map[catalog.Key]*line{}}
}

// take has a worker wait for a task until there is one, or until or ctx ends: then the one returned is empty. What is being asked for
// just then is still returned: net/http ends ctx too when a client has sent all and closes its side, but reads on. It is an error if
// nobody could be asked.
func (s *workers) take(ctx, until context.Context, activity catalog.Key, name string) (Taken, error) {
	asking := &inquiry{s: s, activity: activity, name: name}
	if !s.waitIdly(activity) {
		if t, err := asking.ask(ctx, nil, everyPartition); t.Token != "" || err != nil {
			return t, err
		}
	}
	if until.Err() != nil {
		return Taken{}, nil
	}
	l, w, err := s.join(ctx, activity)
	if l == nil {
		return Taken{}, err
	}
	defer s.leave(activity, l, w)
	next := everyPartition // again: now none is missed
	if s.waitIdly(activity) {
		next = 0
	}
	again := time.NewTimer(lookAgain)
	defer again.Stop()
	for ctx.Err() == nil {
		t, err := asking.ask(ctx, w, next)
		if t.Token != "" {
			return t, nil
		}
		if next == everyPartition && err == nil && asking.silent == 0 {
			s.looked(l)
		}
		if asking.silent != 0 {
			again.Reset(askAgain)
		}
		if next = s.rest(w); next == 0 {
			select {
			case <-w.wake:
				next = s.rest(w)
			case <-again.C:
				var due time.Duration
				next, due = s.again(l, w, asking.silent)
				again.Reset(due)
			case <-until.Done():
				return Taken{}, nil
			case <-ctx.Done():
			}
		}
	}
	return Taken{}, nil
}

// inquiry is a worker's questions.
type inquiry struct {
	s        *workers
	activity catalog.Key
	name     string
	silent   partitions // that gave no answer when they were last asked
}

// ask asks partitions for a task, one after the other from any of them, until one has one: two would each give one. The error is
// that none has answered.
func (q *inquiry) ask(ctx context.Context, w *worker, which partitions) (Taken, error) {
	var failed error
	answers := 0
	first := rand.IntN(stream.MachinePartitions)
	for i := range stream.MachinePartitions {
		n := (first + i) % stream.MachinePartitions
		if !which.has(n) || ctx.Err() != nil {
			continue
		}
		q.silent &^= 1 << n
		q.s.asks(w, n)
		t, err := take(context.WithoutCancel(ctx), q.s.conn, n, q.activity, q.name) // what is taken is answered with; it has a bound of its own
		switch {
		case err != nil:
			q.silent |= 1 << n
			failed = err
		case t.Token != "":
			q.s.hint(q.activity, n, t.More)
			return t, nil
		default:
			answers++
		}
	}
	if answers > 0 {
		failed = nil
	}
	return Taken{}, failed
}

// waitIdly reports whether a worker waits idly for the activity: there is nothing to be given then.
func (s *workers) waitIdly(activity catalog.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[activity]
	return l != nil && slices.ContainsFunc(l.workers, func(w *worker) bool { return w.idle && w.told == 0 })
}

// join puts a worker into the line of its activity, which hears hints when it returns; nil without an error if ctx has ended.
func (s *workers) join(ctx context.Context, activity catalog.Key) (*line, *worker, error) {
	s.mu.Lock()
	if s.count >= maxWaiting {
		s.mu.Unlock()
		return nil, nil, &stream.RefusedError{Code: CodeBusy, Message: "too many workers wait for tasks here"}
	}
	l, w := s.lines[activity], &worker{wake: make(chan struct{}, 1)}
	first := l == nil
	if first {
		l = &line{ready: make(chan struct{})}
		s.lines[activity] = l
	}
	l.workers = append(l.workers, w)
	s.count++
	s.mu.Unlock()
	if first {
		l.stop, l.err = s.conn.HearHints(context.WithoutCancel(ctx), Text(activity), func(partition string, body []byte) { // the others wait for it, too
			n, err := strconv.Atoi(partition)
			tasks, terr := strconv.Atoi(string(body))
			if err == nil && terr == nil && everyPartition.has(n) {
				s.hint(activity, n, tasks)
			}
		})
		close(l.ready)
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		s.leave(activity, l, w)
		return nil, nil, nil
	}
	if l.err != nil {
		s.leave(activity, l, w)
		return nil, nil, l.err
	}
	return l, w, nil
}

// leave takes a worker out of its line. What it was told others are told.
func (s *workers) leave(activity catalog.Key, l *line, w *worker) {
	s.mu.Lock()
	l.workers = slices.DeleteFunc(l.workers, func(other *worker) bool { return other == w })
	s.count--
	told := w.told
	last := len(l.workers) == 0
	if last {
		delete(s.lines, activity)
	}
	s.mu.Unlock()
	if last && l.stop != nil { // the first to join is in the line until stop is known
		l.stop()
	}
	for ; told != 0; told &= told - 1 {
		s.hint(activity, bits.TrailingZeros64(uint64(told)), 1)
	}
}

// hint wakes as many workers as a partition has tasks.
func (s *workers) hint(activity catalog.Key, n, tasks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[activity]
	if l == nil || tasks <= 0 {
		return
	}
	woken := 0
	for _, w := range l.workers {
		if !w.idle || w.told != 0 {
			continue
		}
		w.tell(n)
		if woken++; woken == tasks {
			return
		}
	}
	if woken == 0 { // all are asking: one of them asks on, or passes it on
		l.workers[0].tell(n)
	}
}

func (w *worker) tell(n int) {
	w.told |= 1 << n
	select {
	case w.wake <- struct{}{}:
	default: // it knows already
	}
}

// asks notes that a worker asks a partition now; nil if it is in no line.
func (s *workers) asks(w *worker, n int) {
	if w == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.idle = false
	w.told &^= 1 << n
}

// rest returns the partitions that a worker is to ask now. If there are none it waits idly from now on.
func (s *workers) rest(w *worker) partitions {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.idle = w.told == 0
	return w.told
}

// looked notes that no partition has had anything.
func (s *workers) looked(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.looked = time.Now()
}

// again returns the partitions that a worker is to ask because some time has passed, and when it is to ask so again: those that gave
// it no answer, and all if nobody has asked them for a while.
func (s *workers) again(l *line, w *worker, silent partitions) (which partitions, due time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	which, due = silent|w.told, lookAgain-time.Since(l.looked)
	if due <= 0 {
		which, due, l.looked = everyPartition, lookAgain, time.Now()
	}
	w.idle = which == 0
	return which, due
}
