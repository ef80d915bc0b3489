package dispatcher_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

const scriptAttempts = 3 // maxAttempts of the random scripts

// behaviour is what the scripted function does with one record: how, as long as its counted failures are
// fewer than times.
type behaviour struct {
	how   string // ok, named, 500, broken, refused
	times int
}

// model says what must become of a record: dead after so many attempts, or done (0).
func (b behaviour) deadAfter() int {
	switch {
	case b.how == "ok" || b.times == 0:
		return 0
	case b.how == "refused":
		return 1
	case b.times >= scriptAttempts:
		return scriptAttempts
	default:
		return 0
	}
}

// script is a random function: what it does with each record, and on which of its calls it says "not
// now" or "too many requests".
type script struct {
	records  []behaviour
	throttle map[int]int // number of the call → status
	batch    int
	cap      int
	changes  []change // of the mapping, while it works
}

// change is a new spec of the mapping.
type change struct {
	batch  int
	cap    int
	window time.Duration
}

// maxCap is the highest cap that ever holds.
func (s script) maxCap() int {
	n := s.cap
	for _, c := range s.changes {
		n = max(n, c.cap)
	}
	return n
}

func drawScript(t *rapid.T) script {
	s := script{
		throttle: map[int]int{},
		batch:    rapid.SampledFrom([]int{1, 2, 5, 50}).Draw(t, "batch"),
		cap:      rapid.IntRange(1, 4).Draw(t, "cap"),
	}
	for range rapid.IntRange(1, 40).Draw(t, "records") {
		s.records = append(s.records, behaviour{
			how:   rapid.SampledFrom([]string{"ok", "ok", "ok", "named", "500", "broken", "refused"}).Draw(t, "how"),
			times: rapid.IntRange(0, scriptAttempts+1).Draw(t, "times"),
		})
	}
	for range rapid.IntRange(0, 4).Draw(t, "throttled calls") {
		s.throttle[rapid.IntRange(1, 20).Draw(t, "call")] = rapid.SampledFrom([]int{429, 503}).Draw(t, "status")
	}
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		s.changes = append(s.changes, change{
			batch:  rapid.SampledFrom([]int{1, 2, 5, 50}).Draw(t, "new batch"),
			cap:    rapid.IntRange(1, 4).Draw(t, "new cap"),
			window: rapid.SampledFrom([]time.Duration{0, time.Millisecond, 20 * time.Millisecond}).Draw(t, "new window"),
		})
	}
	return s
}

// answer plays the script.
func (s script) answer(number int, c call) answer {
	if status, ok := s.throttle[number]; ok {
		return answer{status: status}
	}
	var out answer
	for i, body := range c.bodies {
		n, _ := strconv.Atoi(strings.TrimPrefix(body, "record-"))
		b := s.records[n]
		if b.how == "ok" || c.attempts[i] >= b.times {
			continue
		}
		switch b.how {
		case "named":
			out.failed = append(out.failed, body)
		case "500":
			return answer{status: 500}
		case "broken":
			return answer{abort: true}
		case "refused":
			return answer{status: 400}
		}
	}
	return out
}

// TestRandomScriptsAgainstTheModel: at every moment each record that was taken is settled, put back, dead
// or in hand; at the end exactly those are dead that the model says, after as many attempts; nothing
// settles twice; and throttled calls cost no attempt. All this while the mapping changes.
func TestRandomScriptsAgainstTheModel(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	rapid.Check(t, func(rt *rapid.T) {
		scripts := rapid.SliceOfN(rapid.Custom(drawScript), 12, 12).Draw(rt, "scripts")
		var wg sync.WaitGroup
		errs := make(chan error, len(scripts))
		for _, s := range scripts {
			w, play := scripted(t, conn, s)
			wg.Go(func() { errs <- play(w) })
		}
		wg.Wait()
		close(errs) // one that ended by t.Fatal has sent nothing
		for err := range errs {
			if err != nil {
				rt.Error(err)
			}
		}
	})
}

