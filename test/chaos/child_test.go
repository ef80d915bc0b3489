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
	"testing"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

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
	*processes.Child
}

func newWeir(t testing.TB, folder string, args ...string) *weir {
	t.Helper()
	return &weir{
		t: t, binary: filepath.Join(parts.bin, "weir"), folder: folder, secrets: secrets(t), args: args,
		data: filepath.Join(t.TempDir(), "nats"), env: filepath.Join(t.TempDir(), "env"),
		addr: fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t)),
	}
}

// start starts it and returns at once.
func (w *weir) start() {
	w.t.Helper()
	if err := os.Remove(w.env); err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	w.Child = processes.Start(w.t, "weir", w.binary, nil, append([]string{
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
			w.t.Fatalf("weir local ended (%s):\n%s", w.State(), w.Tail(2000))
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
	port := processes.FreePort(t)
	c := processes.Start(t, "order-writer", filepath.Join(parts.bin, "order-writer"), []string{
		fmt.Sprintf("PORT=%d", port), "DATABASE_URL_FILE=" + filepath.Join(dir, "url"),
		"MIGRATE_DATABASE_URL_FILE=" + filepath.Join(dir, "direct-url"), "DATABASE_MAX_CONNS=16",
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	testkit.Eventually(t, "order-writer listens", func() bool {
		if c.Ended() {
			t.Fatalf("order-writer ended: %s", c.Tail(2000))
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return "http://" + addr
}
