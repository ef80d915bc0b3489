package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// apiServer has the statuses of queues. A write takes a while.
type apiServer struct {
	client.Client
	takes  time.Duration
	broken map[client.ObjectKey]bool // their status can't be written

	mu       sync.Mutex
	statuses map[client.ObjectKey]*v1alpha1.QueueDepth
	writes   []time.Time
}

func (s *apiServer) Get(_ context.Context, k client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := into.(*v1alpha1.Queue)
	q.Namespace, q.Name = k.Namespace, k.Name
	q.Status.Depth = s.statuses[k].DeepCopy()
	return nil
}

func (s *apiServer) Status() client.SubResourceWriter { return statusWriter{s: s} }

type statusWriter struct {
	client.SubResourceWriter
	s *apiServer
}

func (w statusWriter) Patch(ctx context.Context, o client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	s := w.s
	s.mu.Lock()
	s.writes = append(s.writes, time.Now())
	s.mu.Unlock()
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	k := client.ObjectKeyFromObject(o)
	if s.broken[k] {
		return errors.New("refused")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses[k] = o.(*v1alpha1.Queue).Status.Depth.DeepCopy()
	return nil
}

// oldest is the age of the oldest status; since is when all queues were made.
func (s *apiServer) oldest(queues int, since time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now()
	for i := range queues {
		k := client.ObjectKey(key(i))
		switch was := s.statuses[k]; {
		case s.broken[k]:
		case was == nil:
			at = since
		case was.ObservedAt.Time.Before(at):
			at = was.ObservedAt.Time
		}
	}
	return time.Since(at)
}

func key(i int) catalog.Key { return catalog.Key{Namespace: "default", Name: fmt.Sprintf("q%d", i)} }

// TestStatusesOfBusyQueues: the readings come in a burst every 10 s, and each one differs. The API server gets no more than one
// write each depthGap, no queue's status is left behind, and who reads isn't held up.
func TestStatusesOfBusyQueues(t *testing.T) {
	for name, c := range map[string]struct {
		queues, broken int
		takes, most    time.Duration
	}{
		"one":                {1, 0, 10 * time.Millisecond, 45 * time.Second},
		"thirty":             {30, 0, 10 * time.Millisecond, 45 * time.Second},
		"a thousand":         {1000, 0, 90 * time.Millisecond, 115 * time.Second},
		"ten that can't be":  {100, 10, 10 * time.Millisecond, 60 * time.Second},
		"a slow API server":  {30, 0, time.Second, 75 * time.Second},
		"one that hangs":     {10, 1, time.Hour, 0}, // depthTimeout
		"as many as fit":     {300, 0, 50 * time.Millisecond, 70 * time.Second},
		"a few more than it": {400, 0, 50 * time.Millisecond, 80 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &apiServer{takes: c.takes, broken: map[client.ObjectKey]bool{}, statuses: map[client.ObjectKey]*v1alpha1.QueueDepth{}}
				for i := range c.broken {
					s.broken[client.ObjectKey(key(i))] = true
				}
				d := newDepthReports(s, slog.New(slog.DiscardHandler))
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- d.run(ctx) }()
				began, oldest := time.Now(), time.Duration(0)
				for n := int64(1); time.Since(began) < 20*time.Minute; n++ {
					at := time.Now()
					for i := range c.queues {
						d.report(ctx, key(i), depth.Reading{Depth: stream.Depth{Waiting: n}, At: time.Now()})
					}
					if time.Since(at) > 0 {
						t.Fatal("who reads is held up")
					}
					for range 10 {
						time.Sleep(time.Second) //nolint:forbidigo // synctest
						oldest = max(oldest, s.oldest(c.queues, began))
					}
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if c.most > 0 && oldest > c.most {
					t.Errorf("a status was %s old, want at most %s", oldest, c.most)
				}
				for i := 1; i < len(s.writes); i++ {
					if gap := s.writes[i].Sub(s.writes[i-1]); gap < depthGap || gap > time.Minute {
						t.Fatalf("%s between two writes", gap)
					}
				}
				if len(s.writes) < 20 {
					t.Errorf("%d writes", len(s.writes))
				}
			})
		})
	}
}

// TestUnchangedStatusesAreNotWritten: nor is what has become what it was while it waited.
func TestUnchangedStatusesAreNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &apiServer{statuses: map[client.ObjectKey]*v1alpha1.QueueDepth{}}
		d := newDepthReports(s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		reads := func(n int64, queues int) {
			for i := range queues {
				d.report(ctx, key(i), depth.Reading{Depth: stream.Depth{Waiting: n}, At: time.Now()})
			}
		}
		ended := make(chan error)
		go func() { ended <- d.run(ctx) }()
		reads(1, 2)
		time.Sleep(depthEvery + time.Second) //nolint:forbidigo // synctest
		reads(1, 2)
		synctest.Wait()
		if len(s.writes) != 2 {
			t.Fatalf("%d writes, want 2", len(s.writes))
		}
		reads(2, 2)
		synctest.Wait() // the first is written, the second waits
		reads(1, 2)
		time.Sleep(time.Second) //nolint:forbidigo // synctest
		if len(s.writes) != 3 {
			t.Errorf("%d writes, want 3", len(s.writes))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
