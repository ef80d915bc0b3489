package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/localdb"
)

const (
	defaultListen = "127.0.0.1:8080"

	// readyTimeout bounds weir's way from its start to its env file.
	readyTimeout = 60 * time.Second
	// drainTimeout bounds the drain: a call of a function may take 60 s.
	drainTimeout = 75 * time.Second
	// databaseStopTimeout bounds the databases' stop.
	databaseStopTimeout = 30 * time.Second
)

var errInterrupted = errors.New("interrupted")

// runner is one `make run`.
type runner struct {
	root    string // of the checkout
	listen  string
	out     io.Writer
	signals <-chan os.Signal

	build []string // the command that builds weir
	weir  []string // the command that runs it
}

func newRunner(out io.Writer, signals <-chan os.Signal) (*runner, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "hack", "run", "runner.go")); err != nil {
		return nil, fmt.Errorf("start it from the checkout's root (make run): %w", err)
	}
	r := &runner{root: root, listen: defaultListen, out: out, signals: signals}
	if listen := os.Getenv("WEIR_LISTEN"); listen != "" {
		r.listen = listen
	}
	r.build = []string{"go", "build", "-o", "bin/weir", "./cmd/weir"}
	r.weir = []string{
		"bin/weir", "local", "-f", "deploy/k8s/orders", "--listen", r.listen,
		"--data", ".weir/nats", "--secrets", ".weir/secrets", "--env-file", ".weir/local.env",
	}
	return r, nil
}

// path is a path in .weir, where everything of a run is.
func (r *runner) path(parts ...string) string {
	return filepath.Join(append([]string{r.root, ".weir"}, parts...)...)
}

func (r *runner) say(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }
func (r *runner) step(format string, args ...any) {
	r.say("==> "+format, args...)
}

// run starts everything, in the order of dependencies, and ends it in the reverse order on a signal or when a part
// ends by itself.
func (r *runner) run(ctx context.Context) (err error) {
	begin := time.Now()
	lock, err := r.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := r.checkListen(ctx); err != nil {
		return err
	}
	// Left by a run that was killed: nobody must take them for this one's.
	if err := r.removeEnv(); err != nil {
		return err
	}

	r.step("Starting PostgreSQL and PgBouncer (.weir/db)")
	var db *localdb.DB
	err = r.interruptible(ctx, func(ctx context.Context) (err error) {
		db, err = localdb.Start(ctx, localdb.Config{
			Dir: r.path("db"),
			Log: slog.New(printer{r.out}),
		})
		return err
	})
	if db == nil {
		return err
	}
	defer func() {
		r.step("Stopping PgBouncer and PostgreSQL")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), databaseStopTimeout)
		defer cancel()
		err = errors.Join(err, db.Stop(ctx), r.removeEnv())
		if err == nil {
			r.say("Everything has ended. The data is kept in .weir; `make clean-data` removes it.")
		}
	}()
	if err != nil { // interrupted, but the databases had just started
		return err
	}
	if err := r.writeSecrets(db); err != nil {
		return err
	}

	r.step("Building bin/weir")
	if err := r.interruptible(ctx, r.buildWeir); err != nil {
		return err
	}

	r.step("Starting weir local -f deploy/k8s/orders on %s", r.listen)
	weir, err := startChild(ctx, r.root, r.out, r.weir)
	if err != nil {
		return err
	}
	defer func() {
		if weir.Ended() {
			return
		}
		r.step("Draining weir (Ctrl-C again: don't wait)")
		err = errors.Join(err, weir.stop(drainTimeout, r.signals))
	}()
	var ready localEnv
	err = r.interruptible(ctx, func(ctx context.Context) (err error) {
		ready, err = waitForEnv(ctx, r.path("local.env"), weir)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.writeEnv(ready, db); err != nil {
		return err
	}
	r.explain(ready, time.Since(begin))

	select {
	case <-r.signals:
		r.say("")
		return nil
	case <-weir.Done():
		return weir.exit()
	case err := <-db.Lost():
		return err
	}
}

// interruptible runs a step whose context ends on a signal. A step that was
// interrupted may have succeeded all the same: what it started is the
// caller's to end.
func (r *runner) interruptible(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = step(ctx)
	}()
	select {
	case <-done:
		return err
	case <-r.signals:
		cancel(errInterrupted)
		<-done // the step's goroutine ends before this returns; its error is the interruption
		return errInterrupted
	}
}

// checkListen reports that the port is taken before anything else is started.
func (r *runner) checkListen(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s, the gateway's address, is taken by another program; choose another one, for example: WEIR_LISTEN=127.0.0.1:8081 make run", r.listen)
	}
	if err != nil {
		return fmt.Errorf("WEIR_LISTEN: cannot listen on %q (give it as host:port): %w", r.listen, err)
	}
	return listener.Close()
}

func (r *runner) buildWeir(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, r.build[0], r.build[1:]...)
	cmd.Dir = r.root
	cmd.Stdout, cmd.Stderr = r.out, r.out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build weir: %w", err)
	}
	return nil
}

// explain prints what a newcomer does next.
func (r *runner) explain(ready localEnv, took time.Duration) {
	r.say(`
Weir is ready, after %.1f s: %s
metrics: %s/metrics

In another terminal, in this folder:

  source .weir/env

  # post an order: 202 and its id, once it is durable
  curl -i "$WEIR_URL/orders" -H 'Content-Type: application/json' \
    -d '{"sku": "book-42", "quantity": 1, "customer": "ada"}'

  # see it: through the API, in the database
  curl "$WEIR_URL/orders?limit=5"
  psql "$WEIR_DATABASE_URL" -c 'select id, sku, quantity, customer, created_at from orders order by created_at desc limit 5'

  # where the time of an order went, hop by hop, by its id: if this is WEIR_TELEMETRY=1 make run
  bin/weir trace ID

  # ask for a report that takes 3 s: 202 and a job; see how far it is; its result as soon as it is there
  job=$(curl -s "$WEIR_URL/reports" -H 'Content-Type: application/json' -d '{"seconds": 3, "rows": 10}' |
    sed 's/.*"self":"\([^"]*\)".*/\1/')
  curl -s "$WEIR_URL$job"
  curl -s "$WEIR_URL$job/result" -H 'Prefer: wait=20'

  # orders that could not be written
  bin/weir dlq list orders

Ctrl-C ends everything; the data stays.`, took.Seconds(), ready.url, ready.adminURL)
}

// printer is a slog.Handler for people: the message, then the attributes.
type printer struct{ out io.Writer }

func (p printer) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (p printer) WithAttrs([]slog.Attr) slog.Handler               { return p }
func (p printer) WithGroup(string) slog.Handler                    { return p }

func (p printer) Handle(_ context.Context, record slog.Record) error {
	line := "    " + record.Message
	record.Attrs(func(attr slog.Attr) bool {
		line += " " + attr.Key + "=" + attr.Value.String()
		return true
	})
	_, err := fmt.Fprintln(p.out, line)
	return err
}
