package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	latencyRate  = 500 // requests a second
	latencyConns = 64  // as many requests may be late at once before the schedule slips
	// sightPeriod is the pause between two polls of the table: the error of a sighting.
	sightPeriod = 2 * time.Millisecond
	// sightTimeout is how long the last rows may take to appear.
	sightTimeout = 30 * time.Second
)

// latencyStage measures the time from the 202 to the row, at a constant rate.
func (b *bench) latencyStage(ctx context.Context) error {
	if err := b.startDatabase(ctx); err != nil {
		return err
	}
	_, natsURL, err := b.startNATS(ctx, b.folder("nats"))
	if err != nil {
		return err
	}
	_, url, err := b.startWriter(ctx)
	if err != nil {
		return err
	}
	if err := b.emptyTable(ctx); err != nil {
		return err
	}
	cat, err := b.catalogOf(url) //nolint:contextcheck // reading YAML takes none
	if err != nil {
		return err
	}
	if err := provision(ctx, natsURL, cat); err != nil {
		return err
	}
	_, addr, err := b.startGateway(ctx, natsURL)
	if err != nil {
		return err
	}
	if _, err := b.startDispatcher(natsURL); err != nil {
		return err
	}

	total := int((warmUp + b.latency).Seconds() * latencyRate)
	o := &openLoop{addr: addr, orders: b.orders, sent: make([]posted, total)}
	s := &sighter{url: b.db.DirectURL(), seen: make(map[uuid.UUID]time.Time, total)}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sighted := make(chan error, 1)
	go func() { sighted <- s.run(sctx, total) }()
	others := b.watchOthers()
	err = o.run(ctx)
	crowd := b.crowd(others())
	if err != nil {
		cancel()
		return errors.Join(err, <-sighted)
	}
	select {
	case err = <-sighted:
	case <-time.After(sightTimeout):
		cancel()
		err = errors.Join(<-sighted, fmt.Errorf("%d of %d rows were not there %s after the last 202", total-len(s.seen), total, sightTimeout))
	}
	if err != nil {
		return err
	}
	commits, err := b.commitTimes(ctx, total)
	if err != nil {
		return err
	}
	if err := b.latencyResults(o, s.seen, commits); err != nil {
		return err
	}
	b.results.add("latency_looks_per_s", s.perSecond)
	if crowd != "" {
		fmt.Println("  " + crowd)
	}
	return nil
}

// latencyResults joins the 202s with the rows. What came in the warm-up is left out.
func (b *bench) latencyResults(o *openLoop, seen, commits map[uuid.UUID]time.Time) error {
	answer, row, commit := newHistogram(), newHistogram(), newHistogram()
	var early int // rows seen before the client read its 202
	var late time.Duration
	for _, p := range o.sent[int(warmUp.Seconds()*latencyRate):] {
		at, ok := seen[p.id]
		if !ok {
			return fmt.Errorf("order %s got a 202 and has no row", p.id)
		}
		if at.Before(p.answered) {
			early++
		}
		late = max(late, p.sent.Sub(p.intended))
		for _, r := range []struct {
			h *hdrhistogram.Histogram
			d time.Duration
		}{{answer, p.answered.Sub(p.intended)}, {row, at.Sub(p.answered)}, {commit, commits[p.id].Sub(p.answered)}} {
			if err := r.h.RecordValue(max(0, r.d.Microseconds())); err != nil {
				return err
			}
		}
	}
	r := b.results
	ms := func(h *hdrhistogram.Histogram, q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	r.add("latency_p50_ms", ms(row, 50))
	r.add("latency_p99_ms", ms(row, 99))
	r.add("latency_max_ms", ms(row, 100))
	r.add("latency_to_commit_p50_ms", ms(commit, 50))
	r.add("latency_to_commit_p99_ms", ms(commit, 99))
	r.add("latency_answer_p50_ms", ms(answer, 50))
	r.add("latency_answer_p99_ms", ms(answer, 99))
	r.add("latency_requests", float64(row.TotalCount()))
	r.add("latency_rows_before_202", float64(early))
	r.add("latency_latest_send_ms", float64(late.Microseconds())/1000)
	fmt.Printf("    202 to row: p50 %.1f ms  p99 %.1f ms;  request to 202: p50 %.1f ms  p99 %.1f ms\n",
		ms(row, 50), ms(row, 99), ms(answer, 50), ms(answer, 99))
	return nil
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency, 3) }

