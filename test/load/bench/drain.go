package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// drainVariant is what the dispatcher and order-writer tell, and the gateway told while it filled the queue.
type drainVariant struct {
	name      string // in the figures' names
	telemetry telemetryKind
	full      string // folder; the full queue
}

// drain measures how fast a full queue becomes rows, with and without telemetry, against the same rows by COPY, alternating.
func (b *bench) drain(ctx context.Context) error {
	if err := b.startDatabase(ctx); err != nil {
		return err
	}
	variants := []drainVariant{{name: "drain"}, {name: "drain_without", telemetry: telemetryOff}, {name: "drain_telemetry", telemetry: telemetrySampled}}
	for i := range variants {
		variants[i].full = b.folder("full")
		if err := b.fill(ctx, variants[i]); err != nil {
			return fmt.Errorf("fill the queue: %w", err)
		}
	}
	var rows []orderRow
	for round := range b.rounds {
		b.say("drain, round %d of %d", round+1, b.rounds)
		if round%2 == 1 {
			if err := b.copyRows(ctx, rows); err != nil {
				return fmt.Errorf("copy: %w", err)
			}
		}
		for _, v := range variants {
			if err := b.drainOnce(ctx, v); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		slices.Reverse(variants)
		if rows == nil {
			var err error
			if rows, err = b.readRows(ctx); err != nil {
				return fmt.Errorf("read the rows: %w", err)
			}
		}
		if round%2 == 0 {
			if err := b.copyRows(ctx, rows); err != nil {
				return fmt.Errorf("copy: %w", err)
			}
		}
	}
	b.results.ratio("drain_vs_copy", "drain_per_s", "copy_per_s")
	b.results.ratio("drain_telemetry_vs_without", "drain_telemetry_per_s", "drain_without_per_s")
	b.results.add("drain_orders", float64(b.drainOrders))
	for _, v := range variants {
		if err := os.RemoveAll(v.full); err != nil {
			return err
		}
	}
	return nil
}

// fill posts the orders through the gateway while nothing dispatches, and stops everything: what is in
// v's folder then is the full queue that each round drains a copy of.
func (b *bench) fill(ctx context.Context, v drainVariant) error {
	defer b.stopChildren()
	_, url, err := b.startNATS(ctx, v.full)
	if err != nil {
		return err
	}
	cat, err := b.catalogOf("http://127.0.0.1:1") //nolint:contextcheck // reading YAML takes none
	if err != nil {
		return err
	}
	if err := provision(ctx, url, withoutMappings(cat)); err != nil {
		return err
	}
	env, _, err := b.telemetryEnv(ctx, v.telemetry)
	if err != nil {
		return err
	}
	_, addr, err := b.startGateway(ctx, url, env...)
	if err != nil {
		return err
	}
	l := load{addr: addr, conns: maxConns, orders: b.orders, total: b.drainOrders}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	b.say("the queue holds %d orders, posted at %.0f/s", res.stored, res.perSecond())
	return nil
}

func (b *bench) drainOnce(ctx context.Context, v drainVariant) error {
	defer b.stopChildren()
	dir := b.folder("nats")
	if err := os.CopyFS(dir, os.DirFS(v.full)); err != nil {
		return err
	}
	server, natsURL, err := b.startNATS(ctx, dir)
	if err != nil {
		return err
	}
	env, collector, err := b.telemetryEnv(ctx, v.telemetry)
	if err != nil {
		return err
	}
	writer, url, err := b.startWriter(ctx, env...)
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
	conn, err := connect(ctx, natsURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	dispatcher, err := b.startDispatcher(natsURL, env...)
	if err != nil {
		return err
	}
	wait(ctx, time.Second) // it is up, and runs the catalog without mappings
	pids := func() map[string][]int {
		of := map[string][]int{
			"dispatcher": {dispatcher.PID()}, "writer": {writer.PID()}, "nats": {server.PID()},
			"postgres": family(b.db.PostgresPID()), "pgbouncer": {b.db.PgBouncerPID()},
		}
		if collector != nil {
			of["collector"] = []int{collector.PID()}
		}
		return of
	}
	cpu := map[string]time.Duration{}
	for name, p := range pids() {
		cpu[name] = -cpuTime(p...)
	}
	for name, pid := range map[string]int{"dispatcher": dispatcher.PID(), "writer": writer.PID(), "nats": server.PID()} {
		b.perf(v.name+"-"+name, 4*time.Second, pid)
	}
	others := b.watchOthers()
	start := time.Now()
	if err := conn.PublishCatalog(ctx, cat, 1, nil); err != nil {
		return err
	}
	if err := untilEmpty(ctx, conn, queueKey(cat)); err != nil {
		return err
	}
	took, crowd := time.Since(start), b.crowd(others())
	for name, p := range pids() {
		cpu[name] += cpuTime(p...)
	}
	n, err := b.countRows(ctx)
	if err != nil {
		return err
	}
	if n != b.drainOrders {
		return fmt.Errorf("the queue is empty, and the table has %d rows of %d", n, b.drainOrders)
	}
	perSecond := float64(n) / took.Seconds()
	b.results.add(v.name+"_per_s", perSecond)
	prefix := ""
	if v.name != "drain" {
		prefix = v.name + "_"
	}
	var costs strings.Builder
	for _, name := range slices.Sorted(maps.Keys(cpu)) {
		us := float64(cpu[name].Microseconds()) / float64(n)
		b.results.add("cpu_us_per_record_"+prefix+name, us)
		fmt.Fprintf(&costs, " %s %.1f", name, us)
	}
	fmt.Printf("    %-15s %7.0f/s; CPU in µs an order:%s%s\n", v.name, perSecond, costs.String(), crowd)
	b.stopChildren()
	return os.RemoveAll(dir)
}

const drainTimeout = 5 * time.Minute

// untilEmpty asks NATS, not the database, so as not to disturb what is measured.
func untilEmpty(ctx context.Context, conn *stream.Conn, k catalog.Key) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, errors.New("the queue was not empty in time"))
	defer cancel()
	for ctx.Err() == nil {
		status, err := conn.Status(ctx, k)
		if err != nil {
			return err
		}
		if status.Empty() {
			return nil
		}
		wait(ctx, 25*time.Millisecond)
	}
	return context.Cause(ctx)
}

