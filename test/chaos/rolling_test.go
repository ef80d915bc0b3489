package chaos_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"sync"
	"testing"

	"github.com/weir-dev/weir/internal/testkit"
)

// versions is a function that records what comes with the next version's field, and, while failing is set, fails a
// quarter of the records: so their caller writes them again.
type versions struct {
	meter

	mu      sync.Mutex
	failing bool
	failed  map[string]bool // id → it was failed at least once
	took    map[string]bool // id → it came with the next version's field when it was taken
}

func (v *versions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, events, err := readBatch(r)
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	type failure struct {
		ID string `json:"itemIdentifier"`
	}
	failures := []failure{}
	v.mu.Lock()
	for i, e := range events {
		var next struct {
			Field string `json:"weirnext"`
		}
		_ = json.Unmarshal(raw[i], &next) // it was read before
		if v.failing && i%4 == 0 {
			v.failed[e.ID] = true
			failures = append(failures, failure{e.ID})
			continue
		}
		v.took[e.ID] = next.Field == "yes"
	}
	v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"batchItemFailures": failures})
}

func (v *versions) taken() map[string]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.took)
}

func (v *versions) fail(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failing = on
}

// TestRollingUpdate updates the services one by one under load to a version with a field that the running one doesn't
// know, and back: nothing is lost and nothing dead-lettered. What only the next version can handle waits for it, and
// what the running one has written again still has the field.
func TestRollingUpdate(t *testing.T) {
	v := &versions{failed: map[string]bool{}, took: map[string]bool{}}
	url := v.serve(t, v)
	nats := newNATSServer(t)
	nats.start()
	c := newCluster(t, nats, manifests(t, "maxAttempts: 5, initialBackoff: 1s, maxBackoff: 5m", "maxAttempts: 1000, initialBackoff: 500ms, maxBackoff: 1s"), url)
	next := *c
	next.bin = parts.nextBin

	g := c.gateway()
	d := c.dispatcher("dispatcher-old")
	l := newLoad(t, c.addr, 8, 0)
	l.start()
	accepted := func() map[string]int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return maps.Clone(l.accepted)
	}
	more := func(what string, n int) {
		t.Helper()
		before := len(accepted())
		testkit.Eventually(t, what+": orders are accepted", func() bool { return len(accepted()) >= before+n })
	}
	n := size(200, 500, 5000)
	more("the version before", n)

	v.fail(true)
	g.Terminate()
	g = next.gateway()
	before := accepted() // the former gateway's are all among these
	more("the next gateway, the dispatcher before", n)
	testkit.Eventually(t, "the dispatcher holds what it can't read", func() bool { return d.Logs("blocks are held") })
	testkit.Eventually(t, "records of the next gateway were put back by the dispatcher before", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		again := 0
		for id := range v.failed {
			if _, old := before[id]; !old {
				again++
			}
		}
		return again > 20
	})
	d.Terminate()
	took := v.taken()
	v.fail(false)
	d = next.dispatcher("dispatcher-next")
	between := accepted()
	more("the next version", n)

	g.Terminate() // and back
	g = c.gateway()
	more("the gateway before, the next dispatcher", n)
	l.finish()
	testkit.Eventually(t, "every record is taken", func() bool {
		got := v.taken()
		for id := range accepted() {
			if _, ok := got[id]; !ok {
				return false
			}
		}
		return true
	})
	c.settled() // nothing is dead-lettered

	kept, without := 0, 0
	for id, field := range v.taken() {
		_, first := before[id]
		_, second := between[id]
		if _, earlier := took[id]; first || earlier || !second {
			continue // of the gateway before, or taken by its dispatcher, or of no certain gateway
		}
		if field {
			kept++
		} else {
			without++
		}
	}
	t.Logf("%d records accepted; of those of the next gateway that its dispatcher took, %d have its field and %d have not; %d were put back by the version before",
		len(accepted()), kept, without, len(v.failed))
	if kept == 0 || without > 0 {
		t.Errorf("%d records lost the next version's field, %d kept it", without, kept)
	}
	g.Terminate()
	d.Terminate()
}
