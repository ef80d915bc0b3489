package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/childproc"
	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/testkit"
)

// child is a process of the system. Its output goes to a file, whose end is logged when the test fails.
type child struct {
	*childproc.Process
	t    testing.TB
	name string
	out  string
}

var children atomic.Int64 // for the names of their output

func startChild(t testing.TB, name, path string, env []string, args ...string) *child {
	t.Helper()
	out := filepath.Join(t.TempDir(), fmt.Sprintf("%s-%d.log", name, children.Add(1)))
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
	c := &child{Process: p, t: t, name: name, out: out}
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, c.tail(4000))
		}
	})
	return c
}

// kill is kill -9, and waits.
func (c *child) kill() {
	c.Signal(syscall.SIGKILL)
	<-c.Done()
}

// terminate is SIGTERM, and waits for the drain; the exit code must be 0.
func (c *child) terminate() {
	c.t.Helper()
	c.Signal(syscall.SIGTERM)
	select {
	case <-c.Done():
	case <-time.After(testkit.Patience):
		c.t.Fatalf("%s did not end within %s of SIGTERM", c.name, testkit.Patience)
	}
	if c.State().ExitCode() != 0 {
		c.t.Errorf("%s ended with %s after SIGTERM", c.name, c.State())
	}
}

func (c *child) log() string {
	b, err := os.ReadFile(c.out)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (c *child) tail(n int) string {
	s := c.log()
	return s[max(0, len(s)-n):]
}

// freePort is free at the moment; the children need ports that stay the same over restarts.
func freePort(t testing.TB) int {
	t.Helper()
	port, err := localdb.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// secrets writes the database's Secret as the sample manifests mount it.
func secrets(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "secrets")
	files := map[string]string{"url": parts.db.PoolURL(), "direct-url": parts.db.DirectURL()}
	if err := os.MkdirAll(filepath.Join(dir, "orders-database"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, "orders-database", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// manifests copies the orders sample, with each old string replaced by the new one after it.
func manifests(t testing.TB, oldNew ...string) string {
	t.Helper()
	const from = "../../deploy/k8s/orders"
	dir := filepath.Join(t.TempDir(), "orders")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldNew); i += 2 {
		found := false
		for _, name := range glob(t, dir, "*.yaml") {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(oldNew[i])) {
				found = true
				b = bytes.ReplaceAll(b, []byte(oldNew[i]), []byte(oldNew[i+1]))
				if err := os.WriteFile(name, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !found {
			t.Fatalf("%s does not say %q any more: adapt this test", from, oldNew[i])
		}
	}
	return dir
}

func glob(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// weir is `weir local`, which can be killed and started again on the same port and data.
type weir struct {
	t       testing.TB
	binary  string
	folder  string
	data    string
	secrets string
	env     string
	addr    string // of the gateway
	args    []string
	*child
}

func newWeir(t testing.TB, folder string, args ...string) *weir {
	t.Helper()
	return &weir{
		t: t, binary: filepath.Join(parts.bin, "weir"), folder: folder, secrets: secrets(t), args: args,
		data: filepath.Join(t.TempDir(), "nats"), env: filepath.Join(t.TempDir(), "env"),
		addr: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
	}
}

// start starts it and returns at once.
func (w *weir) start() {
	w.t.Helper()
	if err := os.Remove(w.env); err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	w.child = startChild(w.t, "weir", w.binary, nil, append([]string{
		"local", "-f", w.folder, "--listen", w.addr, "--data", w.data, "--secrets", w.secrets, "--env-file", w.env,
	}, w.args...)...)
}

// up starts it and waits until it is ready.
func (w *weir) up() {
	w.t.Helper()
	w.start()
	w.waitReady()
}

func (w *weir) waitReady() {
	w.t.Helper()
	testkit.Eventually(w.t, "weir local is ready", func() bool {
		if w.Ended() {
			w.t.Fatalf("weir local ended (%s):\n%s", w.State(), w.tail(2000))
		}
		_, err := os.Stat(w.env)
		return err == nil
	})
}

// natsURL is where its NATS listens, from the file of addresses.
func (w *weir) natsURL() string {
	w.t.Helper()
	b, err := os.ReadFile(w.env)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if url, ok := strings.CutPrefix(strings.TrimSpace(line), "export WEIR_NATS_URL="); ok {
			return url
		}
	}
	w.t.Fatalf("no WEIR_NATS_URL in %s", b)
	return ""
}

// command runs a `weir` command to its end and returns its standard output.
func (w *weir) command(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(parts.bin, "weir"), args...)
	cmd.Env = append(os.Environ(), "WEIR_NATS_URL="+w.natsURL())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("weir %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	w.t.Logf("weir %s: %s", strings.Join(args, " "), strings.TrimSpace(errs.String()))
	return out.String()
}

// orderWriter runs the sample function as a user would, in its own process, and returns its URL.
func orderWriter(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(secrets(t), "orders-database")
	port := freePort(t)
	c := startChild(t, "order-writer", filepath.Join(parts.bin, "order-writer"), []string{
		fmt.Sprintf("PORT=%d", port), "DATABASE_URL_FILE=" + filepath.Join(dir, "url"),
		"MIGRATE_DATABASE_URL_FILE=" + filepath.Join(dir, "direct-url"), "DATABASE_MAX_CONNS=16",
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	testkit.Eventually(t, "order-writer listens", func() bool {
		if c.Ended() {
			t.Fatalf("order-writer ended: %s", c.tail(2000))
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return "http://" + addr
}