// openLoop posts at a constant rate, whatever the answers do.
type openLoop struct {
	addr   string
	orders *orderBook
	sent   []posted // by number; each is written by one worker

	next atomic.Int64 // number of the next request to send
}

type posted struct {
	id                       uuid.UUID
	intended, sent, answered time.Time
}

func (o *openLoop) run(ctx context.Context) error {
	workers := make([]*worker, latencyConns)
	for i := range workers {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.addr)
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:revive // they all live until the end
		workers[i] = &worker{conn: conn, buf: make([]byte, 4096)}
	}
	stop := context.AfterFunc(ctx, func() {
		for _, w := range workers {
			_ = w.conn.Close()
		}
	})
	defer stop()
	start := time.Now().Add(100 * time.Millisecond)
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { w.err = o.work(ctx, w, i, start) })
	}
	wg.Wait()
	var errs []error
	for _, w := range workers {
		errs = append(errs, w.err)
	}
	return errors.Join(errs...)
}

func (o *openLoop) work(ctx context.Context, w *worker, conn int, start time.Time) error {
	for own := uint64(0); ; own++ {
		n := o.next.Add(1) - 1
		if n >= int64(len(o.sent)) {
			return nil
		}
		p := &o.sent[n]
		p.intended = start.Add(time.Duration(n) * time.Second / latencyRate)
		wait(ctx, time.Until(p.intended))
		p.sent = time.Now()
		status, body, err := w.exchange(o.orders.take(conn, own))
		if err != nil {
			return err
		}
		p.answered = time.Now()
		const prefix = len(`{"id":"`)
		if status != 202 || len(body) < prefix+36 {
			return fmt.Errorf("answered %d: %s", status, body)
		}
		if p.id, err = uuid.ParseBytes(body[prefix : prefix+36]); err != nil {
			return err
		}
	}
}

// sighter polls the table every other millisecond and notes when it first sees a row. It reads only what was accepted
// lately, by the index, on a connection of its own; now and then it reads further back, for rows that others have
// overtaken.
type sighter struct {
	url string

	// Good once run has returned.
	seen      map[uuid.UUID]time.Time
	looks     int
	perSecond float64 // looks
}

func (s *sighter) run(ctx context.Context, total int) (err error) {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	// The table is new and grows: without statistics a plan would read all of it, every time.
	if _, err := conn.Exec(ctx, "SET enable_seqscan = off"); err != nil {
		return err
	}
	tick := time.NewTicker(sightPeriod)
	defer tick.Stop()
	start := time.Now()
	defer func() { s.perSecond = float64(s.looks) / time.Since(start).Seconds() }()
	var newest time.Time
	for n := 1; len(s.seen) < total; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		since := newest.Add(-100 * time.Millisecond)
		switch {
		case n%1000 == 0:
			since = time.Time{}
		case n%50 == 0:
			since = newest.Add(-2 * time.Second)
		}
		s.looks++
		if newest, err = s.look(ctx, conn, since, newest); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (s *sighter) look(ctx context.Context, conn *pgx.Conn, since, newest time.Time) (time.Time, error) {
	rows, err := conn.Query(ctx, "SELECT id, accepted_at FROM orders WHERE accepted_at > $1", since)
	if err != nil {
		return newest, err
	}
	defer rows.Close()
	now := time.Time{}
	for rows.Next() {
		if now.IsZero() {
			now = time.Now()
		}
		var id uuid.UUID
		var accepted time.Time
		if err := rows.Scan((*[16]byte)(&id), &accepted); err != nil {
			return newest, err
		}
		if _, ok := s.seen[id]; !ok {
			s.seen[id] = now
		}
		if accepted.After(newest) {
			newest = accepted
		}
	}
	return newest, rows.Err()
}

// commitTimes are the rows' commits as PostgreSQL notes them just before it syncs them: a lower bound.
func (b *bench) commitTimes(ctx context.Context, total int) (_ map[uuid.UUID]time.Time, err error) {
	conn, err := pgx.Connect(ctx, b.db.DirectURL())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT id, pg_xact_commit_timestamp(xmin) FROM orders")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[uuid.UUID]time.Time, total)
	for rows.Next() {
		var id uuid.UUID
		var at time.Time
		if err := rows.Scan((*[16]byte)(&id), &at); err != nil {
			return nil, err
		}
		out[id] = at
	}
	return out, rows.Err()
}
