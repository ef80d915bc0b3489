package realtime

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/job"
)

// listener is one client's connection. An idle one costs one goroutine, run, which reads. Pending states are sent by a
// goroutine that lives only while there are some; the timer's goroutine pings and ends the connection.
type listener struct {
	s       *Server
	wire    wire
	updates updates
	done    func() // counts it out of the server's connections

	ctx  context.Context // ends with the connection
	end  context.CancelFunc
	stop func() bool // stops waiting for the drain

	timer *time.Timer
	until time.Time // end of its lifetime

	mu      sync.Mutex
	sending bool
	more    bool // something arrived since the sender looked
	closed  bool
	wg      sync.WaitGroup // of senders and timers
}

// wire is what the client and the server say to each other. One goroutine reads, and one at a time calls state.
type wire interface {
	// read returns when the connection has ended.
	read()
	// state sends a state. An error ends the connection.
	state(t told) error
	// beat checks that the client is there.
	beat() error
	// idle reports whether the client has had no use for the connection for too long.
	idle() bool
	// bye says why the connection is closed.
	bye(c closing)
	// cut closes the connection.
	cut()
}

// refused ends a listener that serve was not called for.
func (l *listener) refused() {
	l.updates.close()
	l.end()
	l.done()
}

// serve runs a connection until it ends. follow begins delivery.
func (l *listener) serve(follow func()) {
	defer l.done()
	follow()
	l.mu.Lock()
	l.timer = time.AfterFunc(job.LookAgain, func() { l.spawn(l.look) })
	l.mu.Unlock()
	l.stop = context.AfterFunc(l.s.drain, func() {
		l.spawn(func() {
			select {
			case <-time.After(rand.N(l.s.cfg.DrainSpread)):
				l.close(closeLife)
			case <-l.ctx.Done():
			}
		})
	})
	l.wire.read()
	l.mu.Lock()
	l.closed = true
	l.timer.Stop()
	l.mu.Unlock()
	l.stop()
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
	l.updates.lookAgain()
	l.again()
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
		l.wire.cut()
		return
	}
	l.updates.lookAgain() // in case an event of NATS was lost
	l.again()
}

// again sets the timer, with jitter so that pings spread.
func (l *listener) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.timer = time.AfterFunc(pingEvery-rand.N(pingEvery/5), func() { l.spawn(l.ping) })
	}
}

func (l *listener) close(c closing) {
	l.updates.close()
	l.wire.bye(c)
	l.wire.cut()
}

// wake starts a sender unless one is running.
func (l *listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
	case l.sending:
		l.more = true
	default:
		l.sending = true
		l.wg.Go(l.send)
	}
}

// send sends what is pending.
func (l *listener) send() {
	for {
		l.mu.Lock()
		l.more = false
		l.mu.Unlock()
		c, ok := l.flush()
		if c != nil {
			runtime.Gosched() // others are told before this one is sent away
			l.close(*c)
		}
		l.mu.Lock()
		if !l.more || !ok {
			l.sending = !ok // nothing is sent after the end
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// flush sends what is pending. ok is false when the connection is to end: c says why, or is nil if it is broken.
func (l *listener) flush() (c *closing, ok bool) {
	for {
		t, err := l.updates.next(l.ctx)
		switch {
		case errors.Is(err, errSlow):
			return &closeSlow, false
		case err != nil: // NATS is unavailable; a client that reconnects gets the state then
			return &closeAway, false
		case !t.any && l.updates.ended():
			return &closeEnded, false
		case !t.any:
			return nil, true
		}
		if err := l.wire.state(t); err != nil {
			l.wire.cut() // read ends too
			return nil, false
		}
	}
}
