// Package childproc starts processes that end with the one that started them.
//
// Invariants:
//
//   - On Linux the kernel sends the child its death signal when this process is gone, killed or not
//     (Pdeathsig). The kernel ties that to the thread that forked, so each child has a goroutine that keeps
//     its thread until the child has ended. Elsewhere there is no such signal and no such thread.
//   - Each child is the leader of a process group of its own: a terminal's Ctrl-C reaches the starter only,
//     which ends its children in order.
//   - Each child is waited for, by that goroutine, which ends with it.
//
// May import: the standard library only.
package childproc

import (
	"os"
	"os/exec"
	"syscall"
)

// Process is a child that was started.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of cmd.Wait; written before done is closed
}

// Start starts cmd and returns at once. death is what the kernel sends the child when this process is gone. Process
// group and death signal are set here; the rest of cmd is the caller's, who must not use it until the end: neither
// Wait nor ProcessState.
func Start(cmd *exec.Cmd, death syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	p := &Process{cmd: cmd, done: make(chan struct{})}

	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// Never unlocked: a goroutine that ends while it is locked takes its thread along.
		tieToThread(cmd.SysProcAttr, death)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

// Run is Start and Wait.
func Run(cmd *exec.Cmd, death syscall.Signal) error {
	p, err := Start(cmd, death)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns what exec.Cmd.Wait did. It may be called several times.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// PID is the process id, which is its group's id too. Somebody else may have it once the process has ended.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// State says how the process ended; it waits for the end.
func (p *Process) State() *os.ProcessState {
	<-p.done
	return p.cmd.ProcessState
}

// Signal sends a signal. Nothing happens when the process has ended.
func (p *Process) Signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // os.ErrProcessDone, or it has just ended
}

// KillGroup kills the process and what it has started, unless the process has ended.
func (p *Process) KillGroup() {
	if !p.Ended() {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // an error says that it has just ended
	}
}
