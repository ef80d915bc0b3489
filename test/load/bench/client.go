package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// load is one closed-loop run: each connection sends its next request when the former is answered. It is bounded by
// time (warm, then window) or by the number of 202s wanted. If want is set, answers with that status count instead.
type load struct {
	addr   string
	conns  int
	orders *orderBook
	warm   time.Duration
	window time.Duration
	total  int // 202s wanted; 0 means bounded by time
	want   int // status; 0 means 202

	// onWindow is called when the window begins and when it ends.
	onWindow func(begin bool)
}

// loadResult is what a run saw.
type loadResult struct {
	accepted int // 202s in the window, or of the whole run when it is bounded by number
	stored   int // 202s of the whole run
	statuses map[int]int
	elapsed  time.Duration
	latency  *hdrhistogram.Histogram // of the 202s in the window, in microseconds
}

func (r *loadResult) perSecond() float64 { return float64(r.accepted) / r.elapsed.Seconds() }

func (r *loadResult) ms(quantile float64) float64 {
	return float64(r.latency.ValueAtQuantile(quantile)) / 1000
}

const (
	maxLatency = 60_000_000 // µs
	precision  = 2          // significant figures: small histograms stay in the cache
)

// worker is one connection.
type worker struct {
	conn     net.Conn
	buf      []byte
	latency  *hdrhistogram.Histogram
	accepted int
	stored   int
	statuses [600]int
	err      error
}

func (l *load) run(ctx context.Context) (*loadResult, error) {
	workers := make([]*worker, l.conns)
	defer func() {
		for _, w := range workers {
			if w != nil {
				_ = w.conn.Close()
			}
		}
	}()
	for i := range workers {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", l.addr)
		if err != nil {
			return nil, err
		}
		workers[i] = &worker{conn: conn, buf: make([]byte, 4096), latency: hdrhistogram.New(1, maxLatency, precision)}
	}
	stop := context.AfterFunc(ctx, func() { // ends reads and writes
		for _, w := range workers {
			_ = w.conn.Close()
		}
	})
	defer stop()

	start := time.Now()
	begin, end := start.Add(l.warm), start.Add(l.warm+l.window)
	var left atomic.Int64
	left.Store(int64(l.total))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			if l.total > 0 {
				w.err = w.number(l.orders, i, &left, cmp.Or(l.want, 202))
			} else {
				w.err = w.timed(l.orders, i, begin, end, cmp.Or(l.want, 202))
			}
		})
	}
	if l.onWindow != nil {
		wait(ctx, time.Until(begin))
		l.onWindow(true)
		wait(ctx, time.Until(end))
		l.onWindow(false)
	}
	wg.Wait()
	res := &loadResult{statuses: map[int]int{}, elapsed: l.window, latency: hdrhistogram.New(1, maxLatency, precision)}
	if l.total > 0 {
		res.elapsed = time.Since(start)
	}
	var errs []error
	for _, w := range workers {
		res.accepted += w.accepted
		res.stored += w.stored
		res.latency.Merge(w.latency)
		for status, n := range w.statuses {
			if n > 0 {
				res.statuses[status] += n
			}
		}
		errs = append(errs, w.err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return res, errors.Join(errs...)
}

func (w *worker) timed(orders *orderBook, conn int, begin, end time.Time, want int) error {
	sent := time.Now()
	for n := uint64(0); sent.Before(end); n++ {
		status, _, err := w.exchange(orders.take(conn, n))
		if err != nil {
			return err
		}
		now := time.Now()
		w.statuses[status]++
		if status == want {
			w.stored++
			if now.After(begin) && now.Before(end) {
				w.accepted++
				_ = w.latency.RecordValue(now.Sub(sent).Microseconds()) // past maxLatency: the run is lost anyway
			}
		}
		sent = now
	}
	return nil
}

// number posts until left is used up. What is refused with 429 or 503 is posted again.
func (w *worker) number(orders *orderBook, conn int, left *atomic.Int64, want int) error {
	for n := uint64(0); left.Add(-1) >= 0; n++ {
		for {
			sent := time.Now()
			status, _, err := w.exchange(orders.take(conn, n))
			if err != nil {
				return err
			}
			w.statuses[status]++
			if status == want {
				w.stored++
				w.accepted++
				_ = w.latency.RecordValue(time.Since(sent).Microseconds()) // past maxLatency: the run is lost anyway
				break
			}
			if status != 429 && status != 503 {
				return fmt.Errorf("answered %d", status)
			}
		}
	}
	return nil
}

var errAnswer = errors.New("not an HTTP/1.1 answer with a Content-Length")

const (
	headerEnd     = "\r\n\r\n"
	contentLength = "\r\nContent-Length: "
)

// exchange sends a request and reads its answer. body is good until the next exchange.
func (w *worker) exchange(request []byte) (status int, body []byte, err error) {
	if _, err := w.conn.Write(request); err != nil {
		return 0, nil, err
	}
	n, head, size := 0, -1, 0
	for head < 0 || n < head+size {
		if n == len(w.buf) {
			return 0, nil, fmt.Errorf("%w: longer than %d bytes", errAnswer, n)
		}
		m, err := w.conn.Read(w.buf[n:])
		if err != nil {
			return 0, nil, err
		}
		n += m
		if head >= 0 {
			continue
		}
		if i := bytes.Index(w.buf[:n], []byte(headerEnd)); i >= 0 {
			head = i + len(headerEnd)
			if status, size, err = parseHead(w.buf[:i+2]); err != nil {
				return 0, nil, err
			}
		}
	}
	if n != head+size {
		return 0, nil, fmt.Errorf("%w: %d bytes too many", errAnswer, n-head-size)
	}
	return status, w.buf[head:n], nil
}

func parseHead(head []byte) (status, size int, err error) {
	if len(head) < 13 || string(head[:9]) != "HTTP/1.1 " {
		return 0, 0, errAnswer
	}
	status, err = strconv.Atoi(string(head[9:12]))
	if err != nil || status < 100 || status > 599 {
		return 0, 0, errAnswer
	}
	_, digits, ok := bytes.Cut(head, []byte(contentLength))
	if !ok {
		return 0, 0, fmt.Errorf("%w: %q", errAnswer, head)
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			break
		}
		size = size*10 + int(c-'0')
	}
	return status, size, nil
}

// wait returns after d or at the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
