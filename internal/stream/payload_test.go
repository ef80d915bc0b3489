package stream_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// small connects to a server that takes messages of 256 KiB.
func small(t *testing.T) *stream.Conn {
	t.Helper()
	return testkit.Conn(t, testkit.NATSIn(t, localnats.Config{Dir: t.TempDir(), MaxPayload: 256 << 10}))
}

// dense returns a record of so many bytes that don't shrink when they are compressed.
func dense(t *testing.T, n int) *record.Record {
	t.Helper()
	r := newRecord(t, "")
	r.Body = make([]byte, n)
	_, _ = rand.Read(r.Body)
	return r
}

func TestBlocksAreCutToMaxPayload(t *testing.T) {
	c := small(t)
	q := orders()
	ensure(t, c, q)
	if n := c.MaxPayload(); n != 256<<10 {
		t.Fatalf("the server takes %d", n)
	}
	w := writer(t, c, q.Key)
	if err := w.Append(t.Context(), dense(t, 300<<10)); !errors.Is(err, stream.ErrTooLargeForServer) || errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("a record that fits in no message: %v", err)
	}
	if _, err := c.AppendOnce(t.Context(), q.Key, dense(t, 300<<10)); !errors.Is(err, stream.ErrTooLargeForServer) {
		t.Errorf("the same, by itself: %v", err)
	}
	want := 1
	if err := w.Append(t.Context(), newRecord(t, strings.Repeat("x", 300<<10))); err != nil {
		t.Errorf("one that fits once it is compressed: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 { // more than a message's worth at a time
		want++
		wg.Go(func() {
			if err := w.Append(t.Context(), dense(t, 60<<10)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rs := make([]record.Record, 0, 5)
	for range 5 {
		rs = append(rs, *dense(t, 120<<10))
	}
	if err := c.Delay(t.Context(), q.Key, stream.AtOnce(time.Now()), rs); err != nil {
		t.Error(err)
	}
	if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, rs); err != nil {
		t.Error(err)
	}
	if err := c.Redrive(t.Context(), q.Key, 0, func(int) {}); err != nil {
		t.Error(err)
	}
	want += 2 * len(rs)
	reader := open(t, c, q.Key)
	for want > 0 {
		d := next(t, reader)
		want -= len(d.Records)
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupOfLargerServerIsWrittenApart(t *testing.T) {
	c := small(t)
	q := orders()
	ensure(t, c, q)
	c.SetMaxPayload(stream.DefaultMaxPayload)
	w := c.NewWriter(q.Key, record.None)
	errs := make([]error, 5)
	var wg sync.WaitGroup
	for i := range errs { // one group, as nothing is written yet
		size := 50 << 10
		if i == 3 {
			size = 300 << 10
		}
		r := dense(t, size)
		wg.Go(func() { errs[i] = w.Append(t.Context(), r) })
		testkit.Eventually(t, "it is in the group", func() bool { return w.Waiting() == i+1 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	wg.Wait()
	cancel()
	<-ended
	for i, err := range errs {
		if (i == 3) != errors.Is(err, stream.ErrTooLargeForServer) || i != 3 && err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	}
	reader, n := open(t, c, q.Key), 0
	for n < 4 {
		n += len(next(t, reader).Records)
	}
	if n != 4 {
		t.Errorf("%d records are there", n)
	}
}

func TestChunksAreCutToMaxPayload(t *testing.T) {
	c := small(t)
	q := orders()
	q.Jobs, q.Results, q.Objects = true, catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20}, catalog.Objects{MaxAge: time.Hour, MaxBytes: 16 << 20}
	ensure(t, c, q)
	want := dense(t, 1<<20+17).Body
	if _, err := c.PutObject(t.Context(), q.Key, "o", "text/plain", strings.NewReader(string(want))); err != nil {
		t.Fatal(err)
	}
	r, _, err := c.OpenObject(t.Context(), q.Key, "o")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if got, err := io.ReadAll(r); err != nil || string(got) != string(want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := c.PutJob(t.Context(), q.Key, stream.JobKey{}, stream.JobState{Header: "{}", Body: want[:300<<10]}, 0); !errors.Is(err, stream.ErrTooLargeForServer) {
		t.Errorf("a state that fits in no message: %v", err)
	}
}

// TestRedriveLeavesWhatNATSTakesNoMore stores a large record, has NATS take less, and redrives it and others.
func TestRedriveLeavesWhatNATSTakesNoMore(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "t"}
	s := testkit.NATSIn(t, cfg)
	cfg.Port, cfg.MaxPayload = s.Port(), 256<<10
	c := testkit.Conn(t, s)
	q := orders()
	ensure(t, c, q)
	for _, r := range []*record.Record{dense(t, 300<<10), newRecord(t, "small")} {
		if err := c.DeadLetter(t.Context(), q.Key, stream.Refused, []record.Record{*r}); err != nil {
			t.Fatal(err)
		}
	}
	s.Stop()
	testkit.NATSIn(t, cfg)
	testkit.Eventually(t, "it is connected to the one that takes less", func() bool { return c.Ready() == nil && c.MaxPayload() == 256<<10 })
	moved := 0
	if err := c.Redrive(t.Context(), q.Key, 0, func(n int) { moved = n }); err != nil || moved != 1 {
		t.Errorf("%d moved, %v", moved, err)
	}
	if st, err := c.Status(t.Context(), q.Key); err != nil || st.Dead != 1 || st.Pending != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}
