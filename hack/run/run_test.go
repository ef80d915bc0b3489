package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/localdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRunner runs a shell script in place of weir.
func fakeRunner(t *testing.T, script string) (*runner, chan os.Signal, *lines) {
	t.Helper()
	// Not t.TempDir: PostgreSQL's user must reach it when root runs the tests.
	root, err := os.MkdirTemp("", "weir-run-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	signals := make(chan os.Signal, 2)
	out := &lines{t: t, ready: make(chan struct{})}
	return &runner{
		root: root, listen: freeAddress(t), out: out, signals: signals,
		build: []string{"true"},
		weir:  []string{"/bin/sh", "-c", script},
	}, signals, out
}

const goodWeir = `
trap 'echo drained > .weir/drained; exit 0' TERM
test -s .weir/secrets/orders-database/url || exit 3
printf 'export WEIR_URL=http://127.0.0.1:1\nexport WEIR_ADMIN_URL=http://127.0.0.1:3\nexport WEIR_NATS_URL=nats://127.0.0.1:2\n' > .weir/local.env.new
mv .weir/local.env.new .weir/local.env
while :; do sleep 0.05; done
`

// lines passes output to the test's log and notes that all is ready.
type lines struct {
	t     *testing.T
	ready chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "Weir is ready") {
		close(l.ready)
	}
	return l.t.Output().Write(p)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := localdb.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func TestRun(t *testing.T) {
	r, signals, out := fakeRunner(t, goodWeir)
	done := make(chan error, 1)
	go func() { done <- r.run(context.WithoutCancel(t.Context())) }()
	select {
	case <-out.ready:
	case err := <-done:
		t.Fatal(err)
	}

	// The file is made for a shell: ask one.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c",
		`. .weir/env && echo "$WEIR_URL $WEIR_NATS_URL" && psql "$WEIR_DATABASE_URL" -Atc 'select 1' && psql "$WEIR_DATABASE_DIRECT_URL" -Atc 'select 2'`)
	cmd.Dir = r.root
	got, err := cmd.CombinedOutput()
	if want := "http://127.0.0.1:1 nats://127.0.0.1:2\n1\n2\n"; err != nil || string(got) != want {
		t.Errorf("sourced .weir/env: %v: got %q, want %q", err, got, want)
	}
	for name, mode := range map[string]os.FileMode{
		"env": 0o600, "secrets": 0o700 | os.ModeDir, "secrets/orders-database/url": 0o600, "secrets/orders-database/direct-url": 0o600,
	} {
		if info, err := os.Stat(r.path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, info, err, mode)
		}
	}

	second := &runner{root: r.root, listen: freeAddress(t), out: t.Output(), signals: signals, build: r.build, weir: r.weir}
	for what, call := range map[string]func() error{
		"a second run": func() error { return second.run(t.Context()) },
		"clean":        second.clean,
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("%s beside the first: %v", what, err)
		}
	}

	signals <- os.Interrupt
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.path("drained")); err != nil {
		t.Error("weir was not drained")
	}
	if _, err := os.Stat(r.path("env")); !os.IsNotExist(err) {
		t.Errorf(".weir/env after the end: %v", err)
	}
	if err := r.clean(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.path()); !os.IsNotExist(err) {
		t.Errorf(".weir after clean: %v", err)
	}
	if err := r.clean(); err != nil {
		t.Errorf("clean of nothing: %v", err)
	}
}

func TestRunFailures(t *testing.T) {
	for _, test := range []struct {
		name, script, want string
		afterReady         bool
	}{
		{name: "weir fails at once", script: "echo broken configuration; exit 7", want: "exit status 7"},
		{name: "weir says too little", script: "echo WEIR_URL=x > .weir/local.env; sleep 60", want: "WEIR_NATS_URL"},
		{name: "weir dies later", script: goodWeir, want: "killed", afterReady: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := os.Stat("/proc/self/cwd"); err != nil && test.afterReady {
				t.Skip("needs /proc")
			}
			r, _, out := fakeRunner(t, test.script)
			done := make(chan error, 1)
			go func() { done <- r.run(context.WithoutCancel(t.Context())) }()
			if test.afterReady {
				select {
				case <-out.ready:
				case err := <-done:
					t.Fatal(err)
				}
				kill(t, r)
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
			if _, err := os.Stat(r.path("env")); !os.IsNotExist(err) {
				t.Errorf(".weir/env after the end: %v", err)
			}
		})
	}
}

// kill kills the fake weir of this runner: the shell whose folder it is.
func kill(t *testing.T, r *runner) {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, folder := range folders {
		target, err := os.Readlink(folder)
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(folder), "cmdline"))
		if err != nil || target != r.root || !strings.Contains(string(line), "WEIR_NATS_URL") {
			continue
		}
		var pid int
		for _, digit := range filepath.Base(filepath.Dir(folder)) {
			pid = pid*10 + int(digit-'0')
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed == 0 {
		t.Fatal("found no fake weir to kill")
	}
}

// TestAnInterruptIsNotLost: neither a step that succeeds all the same nor one that fails hides it.
func TestAnInterruptIsNotLost(t *testing.T) {
	for _, result := range []error{nil, errors.New("failed")} {
		signals := make(chan os.Signal, 1)
		r := &runner{signals: signals}
		err := r.interruptible(t.Context(), func(ctx context.Context) error {
			signals <- os.Interrupt
			<-ctx.Done()
			return result
		})
		if !errors.Is(err, errInterrupted) {
			t.Errorf("the step returned %v, interruptible %v", result, err)
		}
	}
}

func TestAnInterruptWhileItStarts(t *testing.T) {
	r, signals, _ := fakeRunner(t, "sleep 60")
	signals <- os.Interrupt
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), errInterrupted.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestASecondInterruptDoesNotWait(t *testing.T) {
	c, err := startChild(t.Context(), t.TempDir(), t.Output(), []string{"/bin/sh", "-c", `trap "" TERM; while :; do sleep 0.05; done`})
	if err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	if err := c.stop(time.Minute, signals); err == nil || !strings.Contains(err.Error(), "asked again") {
		t.Errorf("got %v", err)
	}
}

func TestTheGatewaysPortIsTaken(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r, _, _ := fakeRunner(t, goodWeir)
	r.listen = listener.Addr().String()
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "WEIR_LISTEN=") {
		t.Errorf("got %v", err)
	}
}

func TestShellQuote(t *testing.T) {
	for _, s := range []string{"", "plain", "it's", "$HOME `id` \\ \"x\""} {
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q became %q, %v", s, out, err)
		}
	}
}
