package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// outputGrace bounds the wait for output after the child's end.
const outputGrace = 2 * time.Second

// child is the weir process, with the goroutine that waits for it.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startChild starts a command in a process group of its own: the terminal's
// Ctrl-C reaches this process only, which drains the child before it takes
// the databases away from it.
func startChild(ctx context.Context, dir string, out io.Writer, args []string) (*child, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out
	// A grandchild that holds the output open does not hold up the end.
	cmd.WaitDelay = outputGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	setDeathSignal(cmd.SysProcAttr)
	c := &child{cmd: cmd, done: make(chan struct{})}

	started := make(chan error, 1)
	go func() {
		defer close(c.done)
		// The death signal is tied to this thread, which must outlive the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // exit tells
		}
	}()
	if err := <-started; err != nil {
		<-c.done
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return c, nil
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// exit says how it ended. Only after done.
func (c *child) exit() error {
	return fmt.Errorf("%s ended by itself: %s", strings.Join(c.cmd.Args[:min(2, len(c.cmd.Args))], " "), c.cmd.ProcessState)
}

// stop asks the child to drain and waits; it is killed after the timeout or
// at the next signal. What it had accepted is durable and survives that.
func (c *child) stop(timeout time.Duration, signals <-chan os.Signal) error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var why string
	select {
	case <-c.done:
		if code := c.cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("weir's drain failed: %s", c.cmd.ProcessState)
		}
		return nil
	case <-timer.C:
		why = fmt.Sprintf("after %v", timeout)
	case <-signals:
		why = "when asked again"
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // its whole group
	<-c.done
	return fmt.Errorf("weir had not drained %s and was killed; nothing accepted is lost", why)
}
