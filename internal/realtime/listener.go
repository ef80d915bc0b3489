package realtime

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/job"
)

// listener is one client's connection. An idle one costs one goroutine, serve, which reads. Pending states are sent by one
// of the server's senders, or by a goroutine that lives while it has to wait; the timer's goroutine pings and ends the
// connection.
type listener struct {
	s       *Server
	wire    wire
	updates updates
	done    func() // counts it out of the server's connections

	ctx context.Context // ends with the connection
	end context.CancelFunc

	timer *time.Timer // of the next ping, at first of a look
	until time.Time   // end of its lifetime

	readAt time.Time // when the states were last read again; the timer's goroutine's

	by      transport
	resumed bool // it came with the position of an earlier connection

	mu      sync.Mutex
	sending bool
	more    bool // something arrived since the sender looked
	closed  bool
	why     ending
	failed  int            // looks in a row, each of which is repeated
	retry   *time.Timer    // of the next look after one that failed; nil if none is due
	wg      sync.WaitGroup // of senders and timers
}

// wire is what the client and the server say to each other. One goroutine reads, and one at a time calls state.
type wire interface {
	// read returns when the connection has ended.
	read()
	// state sends a state. If it may not wait, the error is errWait and finish has to be called when not all could be
	// sent at once. Any other error ends the connection.
	state(t told, wait bool) error
	// finish sends what is left of a state.
	finish() error
	// last says that the jobs have ended, and has read return soon. An error means that it can't without waiting.
	last() error
	// beat checks that the client is there.
	beat() error
	// idle reports whether the client has had no use for the connection for too long.
	idle() bool
	// bye says why the connection is closed.
	bye(c closing)
	// cut closes the connection.
	cut()
}

// refused ends a listener that serve was not called for, and which need not have updates.
func (l *listener) refused() {
	if l.updates != nil {
		l.updates.close()
	}
	l.end()
	l.done()
}

// serve runs a connection until it ends. follow begins delivery.
func (l *listener) serve(follow func()) {
	defer l.done()
	l.begun()
	defer l.over()
	follow()
	l.again(l.look, job.LookAgain)
	stop := context.AfterFunc(l.s.drain, func() {
		l.spawn(func() {
			select {
			case <-time.After(rand.N(l.s.cfg.DrainSpread)):
				l.close(closeDrain)
			case <-l.ctx.Done():
			}
		})
	})
	l.wire.read()
	l.mu.Lock()
	l.closed = true
	l.timer.Stop()
	if l.retry != nil {
		l.retry.Stop()
	}
	l.mu.Unlock()
	stop()
	l.updates.close()
	l.end()
	l.wire.cut() // a sender may be at it
	l.wg.Wait()
}

// spawn runs f in this goroutine unless the connection has ended; serve waits for it.
func (l *listener) spawn(f func()) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.wg.Add(1)
	l.mu.Unlock()
	defer l.wg.Done()
	f()
}

// look has the states read once more, soon after the start.
func (l *listener) look() {
	if l.s.cfg.Conn.Routed() {
		l.updates.lookAgain()
	}
	l.readAt = time.Now()
	l.again(l.ping, pingEvery)
}

// ping checks that the client is there, and closes a connection that was idle or has lasted for too long.
func (l *listener) ping() {
	switch {
	case l.wire.idle():
		l.close(closeIdle)
		return
	case time.Now().After(l.until), l.updates.stale():
		l.close(closeLife)
		return
	}
	if err := l.wire.beat(); err != nil {
		l.because(broken(err))
		l.wire.cut()
		return
	}
	if l.s.cfg.Conn.Routed() && time.Since(l.readAt) >= lookEvery { // an event may have been lost between two servers
		l.updates.lookAgain()
		l.readAt = time.Now()
	}
	l.again(l.ping, pingEvery)
}

// again sets the timer, with jitter so that pings spread.
func (l *listener) again(f func(), after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.timer = time.AfterFunc(after-rand.N(after/5), func() { l.spawn(f) })
}

