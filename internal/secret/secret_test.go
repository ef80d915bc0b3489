package secret_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a fetch whose answer the test sets.
type script struct {
	reads atomic.Int64
	mu    sync.Mutex
	text  string
	err   error
}

func (s *script) set(text string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.err = text, err
}

func (s *script) read(context.Context) ([]byte, error) {
	s.reads.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.text), s.err
}

func get(t *testing.T, c *secret.Cache, want string, stale bool) secret.Value {
	t.Helper()
	v, err := c.Get(t.Context())
	if err != nil || v.Text() != want || v.Stale != stale {
		t.Fatalf("%q stale=%v %v, want %q stale=%v", v.Text(), v.Stale, err, want, stale)
	}
	return v
}

func TestCacheOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		src := &script{text: "one"}
		c := secret.New(src.read, secret.Config{Name: "database url", TTL: time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))})
		start := time.Now()

		get(t, c, "one", false)
		src.set("two", nil)
		time.Sleep(time.Minute - 1) //nolint:forbidigo // synctest
		get(t, c, "one", false)
		if n := src.reads.Load(); n != 1 {
			t.Fatalf("%d reads within the TTL", n)
		}
		time.Sleep(time.Nanosecond) //nolint:forbidigo // synctest
		if v := get(t, c, "two", false); !v.ReadAt.Equal(start.Add(time.Minute)) {
			t.Fatalf("read at %v", v.ReadAt)
		}

		// The fetch fails for ten minutes: the last good value stays, with its age.
		src.set("", errors.New("the store is away"))
		for range 120 {
			time.Sleep(5 * time.Second) //nolint:forbidigo // synctest
			get(t, c, "two", time.Since(start) >= 2*time.Minute)
		}
		if v := get(t, c, "two", true); time.Since(v.ReadAt) != 10*time.Minute {
			t.Fatalf("age %v", time.Since(v.ReadAt))
		}
		if n := strings.Count(log.String(), "cannot be refreshed"); n != 1 {
			t.Fatalf("logged %d times:\n%s", n, log.String())
		}
		if n := src.reads.Load(); n > 2+120 {
			t.Fatalf("%d reads while failing", n)
		}

		src.set("three", nil)
		time.Sleep(5 * time.Second) //nolint:forbidigo // synctest
		get(t, c, "three", false)
		if !strings.Contains(log.String(), "readable again") {
			t.Fatalf("recovery isn't logged:\n%s", log.String())
		}
		for _, s := range []string{"one", "two", "three"} {
			if strings.Contains(log.String(), "="+s) {
				t.Fatalf("the log leaks a secret:\n%s", log.String())
			}
		}
	})
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &script{text: "one"}
		c := secret.New(src.read, secret.Config{})
		get(t, c, "one", false)
		src.set("two", nil)
		c.Expire() // too soon: many callers that are refused at once must not cause as many reads
		get(t, c, "one", false)
		time.Sleep(time.Second) //nolint:forbidigo // synctest
		c.Expire()
		c.Expire()
		get(t, c, "two", false)
		if n := src.reads.Load(); n != 2 {
			t.Fatalf("%d reads", n)
		}
	})
}

// Without a value callers wait for the one that reads; with an expired one they don't.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		release := make(chan struct{})
		c := secret.New(func(ctx context.Context) ([]byte, error) {
			n := reads.Add(1)
			select {
			case <-release:
				return fmt.Appendf(nil, "value %d", n), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, secret.Config{TTL: time.Minute})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if v, err := c.Get(t.Context()); err != nil || v.Text() != "value 1" {
					t.Errorf("%q %v", v.Text(), err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a caller waited beyond its context: %v", err)
		}
		if n := reads.Load(); n != 1 {
			t.Fatalf("%d reads at once", n)
		}
		release <- struct{}{}
		wg.Wait()

		time.Sleep(time.Minute) //nolint:forbidigo // synctest
		wg.Go(func() {
			if v, err := c.Get(t.Context()); err != nil || v.Text() != "value 2" {
				t.Errorf("the refresher: %q %v", v.Text(), err)
			}
		})
		synctest.Wait()
		get(t, c, "value 1", false) // at once, although the refresh hangs
		release <- struct{}{}
		wg.Wait()
		get(t, c, "value 2", false)

		// A refresher that gives up says nothing about the secret: not stale, and the next one tries.
		time.Sleep(time.Minute) //nolint:forbidigo // synctest
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v, err := c.Get(ctx); err != nil || v.Text() != "value 2" || v.Stale {
			t.Fatalf("%q stale=%v %v", v.Text(), v.Stale, err)
		}
		wg.Go(func() { release <- struct{}{} })
		get(t, c, "value 4", false)
		wg.Wait()
	})
}

func TestFirstReadFails(t *testing.T) {
	src := &script{err: errors.New("away")}
	c := secret.New(src.read, secret.Config{Name: "database url"})
	if _, err := c.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "database url: away") {
		t.Fatal(err)
	}
	src.set("one", nil)
	get(t, c, "one", false)

	src = &script{text: strings.Repeat("x", secret.MaxBytes+1)}
	if _, err := secret.New(src.read, secret.Config{}).Get(t.Context()); err == nil {
		t.Fatal("an oversized secret was accepted")
	}
}

// The kubelet renews a mounted Secret by swapping a symbolic link to a folder.
func TestFileRotation(t *testing.T) {
	dir := t.TempDir()
	write := func(version, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "url"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	read := secret.File(filepath.Join(dir, "..data", "url"))
	if _, err := read(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for i, text := range []string{"postgres://one\n", "postgres://two"} {
		write(fmt.Sprintf("..v%d", i), text)
		if b, err := read(t.Context()); err != nil || string(b) != strings.TrimSpace(text) {
			t.Fatalf("%q %v", b, err)
		}
	}
	write("..empty", " \n")
	if _, err := read(t.Context()); err == nil {
		t.Fatal("an empty file was accepted")
	}
	write("..huge", strings.Repeat("x", secret.MaxBytes+10))
	if _, err := secret.New(read, secret.Config{}).Get(t.Context()); err == nil {
		t.Fatal("an oversized file was accepted")
	}
}

func TestValueNeverPrintsItself(t *testing.T) {
	v, err := secret.New((&script{text: "hunter2"}).read, secret.Config{}).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "p", &v)
	for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%v %+v %#v %s %q", v, v, v, v, &v), fmt.Sprintf("%+v", struct{ V secret.Value }{v}), log.String()} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("leaked: %s", s)
		}
	}
}
