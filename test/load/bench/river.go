package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// riverWorkers serve the closed loop. They may be more than Weir's calls at once: River is not slower with them.
const riverWorkers = jobMost

// The databases of River: one with the backlog, one of a measurement, which is dropped after it.
const (
	riverFull = "river_full"
	riverTurn = "river"
)

// river is what Weir's jobs are compared with: test/load/peers/river on the bench's own PostgreSQL.
type river struct{ b *bench }

// startRiver builds it, starts PostgreSQL for it, and inserts the backlog. It returns nil if it can't be built: the rest is
// measured then.
func (b *bench) startRiver(ctx context.Context) (*river, error) {
	if !b.buildOther(ctx, "river", "", "./river") {
		return nil, nil //nolint:nilnil // it was said
	}
	if err := b.stopDatabase(); err != nil { //nolint:contextcheck // another stage's, with other settings
		return nil, err
	}
	// More connections than workers and requests ask for, memory as advised for a machine of its own, no checkpoint within a
	// measurement. fsync, full_page_writes and synchronous_commit are on, as ever; the program looks.
	err := b.startDatabaseWith(ctx, "max_connections = 400", "shared_buffers = '1GB'", "max_wal_size = '8GB'", "checkpoint_timeout = '30min'")
	if err != nil {
		return nil, err
	}
	r := &river{b}
	if err := r.create(ctx, riverFull, "template1"); err != nil {
		return nil, err
	}
	jobs, err := r.writeJobs()
	if err != nil {
		return nil, err
	}
	defer b.stopChildren()
	c, err := b.start("river", r.program(), []string{"fill", r.url(riverFull), jobs}, nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.line(ctx, drainTimeout); err != nil {
		return nil, err
	}
	return r, os.Remove(jobs)
}

func (r *river) program() string { return filepath.Join(r.b.bin, "river") }

// writeJobs writes the orders of the backlog, one a line.
func (r *river) writeJobs() (path string, err error) {
	path = r.b.folder("jobs")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	for n := range r.b.jobDrain {
		_, body, _ := bytes.Cut(r.b.orders.take(n%maxConns, uint64(n/maxConns)), []byte(headerEnd))
		_, _ = w.Write(body) // Flush returns the error
		_ = w.WriteByte('\n')
	}
	return path, w.Flush()
}

// url is that of a database of the bench's PostgreSQL, without PgBouncer: River listens.
func (r *river) url(database string) string {
	u, err := url.Parse(r.b.db.DirectURL())
	if err != nil {
		panic(err) // localdb made it
	}
	u.Path = "/" + database
	return u.String()
}

// create makes a database that is a copy of another, all of it on disk.
func (r *river) create(ctx context.Context, name, template string) error {
	return execute(ctx, r.b.db.SuperuserURL(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)",
		"CREATE DATABASE "+name+" OWNER weir TEMPLATE "+template, "CHECKPOINT")
}

// drop leaves PostgreSQL idle for the next turn, which may be Weir's.
func (r *river) drop(ctx context.Context) error {
	r.b.stopChildren()
	return execute(ctx, r.b.db.SuperuserURL(), "DROP DATABASE "+riverTurn+" WITH (FORCE)", "CHECKPOINT")
}

// done is the closed loop of jobsDone.
func (r *river) done(ctx context.Context, orders *orderBook) error {
	defer r.b.stopChildren()
	if err := r.create(ctx, riverTurn, "template1"); err != nil {
		return err
	}
	_, function, err := r.b.self(ctx, "work", "work", "0s")
	if err != nil {
		return err
	}
	c, addr, err := r.b.startLine(ctx, "river", r.program(), "serve", r.url(riverTurn), "http://"+function, strconv.Itoa(riverWorkers))
	if err != nil {
		return err
	}
	t := &target{addr: addr, pids: map[string]int{"river": c.PID()}}
	if err := r.b.closedLoop(ctx, "river_", t, orders); err != nil {
		return err
	}
	return r.drop(ctx)
}

// drain is drainJobs with so many workers.
func (r *river) drain(ctx context.Context, workers int) error {
	defer r.b.stopChildren()
	if err := r.create(ctx, riverTurn, riverFull); err != nil {
		return err
	}
	_, function, err := r.b.self(ctx, "work", "work", "0s")
	if err != nil {
		return err
	}
	c, err := r.b.start("river", r.program(), []string{"drain", r.url(riverTurn), "http://" + function, strconv.Itoa(workers), strconv.Itoa(r.b.jobDrain)}, nil)
	if err != nil {
		return err
	}
	others := r.b.watchOthers()
	line, err := c.line(ctx, drainTimeout)
	if err != nil {
		return err
	}
	crowd := r.b.crowd(others())
	took, err := time.ParseDuration(line)
	if err != nil {
		return c.failure("printed no duration")
	}
	name := "river_drain_per_s_" + strconv.Itoa(workers)
	perSecond := float64(r.b.jobDrain) / took.Seconds()
	r.b.results.add(name, perSecond)
	fmt.Printf("    %-26s %7.0f/s%s\n", name, perSecond, crowd)
	return r.drop(ctx)
}