func (l *listener) close(c closing) {
	l.because(c.why)
	l.updates.close()
	l.wire.bye(c)
	l.wire.cut()
}

// wake has it told of what is pending.
func (l *listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
	case l.sending:
		l.more = true
	default:
		l.sending = true
		l.wg.Add(1)
		l.s.senders.add(l)
	}
}

// sendNow sends what is pending. It reports false if sendLate is to be called: it would have to wait, or nothing follows.
func (l *listener) sendNow() bool {
	for {
		l.mu.Lock()
		l.more = false
		l.mu.Unlock()
		t, err := l.updates.now()
		switch {
		case err != nil, !t.any && l.updates.ended():
			return false // sendLate meets it again
		case !t.any && l.sent():
			return true
		case !t.any:
			continue
		}
		err = l.wire.state(t, false)
		l.counted(t, err)
		switch {
		case errors.Is(err, errWait):
			return false
		case err != nil:
			l.because(broken(err))
			l.wire.cut() // read ends too
			l.wg.Done()
			return true // sending stays: nothing more is sent
		}
	}
}

// sendLate does what can be put off.
func (l *listener) sendLate() {
	over := l.updates.ended()
	if over {
		l.because(endedDone) // before last, after which it may have ended
	}
	if !over || l.wire.last() != nil {
		go l.send() // serve waits for it
		return
	}
	l.updates.close()
	l.wg.Done() // sending stays: nothing more is sent
}

// sent reports whether there is no more to send: then the sender is one no more.
func (l *listener) sent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more {
		return false
	}
	l.sending = false
	l.wg.Done()
	return true
}

// send is sendNow for one who may wait.
func (l *listener) send() {
	if err := l.wire.finish(); err != nil {
		l.because(broken(err))
		l.wire.cut()
		l.wg.Done()
		return
	}
	for {
		l.mu.Lock()
		l.more = false
		l.mu.Unlock()
		switch c, ok := l.flush(); {
		case c != nil:
			l.close(*c)
			fallthrough
		case !ok:
			l.wg.Done() // sending stays: nothing is sent after the end
			return
		}
		if l.sent() {
			return
		}
	}
}

// flush sends what is pending. ok is false when the connection is to end: c says why, or is nil if it is broken.
func (l *listener) flush() (c *closing, ok bool) {
	looks, failed := true, false
	defer func() { l.looked(failed) }()
	for {
		var t told
		var err error
		if looks {
			t, err = l.updates.next(l.ctx)
		} else {
			t, err = l.updates.now()
		}
		switch {
		case errors.Is(err, errSlow):
			return &closeSlow, false
		case errors.Is(err, errNoNews): // nor can other jobs' states be looked up; what was pushed is told
			looks, failed = false, true
			continue
		case errors.Is(err, errWait): // looks are left, for later
			return nil, true
		case err != nil: // NATS is unavailable; a client that reconnects gets the state then
			return &closeAway, false
		case !t.any && l.updates.ended():
			return &closeEnded, false
		case !t.any:
			return nil, true
		}
		err = l.wire.state(t, true)
		l.counted(t, err)
		if err != nil {
			l.because(broken(err))
			l.wire.cut() // read ends too
			return nil, false
		}
	}
}

// maxLookPause bounds the pauses between looks that fail, each twice as long as the one before.
const maxLookPause = 30 * time.Second

// looked has looks repeated after one has failed.
func (l *listener) looked(failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !failed:
		l.failed = 0
	case !l.closed && l.retry == nil:
		pause := min(job.LookAgain<<min(l.failed, 16), maxLookPause)
		l.failed++
		l.retry = time.AfterFunc(pause/2+rand.N(pause), func() {
			l.spawn(func() {
				l.mu.Lock()
				l.retry = nil
				l.mu.Unlock()
				l.updates.lookAgain()
			})
		})
	}
}
