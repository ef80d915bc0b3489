package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var queue = catalog.Key{Namespace: "default", Name: "orders"}

// natsStore is a store of NATS with its server.
type natsStore struct {
	*NATS
	server *localnats.Server
}

func newNATS(t testing.TB, limits catalog.Objects) natsStore {
	t.Helper()
	server := testkit.NATS(t)
	// A machine that is busy with the bytes may answer a ping late.
	conn, err := stream.Connect(stream.Config{URL: server.URL(), Name: t.Name(), PingInterval: 5 * time.Second, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	testkit.Eventually(t, "the connection is up", func() bool { return conn.Ready() == nil })
	for range 2 { // it is idempotent
		if err := conn.EnsureQueue(t.Context(), catalog.Queue{Key: queue, MaxBytes: roomy, Jobs: true, Results: catalog.Results{MaxBytes: roomy}, Objects: limits}, 1); err != nil {
			t.Fatal(err)
		}
	}
	ring, _, err := sign.Ring{}.Rotate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return natsStore{NewNATS(conn, func() sign.Ring { return ring }, time.Now, ""), server}
}

// messages is what the stream of the objects holds.
func (s natsStore) messages(t *testing.T) jetstream.StreamState {
	t.Helper()
	st, err := testkit.JetStream(t, s.server).Stream(t.Context(), "WEIR_O_default_orders")
	if err != nil {
		t.Fatal(err)
	}
	return st.CachedInfo().State
}

// nothingStays waits until the store holds n messages or, in S3, no broken upload.
func nothingStays(t *testing.T, s Store, n uint64) {
	t.Helper()
	switch s := s.(type) {
	case natsStore:
		testkit.Eventually(t, "what was removed has gone", func() bool { return s.messages(t).Msgs == n })
	case *S3:
		if n := uploads(t, s); n != 0 {
			t.Errorf("%d broken uploads are left", n)
		}
	}
}

const roomy = 4 << 30

func stores(t *testing.T, test func(t *testing.T, s Store)) {
	t.Run("NATS", func(t *testing.T) { test(t, newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: roomy})) })
	t.Run("S3", func(t *testing.T) { test(t, newS3(t)) })
}

func put(t *testing.T, s Store, key, body string) Info {
	t.Helper()
	info, err := s.Put(t.Context(), queue, key, "text/plain", strings.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func get(t *testing.T, s Store, key string) (string, Info) {
	t.Helper()
	o, err := s.Open(t.Context(), queue, key)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	return readAll(t, o), o.Info
}

func TestObjects(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		if _, err := s.Stat(t.Context(), queue, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Stat of nothing: %v", err)
		}
		if _, err := s.Open(t.Context(), queue, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Open of nothing: %v", err)
		}
		if err := s.Delete(t.Context(), queue, "a"); err != nil {
			t.Errorf("Delete of nothing: %v", err)
		}
		// Around the bounds of chunks and of single requests.
		for _, size := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 512 << 10, 512<<10 + 1, 5<<20 + 3} {
			body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			if info := put(t, s, "a", body); info.Size != int64(size) {
				t.Errorf("%d bytes: stored as %d", size, info.Size)
			}
			got, info := get(t, s, "a")
			if got != body || info.Size != int64(size) || info.ContentType != "text/plain" || time.Since(info.Stored) > time.Minute {
				t.Errorf("%d bytes: read %d, %+v", size, len(got), info)
			}
		}
		if err := s.Delete(t.Context(), queue, "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), queue, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a deleted object: %v", err)
		}
		nothingStays(t, s, 0)
		for _, key := range []string{"", "a.b", "a/b", "*", ">", "..", strings.Repeat("a", stream.MaxObjectKey+1)} {
			if _, err := s.Put(t.Context(), queue, key, "", strings.NewReader(""), 1); !errors.Is(err, ErrKey) {
				t.Errorf("key %q: %v", key, err)
			}
		}
	})
}

// TestFailedPutLeavesNothing: neither an object nor a part of one, whatever ends the write and wherever it does.
func TestFailedPutLeavesNothing(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		put(t, s, "old", "old")
		bad := errors.New("the client has gone")
		for _, size := range []int64{0, 10, 300 << 10, 9 << 20, 20 << 20} {
			part := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), size) }
			for what, c := range map[string]struct {
				end  func() io.Reader
				want error
			}{
				"error":       {func() io.Reader { return iotest.ErrReader(bad) }, bad},
				"broken body": {func() io.Reader { return iotest.ErrReader(io.ErrUnexpectedEOF) }, io.ErrUnexpectedEOF},
				"too large":   {func() io.Reader { return strings.NewReader("x") }, ErrTooLarge},
			} {
				for _, key := range []string{"new", "old"} {
					if _, err := s.Put(t.Context(), queue, key, "", io.MultiReader(part(), c.end()), size); !errors.Is(err, c.want) {
						t.Errorf("%s after %d bytes: %v", what, size, err)
					}
				}
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			r := io.MultiReader(part(), readerFunc(func([]byte) (int, error) {
				cancel(bad)
				return 0, context.Cause(ctx)
			}))
			if _, err := s.Put(ctx, queue, "new", "", r, size+1); !errors.Is(err, bad) {
				t.Errorf("ended after %d bytes: %v", size, err)
			}
		}
		if _, err := s.Stat(t.Context(), queue, "new"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a failed write: %v", err)
		}
		if got, _ := get(t, s, "old"); got != "old" {
			t.Errorf("a failed write replaced an object by %d bytes", len(got))
		}
		nothingStays(t, s, 2) // the object that was there: a chunk and its description
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestConcurrentPuts: one of them wins as a whole, and the others' chunks go.
func TestConcurrentPuts(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		var wg sync.WaitGroup
		for n := range 5 {
			wg.Go(func() {
				body := strings.Repeat(string(rune('a'+n)), 600<<10)
				if _, err := s.Put(t.Context(), queue, "same", "", strings.NewReader(body), 1<<20); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, _ := get(t, s, "same")
		if len(got) != 600<<10 || strings.Count(got, got[:1]) != len(got) {
			t.Errorf("%d bytes, of several", len(got))
		}
		nothingStays(t, s, 3)
	})
}

func TestFlatMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() || testkit.Race {
		size = 256 << 20
	}
	const most = 192 << 20 // the NATS server's caches are among it
	stores(t, func(t *testing.T, s Store) {
		heap := testkit.PeakHeap()
		sent, got := sha256.New(), sha256.New()
		start := time.Now()
		info, err := s.Put(t.Context(), queue, "big", "", io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent), size)
		if err != nil || info.Size != size {
			t.Fatalf("%+v, %v", info, err)
		}
		wrote := time.Since(start)
		start = time.Now()
		o, err := s.Open(t.Context(), queue, "big")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(got, o)
		if err := errors.Join(err, o.Close()); err != nil || n != size || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
			t.Errorf("read %d bytes, %v", n, err)
		}
		mbs := func(d time.Duration) float64 { return float64(size) / 1e6 / d.Seconds() }
		peak := heap()
		t.Logf("peak heap %d MiB; Put %.0f MB/s, Open %.0f MB/s", peak>>20, mbs(wrote), mbs(time.Since(start)))
		if peak > most {
			t.Errorf("the heap rose to %d MiB", peak>>20)
		}
	})
}
