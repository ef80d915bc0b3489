package taskapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owners are those of all partitions, with tasks.
type owners struct {
	mu     sync.Mutex
	tasks  map[string][]string // by partition
	asked  int
	silent map[string]bool // give no answer
	heard  func(partition string, body []byte)
	stops  int
	asking func() // nil if nothing happens meanwhile
}

func (o *owners) Ask(ctx context.Context, k catalog.Key, _ string, _ []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.asking != nil {
		o.asking()
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // the task would be nobody's
	}
	if o.silent[k.Name] {
		return nil, stream.ErrUnavailable
	}
	var t Taken
	if list := o.tasks[k.Name]; len(list) > 0 {
		t, o.tasks[k.Name] = Taken{Token: list[0], More: len(list) - 1}, list[1:]
	}
	return json.Marshal(t)
}

func (o *owners) Hint(catalog.Key, string, []byte) error { return nil }

func (o *owners) HearHints(_ context.Context, _ string, f func(string, []byte)) (func(), error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = f
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.stops++
		o.heard = nil
	}, nil
}

// add adds tasks to a partition, with a hint or without.
func (o *owners) add(partition int, hint bool, tokens ...string) {
	name := strconv.Itoa(partition)
	o.mu.Lock()
	if o.tasks == nil {
		o.tasks = map[string][]string{}
	}
	o.tasks[name] = append(o.tasks[name], tokens...)
	heard := o.heard
	o.mu.Unlock()
	if hint && heard != nil {
		heard(name, []byte(strconv.Itoa(len(tokens))))
	}
}

func (o *owners) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

var work = catalog.Key{Namespace: "default", Name: "work"}

// pool is workers that wait.
type pool struct {
	*workers
	wg  sync.WaitGroup
	got chan string // tokens; empty if there was none, or the error
}

func (p *pool) start(ctx context.Context, n int, wait time.Duration) {
	for range n {
		p.wg.Go(func() {
			until, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			t, err := p.take(ctx, until, work, "w")
			if err != nil {
				t.Token = "error: " + err.Error()
			}
			p.got <- t.Token
		})
	}
	synctest.Wait()
}

func newPool(o *owners) *pool { return &pool{workers: newWorkers(o), got: make(chan string, 1000)} }

func (p *pool) end(t *testing.T) map[string]int {
	t.Helper()
	p.wg.Wait()
	close(p.got)
	got := map[string]int{}
	for token := range p.got {
		got[token]++
	}
	if len(p.lines) != 0 || p.count != 0 {
		t.Errorf("%d lines and %d workers are left", len(p.lines), p.count)
	}
	return got
}

// TestIdleWorkersAskNobody: of a hundred the first asks, and then one every lookAgain.
func TestIdleWorkersAskNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &owners{}
		p := newPool(o)
		p.start(t.Context(), 1, time.Hour)
		if o.count() != 2*stream.MachinePartitions {
			t.Errorf("the first asks %d times", o.count())
		}
		p.start(t.Context(), 99, time.Hour)
		if o.count() != 2*stream.MachinePartitions {
			t.Errorf("the others ask, too: %d times", o.count())
		}
		time.Sleep(10*lookAgain + time.Second) //nolint:forbidigo // synctest
		synctest.Wait()
		if n := o.count()/stream.MachinePartitions - 2; n < 9 || n > 11 {
			t.Errorf("within ten times lookAgain all partitions are asked %d times", n)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // synctest
		if got := p.end(t); got[""] != 100 || o.stops != 1 {
			t.Errorf("%v, %d stops", got, o.stops)
		}
	})
}

