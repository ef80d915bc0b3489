package localdb

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/childproc"
)

// process is a server that was started, with the goroutine that waits for it.
type process struct {
	name  string
	child *childproc.Process
	log   *os.File
	start int64 // where in log this run begins

	// wanted is true from readiness until a stop: an end in between is a loss.
	wanted atomic.Bool
	lost   func(error)

	exited chan struct{} // closed when the process has ended
	done   chan struct{} // closed when its goroutine is about to end, after exited
}

// command is what to run.
type command struct {
	name  string // for messages
	path  string
	args  []string
	death syscall.Signal // what the process gets when this one is killed
	lost  func(error)    // called when the process ends unasked
}

// start starts the process with its output in log, which it takes over.
func (f *folder) start(ctx context.Context, c command, log *os.File) (*process, error) {
	start, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("localdb: find the end of %s: %w", log.Name(), err)
	}
	// Not bound to ctx: it ends the start, not the server.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), c.path, c.args...)
	cmd.Dir = f.home
	cmd.Env = serverEnvironment(f.home)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = f.account.attributes()
	child, err := childproc.Start(cmd, c.death)
	if err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("localdb: start %s: %w", c.path, err)
	}
	p := &process{name: c.name, child: child, log: log, start: start, lost: c.lost, exited: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		<-child.Done()
		_ = log.Close()
		// Before the loss is reported: a caller that then starts the server again must not find it running.
		// TestPostgresIsKilled guards it.
		close(p.exited)
		if p.wanted.Load() {
			p.lost(fmt.Errorf("localdb: %s ended by itself (%s); its last lines:\n%s", p.name, child.State(), p.tail()))
		}
	}()
	return p, nil
}

// attributes are those of every child, besides those that childproc sets.
func (a account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.credential}
}

// serverEnvironment leaves out PGDATA, PGPORT and the like, which would override the configuration made here.
func serverEnvironment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "LC_ALL=C", "TZ=UTC"}
}

// pid is the process id, 0 when it is not running. p may be nil.
func (p *process) pid() int {
	if p == nil || p.ended() {
		return 0
	}
	return p.child.PID()
}

// ended reports whether the process is gone; its goroutine is then, too. p may be nil.
func (p *process) ended() bool {
	if p == nil {
		return true
	}
	select {
	case <-p.exited:
		<-p.done
		return true
	default:
		return false
	}
}

// stop sends the signals one after the other, each when the one before has
// had its grace or ctx is over, then kills. The last signal has its grace
// even when ctx is over: callers clean up with contexts that are. It returns
// when the process has ended, with an error if that took a kill.
func (p *process) stop(ctx context.Context, grace time.Duration, signals ...syscall.Signal) error {
	p.wanted.Store(false)
	for i, signal := range signals {
		p.child.Signal(signal)
		bound := ctx
		if i == len(signals)-1 {
			bound = context.WithoutCancel(ctx)
		}
		bound, cancel := context.WithTimeout(bound, grace)
		select {
		case <-p.done:
			cancel()
			return nil
		case <-bound.Done():
			cancel()
		}
	}
	p.child.Signal(syscall.SIGKILL)
	<-p.done
	return &killedError{name: p.name, log: p.log.Name()}
}

// poll calls ready until it returns nil, the process ends or ctx is over.
func (p *process) poll(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return &exitError{name: p.name, state: p.child.State().String(), tail: p.tail()}
		case <-ctx.Done():
			return fmt.Errorf("localdb: %s does not answer: %w (%w); its last lines:\n%s", p.name, context.Cause(ctx), err, p.tail())
		case <-ticker.C:
		}
	}
}

// exitError says that a server ended while it was starting.
type exitError struct {
	name, state, tail string
}

func (e *exitError) Error() string {
	return fmt.Sprintf("localdb: %s ended while starting (%s); its last lines:\n%s", e.name, e.state, e.tail)
}

// killedError says that a server did not stop when asked.
type killedError struct {
	name, log string
}

func (e *killedError) Error() string {
	return fmt.Sprintf("localdb: %s did not stop when asked and was killed; see %s", e.name, e.log)
}

// tail returns the last lines of the log since this start.
func (p *process) tail() string {
	const limit = 4 << 10
	file, err := os.Open(p.log.Name()) // a descriptor of its own: log may be closed
	if err != nil {
		return "(" + err.Error() + ")"
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "(" + err.Error() + ")"
	}
	from := max(p.start, info.Size()-limit)
	content, err := io.ReadAll(io.NewSectionReader(file, from, limit))
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return strings.TrimSpace(string(content))
}

// run runs a short program to its end and returns its error with its output.
// It is killed with everything it started when ctx is over or this process is
// killed.
func (f *folder) run(ctx context.Context, stdin, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = f.home
	cmd.Env = serverEnvironment(f.home)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = f.account.attributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = connectTimeout
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := childproc.Run(cmd, syscall.SIGKILL); err != nil {
		return fmt.Errorf("localdb: %s: %w; it said:\n%s", path, err, strings.TrimSpace(out.String()))
	}
	return nil
}
