package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/filelock"
	"github.com/weir-dev/weir/internal/localdb"
)

const lockName = "run.lock"

// lock locks the checkout for one run. The file names the process that holds it, for the message only: the lock itself
// is the kernel's, so that a run that was killed leaves none.
func (r *runner) lock() (*os.File, error) {
	// 0755: PostgreSQL's user must get through to .weir/db when root runs this.
	if err := os.MkdirAll(r.path(), 0o755); err != nil {
		return nil, err
	}
	lock, err := filelock.Acquire(r.path(lockName))
	if err != nil && !errors.Is(err, filelock.ErrHeld) {
		return nil, err
	}
	if err != nil {
		defer lock.Close()
		holder := make([]byte, 20)
		n, _ := lock.Read(holder) // empty: the other has not written it yet
		return nil, fmt.Errorf("`make run` is running in this checkout already (process %s); stop it with Ctrl-C there first",
			strings.TrimSpace(string(holder[:n])))
	}
	if err := lock.Truncate(0); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if _, err := fmt.Fprintln(lock, os.Getpid()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// clean removes .weir, and what the databases keep elsewhere.
func (r *runner) clean() error {
	if _, err := os.Stat(r.path()); errors.Is(err, os.ErrNotExist) {
		// The stand-in of .weir/db may be there still.
		return localdb.Remove(r.path("db"))
	}
	lock, err := r.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	// The databases of benchmarks that were killed or kept have stand-ins too.
	databases, err := filepath.Glob(r.path("bench-*"))
	if err != nil {
		return err
	}
	for i := range databases {
		databases[i] = filepath.Join(databases[i], "db")
	}
	for _, dir := range append(databases, r.path("db")) {
		if err := localdb.Remove(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(r.path()); err != nil {
		return err
	}
	r.say("Removed %s.", r.path())
	return nil
}

// writeSecrets writes the folder that `weir local` mounts as the functions'
// secret volumes: one folder a Secret, one file a key.
func (r *runner) writeSecrets(db *localdb.DB) error {
	dir := r.path("secrets", "orders-database")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		writeFile(filepath.Join(dir, "url"), db.PoolURL()),
		writeFile(filepath.Join(dir, "direct-url"), db.DirectURL()),
	)
}

// localEnv is the environment that `weir local` writes once it is ready.
type localEnv struct {
	url, adminURL, natsURL string
}

// waitForEnv waits for weir's env file. Its end and a signal end the wait.
func waitForEnv(ctx context.Context, path string, weir *child) (localEnv, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout,
		fmt.Errorf("weir is not ready after %v (it has not written %s)", readyTimeout, path))
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		content, err := os.ReadFile(path)
		if err == nil {
			return parseEnv(string(content))
		}
		if !errors.Is(err, os.ErrNotExist) {
			return localEnv{}, err
		}
		select {
		case <-weir.Done():
			return localEnv{}, fmt.Errorf("before it was ready: %w", weir.exit())
		case <-ctx.Done():
			return localEnv{}, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func parseEnv(content string) (localEnv, error) {
	var env localEnv
	for line := range strings.Lines(content) {
		key, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		switch key {
		case "WEIR_URL":
			env.url = value
		case "WEIR_ADMIN_URL":
			env.adminURL = value
		case "WEIR_NATS_URL":
			env.natsURL = value
		}
	}
	if env.url == "" || env.adminURL == "" || env.natsURL == "" {
		return env, fmt.Errorf("weir's env file lacks WEIR_URL, WEIR_ADMIN_URL or WEIR_NATS_URL; it says:\n%s", content)
	}
	return env, nil
}

// writeEnv writes .weir/env, which users source.
func (r *runner) writeEnv(ready localEnv, db *localdb.DB) error {
	var b strings.Builder
	b.WriteString("# Of the `make run` that is running; source it. Written when all is ready, removed at the end.\n")
	for _, entry := range [][2]string{
		{"WEIR_URL", ready.url},
		{"WEIR_ADMIN_URL", ready.adminURL},
		{"WEIR_NATS_URL", ready.natsURL},
		{"WEIR_DATABASE_URL", db.PoolURL()},
		{"WEIR_DATABASE_DIRECT_URL", db.DirectURL()},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", entry[0], shellQuote(entry[1]))
	}
	return writeFile(r.path("env"), b.String())
}

// removeEnv removes both env files: they are valid only while all of it runs.
func (r *runner) removeEnv() error {
	var errs []error
	for _, name := range []string{"env", "local.env"} {
		if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// writeFile writes a file of mode 0600, atomically.
func writeFile(path, content string) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