func scripted(t *testing.T, conn *stream.Conn, s script) (*world, func(*world) error) {
	var mu sync.Mutex
	number := 0
	w := newWorld(t, conn, func(c call) answer {
		mu.Lock()
		number++
		n := number
		mu.Unlock()
		return s.answer(n, c)
	}, func(m *catalog.Mapping) {
		m.Batch.MaxRecords, m.MaxConcurrency = s.batch, s.cap
		m.Retry.MaxAttempts = scriptAttempts
	})
	var bodies []string
	for i := range s.records {
		bodies = append(bodies, "record-"+strconv.Itoa(i))
	}
	w.put(bodies...)
	return w, func(w *world) error { return w.play(s, bodies) }
}

func (w *world) play(s script, bodies []string) error {
	d, stop := w.start("a", time.Second)
	defer stop()
	deadline := time.Now().Add(testkit.Patience)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	checked, changes := 0, s.changes
	for {
		<-tick.C
		if len(changes) > 0 {
			w.spec.Batch.MaxRecords, w.spec.Batch.Window, w.spec.MaxConcurrency = changes[0].batch, changes[0].window, changes[0].cap
			d.Use(&catalog.Catalog{Mappings: []catalog.Mapping{w.spec}})
			changes = changes[1:]
		}
		st, ok := d.Stats(w.spec.Key)
		if ok {
			checked++
		}
		if err := conserved(st); err != nil {
			return err
		}
		// All are accounted for once done + dead is what was put in.
		if st.Done+st.Dead == len(bodies) && st.InHand == 0 {
			break
		}
		// Enqueued = done + dead + what is in hand, waits in the queue or for its next attempt: never more. A record that was
		// put back may come again before it is settled here, and is in hand twice for a moment.
		if st.Done+st.Dead > len(bodies) || st.Taken > len(bodies)+st.Retried+st.InHand {
			return fmt.Errorf("more records than the %d that were put in: %+v", len(bodies), st)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not settled after %s: %+v of %d; script %+v", testkit.Patience, st, len(bodies), s)
		}
	}
	if checked < 2 {
		return fmt.Errorf("looked only %d times", checked)
	}
	return w.verdict(d, s, bodies)
}

func conserved(s dispatcher.Stats) error {
	if s.Taken != s.Done+s.Retried+s.Dead+s.InHand+s.Returned || s.InHand < 0 {
		return fmt.Errorf("records were lost or made: %+v", s)
	}
	return nil
}

func (w *world) verdict(d *dispatcher.Dispatcher, s script, bodies []string) error {
	dead := w.dead()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, b := range bodies {
		want := s.records[i].deadAfter()
		r, died := dead[b]
		switch {
		case died != (want > 0):
			return fmt.Errorf("%s %+v: dead %t, want %t", b, s.records[i], died, want > 0)
		case died && r.Attempts != want:
			return fmt.Errorf("%s %+v: dead after %d attempts, want %d", b, s.records[i], r.Attempts, want)
		case died && w.taken[b] != 0, !died && w.taken[b] != 1:
			return fmt.Errorf("%s %+v: taken %d times (dead %t)", b, s.records[i], w.taken[b], died)
		}
	}
	if w.maxSeen > s.maxCap() {
		return fmt.Errorf("%d calls at once, the cap is %d", w.maxSeen, s.maxCap())
	}
	throttled := 0
	for n := range s.throttle {
		if n <= len(w.calls) {
			throttled++
		}
	}
	if st, _ := d.Stats(w.spec.Key); st.Throttled != throttled {
		return fmt.Errorf("%d calls count as throttled, %d were", st.Throttled, throttled)
	}
	// The server agrees, as soon as it has applied the acknowledgements: nothing is left.
	testkit.Eventually(w.t, "the queue is empty", func() bool {
		st, err := w.conn.Status(context.Background(), w.queue.Key)
		return err == nil && st.Empty()
	})
	return nil
}
