package childproc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/childproc"
)

// victim, when set, makes the test binary a starter that waits to be killed: see TestKilledStarter.
const victim = "CHILDPROC_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victim) != "" {
		cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", "echo started; exec sleep 600")
		cmd.Stdout = os.Stdout
		fmt.Fprintln(os.Stderr, childproc.Run(cmd, syscall.SIGKILL))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestStart(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `read -r line; exit "$line"`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := childproc.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	if p.Ended() {
		t.Error("it has ended before it was told to")
	}
	if group, err := syscall.Getpgid(p.PID()); err != nil || group != p.PID() {
		t.Errorf("its group is %d, %v; want its own, %d", group, err, p.PID())
	}
	if _, err := io.WriteString(in, "7\n"); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || p.State().ExitCode() != 7 || !p.Ended() {
		t.Errorf("got %v, %s; want exit code 7", err, p.State())
	}
	p.Signal(syscall.SIGTERM) // nothing happens
	p.KillGroup()
}

func TestStartFails(t *testing.T) {
	if p, err := childproc.Start(exec.CommandContext(t.Context(), "/nonexistent/program"), syscall.SIGKILL); err == nil || p != nil {
		t.Errorf("got %v, %v", p, err)
	}
}

// TestKillGroup: the grandchild holds the other end of the pipe until it is gone too.
func TestKillGroup(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 600 & echo started; wait")
	cmd.Stdout = w
	p, err := childproc.Start(cmd, syscall.SIGKILL)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(r)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Error(err)
	}
	p.KillGroup()
	<-p.Done()
	if _, err := io.ReadAll(lines); err != nil {
		t.Error(err)
	}
}

// TestTheStartersThreadEnds: the death signal is not sent while this process is there.
func TestTheStartersThreadEnds(t *testing.T) {
	var p *childproc.Process
	var err error
	var wg sync.WaitGroup
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "read -r line; exit 0")
	in, perr := cmd.StdinPipe()
	if perr != nil {
		t.Fatal(perr)
	}
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		p, err = childproc.Start(cmd, syscall.SIGKILL)
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "end\n"); err != nil {
		t.Error(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// TestKilledStarter kills a starter; its child holds the other end of the pipe until it is gone too.
func TestKilledStarter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a death signal")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), victim+"=1")
	cmd.Stdout = w
	starter, err := childproc.Start(cmd, syscall.SIGKILL)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(r)
	if line, err := lines.ReadString('\n'); err != nil || line != "started\n" {
		t.Errorf("the child said %q, %v", line, err)
	}
	starter.Signal(syscall.SIGKILL)
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("after its starter's end the child said %q, %v", rest, err)
	}
	<-starter.Done()
}
