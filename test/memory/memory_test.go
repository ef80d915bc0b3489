// Package memory_test runs the dispatcher as a process of its own, with the memory limit that the chart derives from its
// container's, and holds what it takes at most to that container's limit.
package memory_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mappings  = 20
	bodyBytes = 240_000
	// busyRecords take more than the container's limit holds.
	busyRecords = 700
	// goShare is GOMEMLIMIT's share of the container's limit, as in the chart.
	goShare = 0.85
)

// functions are those of all mappings: they count the records of a call by its size, and may hang.
type functions struct {
	*httptest.Server
	calls  atomic.Int64
	bytes  atomic.Int64
	idle   atomic.Int64   // calls of mappings that have little to do
	hangs  chan struct{}  // the busy mapping's calls wait for its end; nil if they don't
	answer map[string]int // bytes of the answer, by path
}

func (f *functions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return
	}
	if r.URL.Path == "/busy" {
		if f.hangs != nil {
			select {
			case <-f.hangs:
			case <-r.Context().Done():
				return
			}
		}
		f.calls.Add(1)
		f.bytes.Add(n)
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // what it takes
	} else {
		f.idle.Add(1)
	}
	if n := f.answer[r.URL.Path]; n > 0 {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, strings.Repeat("x", n))
	}
}

// world is NATS with a queue and a mapping of each name, and the functions.
type world struct {
	t    *testing.T
	conn *stream.Conn
	url  string
	*functions
	writers []*stream.Writer
}

func newWorld(t *testing.T, change func(*catalog.Mapping)) *world {
	t.Helper()
	srv := testkit.NATS(t)
	w := &world{t: t, conn: testkit.Conn(t, srv), url: srv.URL(), functions: &functions{answer: map[string]int{}}}
	w.Server = httptest.NewServer(w.functions)
	t.Cleanup(w.Close)
	var cat catalog.Catalog
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.conn.EnsureLeases(ctx, 1))
	must(w.conn.EnsureKeys(ctx, 1, time.Now()))
	var wg sync.WaitGroup
	running, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	for i := range mappings {
		k := catalog.Key{Namespace: "default", Name: "q" + strconv.Itoa(i)}
		q := catalog.Queue{Key: k, MaxAge: time.Hour, MaxBytes: 1 << 30, DeadLetterMaxAge: time.Hour}
		must(w.conn.EnsureQueue(ctx, q, 1))
		m := catalog.Mapping{
			Key: k, Queue: k, Function: catalog.Function{Name: "f", URL: w.URL + "/idle"},
			Batch: catalog.Batch{MaxRecords: 100, MaxBytes: 4 << 20}, MaxConcurrency: 10, Timeout: time.Minute,
			Retry: catalog.Retry{MaxAttempts: 3, InitialBackoff: time.Second, MaxBackoff: time.Second, MaxAge: time.Hour},
		}
		if i == 0 {
			m.Function.URL = w.URL + "/busy"
			change(&m)
		}
		cat.Queues, cat.Mappings = append(cat.Queues, q), append(cat.Mappings, m)
		writer := w.conn.NewWriter(k, record.S2)
		wg.Go(func() { writer.Run(running) })
		w.writers = append(w.writers, writer)
	}
	must(w.conn.PublishCatalog(ctx, &cat, 1, nil))
	return w
}

