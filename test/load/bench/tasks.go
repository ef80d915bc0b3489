package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// lastTask is the path of the last of an execution's tasks; the first one's is 1.
const lastTask = '5'

// tasks are the functions of a state machine, at /1 to /5. They answer at once, and see when they are called: between the answer
// to a step and the call of the next is what the state machine takes.
type tasks struct {
	mu       sync.Mutex
	answered map[string]time.Time // by execution
	seen     tasksSeen
	between  *hdrhistogram.Histogram // in microseconds
}

// tasksSeen is what tasks tell of themselves.
type tasksSeen struct {
	Calls, Ended int     // Ended are calls of the last
	First, Last  int64   // the first call, and the last one of the last task, in nanoseconds since 1970
	P50, P99     float64 // ms between an answer and the next call
}

// serveTasks prints the address and serves until ctx ends, and with it the process.
func serveTasks(ctx context.Context) error {
	t := &tasks{answered: map[string]time.Time{}, between: newHistogram()}
	return serveFunctions(ctx, t.serve)
}

// serve answers one request after another.
func (t *tasks) serve(_ context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in, done, h := bufio.NewReader(conn), answer200(workDone), head{}
	for {
		if err := h.read(in); err != nil {
			return // the caller notices
		}
		now, answer := time.Now(), done
		if _, err := in.Discard(h.length); err != nil {
			return
		}
		if h.get {
			answer = answer200(t.tell())
		} else {
			t.called(&h, now)
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
		if !h.get && h.path != lastTask {
			t.mu.Lock()
			t.answered[string(h.source)] = time.Now()
			t.mu.Unlock()
		}
	}
}

func (t *tasks) called(h *head, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen.Calls++; t.seen.Calls == 1 {
		t.seen.First = now.UnixNano()
	}
	if before, ok := t.answered[string(h.source)]; ok {
		_ = t.between.RecordValue(min(max(0, now.Sub(before).Microseconds()), maxLatency))
	}
	if h.path == lastTask {
		t.seen.Ended++
		t.seen.Last = now.UnixNano()
		delete(t.answered, string(h.source))
	}
}

func (t *tasks) tell() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.seen
	s.P50, s.P99 = float64(t.between.ValueAtQuantile(50))/1000, float64(t.between.ValueAtQuantile(99))/1000
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers
	}
	return string(text)
}

// askTasks asks them what they have seen.
func askTasks(ctx context.Context, addr string) (s tasksSeen, err error) {
	_, text := get(ctx, "GET", "http://"+addr+"/", "", nil)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("the functions told %q: %w", text, err)
	}
	return s, nil
}

// untilTasks waits until so many calls of the last task were made.
func untilTasks(ctx context.Context, addr string, ended int) (s tasksSeen, err error) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	for {
		if s, err = askTasks(ctx, addr); err != nil || s.Ended >= ended {
			return s, err
		}
		if wait(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return s, fmt.Errorf("%d of %d executions had called their last function in time", s.Ended, ended)
		}
	}
}
