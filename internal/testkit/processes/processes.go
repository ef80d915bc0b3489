// Package processes runs the real binaries, beside a real database, for tests that break the whole system.
//
// Invariants: a process ends with its test, also when that panics; its output is shown if the test has failed.
//
// May import: childproc, localdb and testkit; only tests import it.
package processes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/childproc"
	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/testkit"
)

// startTimeout bounds building the binaries, on a cold cache, and starting the database.
const startTimeout = 8 * time.Minute

// Main runs the tests of a package in a folder two below the checkout's root, and returns their exit code. They share what build
// puts into a folder, and a database behind a PgBouncer with so many connections, which db is set to. Goroutines that are
// left are an error.
func Main(m *testing.M, name string, poolSize int, db **localdb.DB, build func(ctx context.Context, dir string) error) int {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "weir-"+name+"-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "building the binaries:", err)
		return 1
	}
	if *db, err = localdb.Start(ctx, localdb.Config{PoolSize: poolSize, Fast: true}); err != nil {
		fmt.Fprintln(os.Stderr, "starting the database:", err)
		return 1
	}
	code := m.Run()
	if err := (*db).Stop(context.WithoutCancel(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the database:", err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// Build is go build into dir, with args and packages as the root has them.
func Build(ctx context.Context, dir string, args ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + "/"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// Child is a process of the system. Its output goes to a file, whose end is logged when the test fails.
type Child struct {
	*childproc.Process
	Name string
	t    testing.TB
	out  string
}

// Start starts a process, with env besides the test's environment.
func Start(t testing.TB, name, path string, env []string, args ...string) *Child {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".log")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Not the test's context: the cleanup ends it, and it is to survive until then.
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	p, err := childproc.Start(cmd, syscall.SIGKILL) // also when a test's timeout panics
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	c := &Child{p, name, t, out}
	t.Cleanup(func() {
		c.Kill()
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, c.Tail(4000))
		}
	})
	return c
}

// Kill is kill -9, and waits.
func (c *Child) Kill() {
	c.Signal(syscall.SIGKILL)
	<-c.Done()
}

// Terminate is SIGTERM, and waits for the drain; the exit code must be 0.
func (c *Child) Terminate() {
	c.t.Helper()
	c.Signal(syscall.SIGTERM)
	select {
	case <-c.Done():
	case <-time.After(testkit.Patience):
		c.t.Fatalf("%s did not end within %s of SIGTERM", c.Name, testkit.Patience)
	}
	if c.State().ExitCode() != 0 {
		c.t.Errorf("%s ended with %s after SIGTERM", c.Name, c.State())
	}
}

// Log is what it has written.
func (c *Child) Log() string {
	b, err := os.ReadFile(c.out)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Logs reports whether it has written the text.
func (c *Child) Logs(text string) bool { return strings.Contains(c.Log(), text) }

// Tail is the end of its log, at most n bytes.
func (c *Child) Tail(n int) string {
	s := c.Log()
	return s[max(0, len(s)-n):]
}

// FreePort is free at the moment and none of others; the children need ports that stay the same over restarts.
func FreePort(t testing.TB, others ...int) int {
	t.Helper()
	port, err := localdb.FreePort(t.Context(), others...)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
