package dispatcher_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestWithLittleMemory: all is called, whatever a batch would take and however long it would wait for more records; and what
// was charged is given back.
func TestWithLittleMemory(t *testing.T) {
	for name, change := range map[string]func(*catalog.Mapping){
		"batches":           func(*catalog.Mapping) {},
		"one a call":        func(m *catalog.Mapping) { m.Batch.MaxRecords, m.MaxConcurrency = 1, 100 },
		"larger than it":    func(m *catalog.Mapping) { m.Batch.MaxRecords, m.Batch.MaxBytes = 1000, 32<<20 },
		"a window":          func(m *catalog.Mapping) { m.Batch.MaxRecords, m.Batch.MaxBytes, m.Batch.Window = 10, 32<<20, time.Hour },
		"failed and halved": func(m *catalog.Mapping) { m.Batch.MaxRecords = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(c call) answer {
				if name == "failed and halved" && len(c.bodies) > 1 {
					return answer{status: 500}
				}
				return answer{status: 200}
			}, change)
			w.memory = dispatcher.MinMemory
			c := collect(t)
			w.tel = c.Providers
			const n = 30 // a multiple of the window's ten
			bodies := make([]string, n)
			for i := range bodies {
				bodies[i] = strings.Repeat("x", 160_000) + string(rune('A'+i))
			}
			w.put(bodies...)
			w.start("a", time.Second)
			if name == "a window" { // the last records may wait for it
				testkit.Eventually(t, "nearly all are called", func() bool { return w.count() > n-10 })
				return
			}
			w.settled()
			if w.count() != n {
				t.Errorf("%d of %d were taken", w.count(), n)
			}
			q := w.queue.Key.String()
			testkit.Eventually(t, "nothing is charged", func() bool {
				all := c.now()
				v, ok := all["weir.mapping.memory{weir.queue="+q+"}"]
				return ok && v == 0
			})
		})
	}
}

// count is how many records the function has taken.
func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.taken)
}
