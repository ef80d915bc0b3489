package depth

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWatch: the metrics say what a queue holds, with nobody who works on it, and nothing of a queue that is gone.
func TestWatch(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	q := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	if err := c.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	records := func(n int) (rs []record.Record) {
		for range n {
			rs = append(rs, newRecord(t))
		}
		return rs
	}
	w := c.NewWriter(q.Key, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for _, r := range records(3) {
		if err := w.Append(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	now := c.Now()
	if err := c.Delay(t.Context(), q.Key, stream.Wait{Since: now, Due: now.Add(time.Hour)}, records(4)); err != nil {
		t.Fatal(err)
	}
	if err := c.DeadLetter(t.Context(), q.Key, stream.TooOld, records(5)); err != nil {
		t.Fatal(err)
	}

	reader := sdk.NewManualReader()
	told := make(chan Reading, 16)
	watch, err := New(c, telemetry.Providers{Meters: sdk.NewMeterProvider(sdk.WithReader(reader))}, testkit.Log(t),
		func(_ context.Context, _ catalog.Key, r Reading) { told <- r })
	if err != nil {
		t.Fatal(err)
	}
	watch.Use([]catalog.Queue{q, {Key: catalog.Key{Namespace: "default", Name: "missing"}}})
	wctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = watch.Run(wctx) }()
	r := <-told
	if r.Waiting != 3 || r.Retrying != 4 || r.Dead.Total() != 5 || r.Owned || r.Uncertainty != 0 {
		t.Errorf("%+v", r)
	}
	got, of := testkit.Series(t, reader), "weir.queue=default/orders"
	for name, want := range map[string]float64{
		"weir.queue.depth{%s}": 3, "weir.queue.depth.uncertainty{%s}": 0, "weir.queue.retrying{%s}": 4,
		"weir.queue.dead{%s,weir.reason=too_old}": 5, "weir.queue.dead{%s,weir.reason=refused}": 0,
		"weir.queue.limit{%s}": 64 << 20, "weir.queue.owned{%s}": 0, "weir.queue.unaccounted{%s}": 0,
	} {
		name = fmt.Sprintf(name, of)
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if got["weir.queue.oldest.age{"+of+"}"] <= 0 || got["weir.queue.bytes{weir.part=waiting,"+of+"}"] <= 0 {
		t.Errorf("%v", got)
	}
	if age, there := got["weir.queue.read.age{"+of+"}"]; !there || age > 5 {
		t.Errorf("it was read %g s ago", age)
	}
	if _, there := got["weir.queue.read.age{weir.queue=default/missing}"]; !there || got["weir.queue.depth{weir.queue=default/missing}"] != 0 {
		t.Error("nothing says that a queue without streams is not read")
	}
	if _, there := got["weir.queue.rate.in{"+of+"}"]; there {
		t.Error("there is a rate after one reading")
	}
	watch.Use(nil)
	if got := testkit.Series(t, reader); len(got) != 0 {
		t.Errorf("of queues that are gone: %v", got)
	}
	stop()
	<-ended
}

// TestAge: a queue that can't be read grows old, from when it should have been read; nobody says so who doesn't read.
func TestAge(t *testing.T) {
	k, now := catalog.Key{Namespace: "default", Name: "orders"}, time.Now()
	w := &Watch{last: map[catalog.Key]*Reading{}, runs: now.Add(-time.Minute)}
	within := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want || got > want+10*time.Second {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	within("watched for an hour, running for a minute", w.age(k, watched{since: now.Add(-time.Hour)}), time.Minute)
	within("watched just now", w.age(k, watched{since: now}), 0)
	w.last[k] = &Reading{At: now.Add(-30 * time.Second)}
	within("read", w.age(k, watched{since: now.Add(-time.Hour)}), 30*time.Second)
}

// TestRates: rates follow what owners settle and what waits; another owner's count begins anew.
func TestRates(t *testing.T) {
	at := time.Now()
	reading := func(after time.Duration, waiting, settled int64, epoch string) Reading {
		return Reading{
			Depth: stream.Depth{Waiting: waiting, Settled: settled, Epoch: epoch, Owned: epoch != ""}, At: at.Add(after),
			In: math.NaN(), Out: math.NaN(), Drain: -1,
		}
	}
	a := reading(0, 1000, 50, "x")
	a.rates(nil)
	b := reading(10*time.Second, 900, 350, "x") // 30/s out, 20/s in
	b.rates(&a)
	if b.In != 20 || b.Out != 30 || b.Drain != 90*time.Second {
		t.Errorf("%+v", b)
	}
	c := reading(20*time.Second, 900, 10, "y")
	c.rates(&b)
	if c.In != 20 || c.Out != 30 {
		t.Errorf("another owner: %+v", c)
	}
	gone := reading(30*time.Second, 1100, 0, "") // what was not removed waits again
	if gone.rates(&c); gone.In != 20 || gone.Out != 30 {
		t.Errorf("just without an owner: %+v", gone)
	}
	d := reading(40*time.Second, 1300, 0, "") // nobody works: 20/s in
	d.rates(&gone)
	if d.In != 20 || d.Out >= 30 || d.Out <= 0 {
		t.Errorf("no owner: %+v", d)
	}
	e := reading(50*time.Second, 0, 0, "z")
	if e.rates(&d); e.Drain != 0 {
		t.Errorf("empty: %+v", e)
	}
}

func newRecord(t *testing.T) record.Record {
	t.Helper()
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	return record.Record{ID: id, Time: time.Now(), Source: "/x", Body: []byte("{}")}
}
