package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/childproc"
)

// outputGrace bounds the wait for output after the child's end.
const outputGrace = 2 * time.Second

// child is the weir process.
type child struct {
	*childproc.Process
	name string // for messages
}

// startChild starts a command. The terminal's Ctrl-C does not reach it: this
// process drains it before it takes the databases away from it.
func startChild(ctx context.Context, dir string, out io.Writer, args []string) (*child, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out
	// A grandchild that holds the output open does not hold up the end.
	cmd.WaitDelay = outputGrace
	// SIGKILL: the databases end at the same moment, so there is nothing to drain to.
	p, err := childproc.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return &child{Process: p, name: strings.Join(args[:min(2, len(args))], " ")}, nil
}

// exit says how it ended by itself; it waits for that.
func (c *child) exit() error {
	return fmt.Errorf("%s ended by itself: %s", c.name, c.State())
}

// stop asks the child to drain and waits; it is killed after the timeout or
// at the next signal. What it had accepted is durable and survives that.
func (c *child) stop(timeout time.Duration, signals <-chan os.Signal) error {
	c.Signal(syscall.SIGTERM)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var why string
	select {
	case <-c.Done():
		if c.State().ExitCode() != 0 {
			return fmt.Errorf("weir's drain failed: %s", c.State())
		}
		return nil
	case <-timer.C:
		why = fmt.Sprintf("after %v", timeout)
	case <-signals:
		why = "when asked again"
	}
	c.KillGroup()
	<-c.Done()
	return fmt.Errorf("weir had not drained %s and was killed; nothing accepted is lost", why)
}