func (b *bench) emptyTable(ctx context.Context) error {
	if err := execute(ctx, b.db.DirectURL(), "TRUNCATE orders"); err != nil {
		return err
	}
	return execute(ctx, b.db.SuperuserURL(), "CHECKPOINT") // else it may fall into one measurement or the other
}

func (b *bench) countRows(ctx context.Context) (n int, err error) {
	conn, err := pgx.Connect(ctx, b.db.DirectURL())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return n, conn.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n)
}

// orderRow is a row of the table, without the columns that have a default.
type orderRow struct {
	id       [16]byte
	customer *string
	sku      string
	quantity *int32
	body     []byte
	accepted time.Time
}

// readRows returns the rows as drain has stored them.
func (b *bench) readRows(ctx context.Context) (rows []orderRow, err error) {
	conn, err := pgx.Connect(ctx, b.db.DirectURL())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	found, err := conn.Query(ctx, "SELECT id, customer, sku, quantity, body::text, accepted_at FROM orders")
	if err != nil {
		return nil, err
	}
	rows = make([]orderRow, 0, b.drainOrders)
	for found.Next() {
		var r orderRow
		if err := found.Scan(&r.id, &r.customer, &r.sku, &r.quantity, &r.body, &r.accepted); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// copyRows writes rows straight into the same table with the same indexes.
func (b *bench) copyRows(ctx context.Context, rows []orderRow) (err error) {
	if err := b.emptyTable(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, b.db.DirectURL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	others := b.watchOthers()
	start := time.Now()
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"orders"},
		[]string{"id", "customer", "sku", "quantity", "body", "accepted_at"},
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
			r := &rows[i]
			return []any{r.id, r.customer, r.sku, r.quantity, r.body, r.accepted}, nil
		}))
	if err != nil {
		return err
	}
	perSecond := float64(n) / time.Since(start).Seconds()
	b.results.add("copy_per_s", perSecond)
	fmt.Printf("    copy            %7.0f/s%s\n", perSecond, b.crowd(others()))
	return nil
}

// perf profiles a process for a while, when profiles are wanted and perf is there. The symbols come from
// the binary: `perf report -i FILE`.
func (b *bench) perf(name string, d time.Duration, pid int) {
	if b.profile == "" {
		return
	}
	args := []string{"record", "-F", "999", "-g", "-p", strconv.Itoa(pid), "-o", filepath.Join(b.profile, name+".data"), "--", "sleep", fmt.Sprint(d.Seconds())}
	if _, err := b.start("perf", "perf", args, nil); err != nil {
		fmt.Println("    no profile:", err)
	}
}