// fill stores n records of so many bytes, which no codec makes smaller.
func (w *world) fill(queue, n, size int) {
	w.t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	body := make([]byte, size)
	for n > 0 {
		var pending []stream.Pending
		for range min(n, 16) {
			for i, bits := 0, uint64(0); i < size; i, bits = i+1, bits>>6 {
				if i%10 == 0 {
					bits = rng.Uint64()
				}
				body[i] = letters[bits&63]
			}
			body[0], body[size-1] = '"', '"'
			id, err := record.NewID()
			if err != nil {
				w.t.Fatal(err)
			}
			p, err := w.writers[queue].Add(&record.Record{ID: id, Time: time.Now(), Source: "test", ContentType: "application/json", JSON: true, Body: body})
			if err != nil {
				w.t.Fatal(err)
			}
			pending = append(pending, p)
			n--
		}
		for _, p := range pending {
			if err := p.Wait(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// dispatcher starts the process under a container's limit.
func (w *world) dispatcher(bin string, limit int64, env ...string) *processes.Child {
	w.t.Helper()
	return processes.Start(w.t, "dispatcher", filepath.Join(bin, "dispatcher"), append([]string{
		"WEIR_NATS_URL=" + w.url, "WEIR_HEALTH_LISTEN=off", "GOMEMLIMIT=" + strconv.FormatInt(int64(goShare*float64(limit)), 10),
	}, env...))
}

// settled reports whether all of the busy queue is.
func (w *world) settled() bool {
	st, err := w.conn.Status(w.t.Context(), catalog.Key{Namespace: "default", Name: "q0"})
	return err == nil && st.Empty()
}

func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := processes.Build(t.Context(), dir, "./services/dispatcher"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// peak is the peak resident memory of a process, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no peak of a process's memory here: ", err)
	}
	for l := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// TestADispatcherStaysWithinItsContainer: 20 mappings, one of them busy with large bodies.
func TestADispatcherStaysWithinItsContainer(t *testing.T) {
	bin := build(t)
	for _, row := range []struct {
		name   string
		limit  int64
		body   int
		n      int
		change func(*catalog.Mapping)
		answer int
	}{
		{"128Mi", 128 << 20, bodyBytes, busyRecords, func(*catalog.Mapping) {}, 0},
		{"96Mi", 96 << 20, bodyBytes, busyRecords, func(*catalog.Mapping) {}, 0},
		{"one record a call, many calls", 128 << 20, bodyBytes, busyRecords, func(m *catalog.Mapping) { m.Batch.MaxRecords, m.MaxConcurrency = 1, 500 }, 0},
		{"the largest batches, and a window", 128 << 20, 760 << 10, 300, func(m *catalog.Mapping) {
			m.Batch = catalog.Batch{MaxRecords: 10000, MaxBytes: 32 << 20, Window: 3 * time.Second} // for each of which all would take minutes
		}, 0},
		{"large answers", 128 << 20, 10_000, busyRecords, func(m *catalog.Mapping) { m.Batch.MaxRecords, m.MaxConcurrency = 5, 200 }, 1 << 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, row.change)
			w.answer["/busy"] = row.answer
			w.fill(0, row.n, row.body)
			start := time.Now()
			p := w.dispatcher(bin, row.limit)
			testkit.Eventually(t, "all is settled", func() bool { return p.Ended() || w.settled() })
			took := time.Since(start)
			if p.Ended() {
				t.Fatal("the dispatcher has ended")
			}
			most := peak(t, p.PID())
			t.Logf("peak %d MiB of %d; %.1f s, %d calls of %d KiB", most>>20, row.limit>>20, took.Seconds(), w.calls.Load(), w.bytes.Load()/max(1, w.calls.Load())>>10)
			if most >= row.limit {
				t.Errorf("the dispatcher took %d MiB, the container has %d", most>>20, row.limit>>20)
			}
			p.Terminate()
		})
	}
}

// TestAHangingFunctionLeavesMemoryToOthers: the mapping whose calls hang holds what it may, and all others go on.
func TestAHangingFunctionLeavesMemoryToOthers(t *testing.T) {
	const limit = 128 << 20
	w := newWorld(t, func(*catalog.Mapping) {})
	w.hangs = make(chan struct{})
	w.fill(0, 600, bodyBytes)
	p := w.dispatcher(build(t), limit)
	for i := 1; i < mappings; i++ {
		w.fill(i, 20, bodyBytes)
	}
	testkit.Eventually(t, "the others' records are settled", func() bool {
		for i := 1; i < mappings; i++ {
			st, err := w.conn.Status(t.Context(), catalog.Key{Namespace: "default", Name: "q" + strconv.Itoa(i)})
			if err != nil || !st.Empty() {
				return false
			}
		}
		return true
	})
	close(w.hangs)
	testkit.Eventually(t, "its own are", w.settled)
	if most := peak(t, p.PID()); most >= limit {
		t.Errorf("the dispatcher took %d MiB, the container has %d", most>>20, limit>>20)
	} else {
		t.Logf("peak %d MiB", most>>20)
	}
	p.Terminate()
}
