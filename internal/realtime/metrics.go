package realtime

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// transport is how a client listens.
type transport uint8

const (
	byEvents transport = iota
	bySocket
	transports
)

// ending is why a connection has ended; none until it is known, and then the client has gone.
type ending uint8

const (
	endedByClient ending = iota
	endedSlow
	endedDrain
	endedIdle
	endedLife
	endedError
	endedDone // all jobs that it was for have ended
	endings
)

// metrics are a server's. What a message costs is an atomic; a connection costs no memory of its own for them.
type metrics struct {
	open, sent     [transports]atomic.Int64
	ended, resumed metric.Int64Counter
	endedAs        [transports][endings][]metric.AddOption
	by             [transports][]metric.AddOption
	callback       metric.Registration
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	m := &metrics{}
	var errs [4]error
	open, err := meter.Int64ObservableGauge("weir.realtime.connections", metric.WithUnit("{connection}"), metric.WithDescription("Clients that listen."))
	errs[0] = err
	sent, err := meter.Int64ObservableCounter("weir.realtime.messages", metric.WithUnit("{message}"), metric.WithDescription("States that were sent."))
	errs[1] = err
	m.ended, errs[2] = meter.Int64Counter("weir.realtime.ended", metric.WithUnit("{connection}"), metric.WithDescription("Connections that have ended."))
	m.resumed, errs[3] = meter.Int64Counter("weir.realtime.resumed", metric.WithUnit("{connection}"), metric.WithDescription("Connections that came with the position of an earlier one."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	reasons := [endings]string{"client", "slow", "drain", "idle", "life", "error", "done"}
	var observed [transports]metric.ObserveOption
	for t, name := range [transports]string{"events", "websocket"} {
		by := attribute.String("weir.transport", name)
		set := metric.WithAttributeSet(attribute.NewSet(by))
		observed[t], m.by[t] = set, []metric.AddOption{set}
		for r, reason := range reasons {
			m.endedAs[t][r] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(by, attribute.String("weir.reason", reason)))}
		}
	}
	m.callback, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for t := range observed {
			o.ObserveInt64(open, m.open[t].Load(), observed[t])
			o.ObserveInt64(sent, m.sent[t].Load(), observed[t])
		}
		return nil
	}, open, sent)
	return m, err
}

func (m *metrics) close() error { return m.callback.Unregister() }

// begun counts a connection in.
func (l *listener) begun() {
	l.s.metrics.open[l.by].Add(1)
	if l.resumed {
		l.s.metrics.resumed.Add(l.ctx, 1, l.s.metrics.by[l.by]...)
	}
}

// over counts it out.
func (l *listener) over() {
	l.s.metrics.open[l.by].Add(-1)
	l.mu.Lock()
	why := l.why
	l.mu.Unlock()
	l.s.metrics.ended.Add(l.ctx, 1, l.s.metrics.endedAs[l.by][why]...)
}

// resumes notes that a client that has begun already gives the position of an earlier connection. Only read calls it.
func (l *listener) resumes() {
	if !l.resumed {
		l.resumed = true
		l.s.metrics.resumed.Add(l.ctx, 1, l.s.metrics.by[l.by]...)
	}
}

// because notes why the connection is about to end; the first reason counts.
func (l *listener) because(why ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == endedByClient && !l.closed {
		l.why = why
	}
}

// counted counts a state that was sent, or is on its way.
func (l *listener) counted(t told, err error) {
	if t.doc != nil && (err == nil || errors.Is(err, errWait)) {
		l.s.metrics.sent[l.by].Add(1)
	}
}

// broken is why a connection ends on which writing has failed.
func broken(err error) ending {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endedSlow
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		return endedByClient
	}
	return endedError
}