// TestHintsWakeAsManyAsThereAreTasks, and each task goes to one of them; also one of which nobody has heard.
func TestHintsWakeAsManyAsThereAreTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &owners{}
		p := newPool(o)
		p.start(t.Context(), 10, time.Minute)
		before := o.count()
		o.add(3, true, "a", "b", "c")
		o.add(5, true, "d")
		synctest.Wait()
		if len(p.got) != 4 || o.count()-before > 8 {
			t.Errorf("%d were given, after %d questions", len(p.got), o.count()-before)
		}
		o.add(1, false, "lost")
		time.Sleep(2 * lookAgain) //nolint:forbidigo // synctest
		synctest.Wait()
		if len(p.got) != 5 {
			t.Error("the one whose hint was lost is not found")
		}
		// Others took what a hint was of: who was woken waits on.
		o.heard("2", []byte("1"))
		synctest.Wait()
		o.add(2, true, "e")
		got := p.end(t)
		for _, token := range []string{"a", "b", "c", "d", "lost", "e"} {
			if got[token] != 1 {
				t.Errorf("%s was given %d times", token, got[token])
			}
		}
		if got[""] != 4 {
			t.Error(got)
		}
	})
}

// TestAHintIsPassedOn by a worker that goes away when it has just been woken.
func TestAHintIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &owners{}
		p := newPool(o)
		gone, leave := context.WithCancel(t.Context())
		p.start(gone, 1, time.Minute)
		p.start(t.Context(), 1, time.Minute)
		began := time.Now()
		leave()
		o.add(0, true, "a")
		if got := p.end(t); got["a"] != 1 || time.Since(began) > lookAgain && got["a"] == 1 {
			t.Errorf("%v after %v", got, time.Since(began))
		}
	})
}

// TestWhatIsTakenIsGiven, although the client closes its side while its owner is asked: it may read on.
func TestWhatIsTakenIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, leave := context.WithCancel(t.Context())
		o := &owners{asking: leave}
		for n := range stream.MachinePartitions {
			o.add(n, false, "a")
		}
		p := newPool(o)
		p.start(gone, 1, time.Minute)
		if got := p.end(t); got["a"] != 1 {
			t.Error(got)
		}
	})
}

// TestSilentPartitions: they are asked again soon; if nobody answers the worker is told at once.
func TestSilentPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &owners{silent: map[string]bool{"4": true}}
		p := newPool(o)
		p.start(t.Context(), 1, time.Minute)
		o.add(4, false, "a")
		o.mu.Lock()
		o.silent = nil
		o.mu.Unlock()
		time.Sleep(askAgain) //nolint:forbidigo // synctest
		synctest.Wait()
		if len(p.got) != 1 {
			t.Error("it was not asked again")
		}
		o.mu.Lock()
		o.silent = map[string]bool{}
		for n := range stream.MachinePartitions {
			o.silent[strconv.Itoa(n)] = true
		}
		o.mu.Unlock()
		p.start(t.Context(), 1, time.Minute)
		if got := p.end(t); got["a"] != 1 || got["error: "+stream.ErrUnavailable.Error()] != 1 {
			t.Error(got)
		}
	})
}

func TestTooManyWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(&owners{})
		p.count = maxWaiting
		_, _, err := p.join(t.Context(), work)
		if refused, ok := errors.AsType[*stream.RefusedError](err); !ok || refused.Code != CodeBusy || len(p.lines) != 0 {
			t.Error(err)
		}
	})
}

// TestWorkersRace: workers come and go while tasks do; each task goes to one.
func TestWorkersRace(t *testing.T) {
	o := &owners{}
	p := newPool(o)
	const tasks = 400
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	for range 16 {
		p.wg.Go(func() {
			for {
				until, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
				task, err := p.take(t.Context(), until, work, "")
				cancel()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if task.Token != "" {
					seen[task.Token]++
				}
				enough := len(seen) == tasks
				if enough && seen["done"] == 0 {
					seen["done"] = -1
					close(all)
				}
				enough = enough || seen["done"] != 0
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	for n := range tasks {
		o.add(n%stream.MachinePartitions, true, fmt.Sprint("t", n))
	}
	<-all
	p.end(t)
	for token, n := range seen {
		if n > 1 {
			t.Errorf("%s was given %d times", token, n)
		}
	}
}
