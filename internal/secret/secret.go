// Package secret keeps secrets in memory, read outside the request path: a request must neither
// wait for a secret store nor multiply the reads of one (9,000 concurrent functions are otherwise
// 9,000 reads of the same secret).
//
// Invariants: a value is served from memory until its TTL has passed; one caller refreshes it while
// the others go on with the old one; a refresh that fails keeps the last good value for as long as
// it takes, says so in [Value.Stale] and logs it once; a value never prints itself.
//
// May import: the standard library only. Rank 1.
package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// DefaultTTL bounds how long a rotated secret goes unnoticed. The kubelet itself takes up to a
	// minute to renew a mounted Secret.
	DefaultTTL = time.Minute
	// MaxBytes bounds a secret. A larger one is refused, not cut. (A Kubernetes Secret may have 1 MiB
	// in all; what is larger than this is not a credential.)
	MaxBytes = 64 << 10
	// retryEvery is the pause between refreshes while they fail.
	retryEvery = 5 * time.Second
)

// Fetch reads a secret from where it is kept. Cache calls it one at a time.
type Fetch func(ctx context.Context) ([]byte, error)

// File fetches from a file, such as a key of a mounted Kubernetes Secret. Rotation replaces the
// file (the kubelet swaps a symbolic link), so it is opened anew each time. White space around the
// secret is dropped: editors and `echo` end files with a newline.
func File(path string) Fetch {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		b = bytes.TrimSpace(b)
		if len(b) == 0 {
			return nil, fmt.Errorf("%s is empty", path)
		}
		return b, nil
	}
}

// Config of a Cache. The zero value means the defaults.
type Config struct {
	Name string           // what the secret is, for errors and the log; never its content
	TTL  time.Duration    // default DefaultTTL
	Now  func() time.Time // default time.Now
	Log  *slog.Logger     // default slog.Default()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "secret"
	}
	if c.TTL <= 0 {
		c.TTL = DefaultTTL
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

// Value is a secret and what is known of its age.
type Value struct {
	text   string
	ReadAt time.Time // when it was last fetched
	Stale  bool      // the last refresh failed; ReadAt tells how old the value is
}

// Text returns the secret itself.
func (v Value) Text() string { return v.text }

const redacted = "[redacted]"

// String keeps the secret out of whatever prints the value.
func (v Value) String() string { return redacted }

// GoString does the same for %#v.
func (v Value) GoString() string { return redacted }

// LogValue does the same for slog.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// Cache holds one secret. It starts no goroutine: a caller that finds the value expired refreshes it.
type Cache struct {
	fetch Fetch
	cfg   Config

	refreshing chan struct{} // holds one value: the right to call fetch

	mu          sync.Mutex
	value       Value
	known       bool      // value has been read at least once
	refreshedAt time.Time // of the last try, good or bad
	nextRefresh time.Time
}

// New returns a cache of what fetch returns. Nothing is read before the first Get.
func New(fetch Fetch, cfg Config) *Cache {
	c := &Cache{fetch: fetch, cfg: cfg.withDefaults(), refreshing: make(chan struct{}, 1)}
	c.refreshing <- struct{}{}
	return c
}

// Get returns the secret. It blocks, for no longer than ctx, only while there is no value at all;
// the one caller that refreshes an expired value waits for the fetch, under its ctx. The error is
// fetch's, and only while there is no value at all.
func (c *Cache) Get(ctx context.Context) (Value, error) {
	for {
		v, known, due := c.look()
		if known && !due {
			return v, nil
		}
		if known {
			select {
			case <-c.refreshing:
			default:
				return v, nil // another caller is refreshing it
			}
		} else {
			select {
			case <-c.refreshing:
			case <-ctx.Done():
				return Value{}, fmt.Errorf("%s: %w", c.cfg.Name, context.Cause(ctx))
			}
			if _, known, _ := c.look(); known { // read while this caller waited
				c.refreshing <- struct{}{}
				continue
			}
		}
		return c.refresh(ctx)
	}
}

// Expire makes the next Get fetch again, unless it was read within the last second: a caller that was refused with the
// secret may have met a rotation, and many callers are refused at once.
func (c *Cache) Expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.cfg.Now(); now.Sub(c.refreshedAt) >= time.Second {
		c.nextRefresh = now
	}
}

func (c *Cache) look() (v Value, known, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value, c.known, !c.cfg.Now().Before(c.nextRefresh)
}

// refresh calls fetch; the caller holds the right to, which refresh gives back.
func (c *Cache) refresh(ctx context.Context) (Value, error) {
	defer func() { c.refreshing <- struct{}{} }()
	b, err := c.fetch(ctx)
	if err == nil && len(b) > MaxBytes {
		err = errors.New("larger than 64 KiB")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	c.refreshedAt = now
	if err == nil {
		if c.value.Stale {
			c.cfg.Log.Info("secret is readable again", "secret", c.cfg.Name)
		}
		c.value, c.known, c.nextRefresh = Value{text: string(b), ReadAt: now}, true, now.Add(c.cfg.TTL)
		return c.value, nil
	}
	err = fmt.Errorf("%s: %w", c.cfg.Name, err)
	if !c.known {
		return Value{}, err
	}
	if ctx.Err() != nil { // the caller gave up: that says nothing about the secret
		return c.value, nil
	}
	c.nextRefresh = now.Add(min(retryEvery, c.cfg.TTL))
	if !c.value.Stale {
		c.value.Stale = true
		c.cfg.Log.Warn("secret cannot be refreshed; the last good value stays in use", "secret", c.cfg.Name, "read_at", c.value.ReadAt, "error", err)
	}
	return c.value, nil
}
