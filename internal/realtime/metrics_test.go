package realtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/weir-dev/weir/internal/testkit"
)

// metrics are all values that aren't 0, as NAME{TRANSPORT REASON}.
func (b *bench) metrics() map[string]int64 {
	b.t.Helper()
	var rm metricdata.ResourceMetrics
	if err := b.reader.Collect(context.WithoutCancel(b.t.Context()), &rm); err != nil {
		b.t.Fatal(err)
	}
	out := map[string]int64{}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			var points []metricdata.DataPoint[int64]
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = d.DataPoints
			case metricdata.Gauge[int64]:
				points = d.DataPoints
			}
			for _, p := range points {
				by, _ := p.Attributes.Value("weir.transport")
				reason, _ := p.Attributes.Value("weir.reason")
				if p.Value != 0 {
					out[m.Name+"{"+strings.TrimSpace(by.AsString()+" "+reason.AsString())+"}"] = p.Value
				}
			}
		}
	}
	return out
}

// become waits until the metrics are these.
func (b *bench) become(want map[string]int64) {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			b.t.Logf("got %v", b.metrics())
		}
	}()
	testkit.Eventually(b.t, fmt.Sprintf("the metrics are %v", want), func() bool { return maps.Equal(b.metrics(), want) })
}

func TestMetrics(t *testing.T) {
	b := start(t)
	w := b.submit()
	sse := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", ""))
	defer sse.close()
	ws := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/"+w.text+"/socket"))
	defer ws.close()
	both := []stateReader{sse, ws}
	versions := []string{}
	next := func() {
		t.Helper()
		for _, l := range both {
			e, err := l.next()
			if err != nil {
				t.Fatal(err)
			}
			versions = append(versions, e.doc.Version)
		}
	}
	next()
	b.become(map[string]int64{
		"weir.realtime.connections{events}": 1, "weir.realtime.connections{websocket}": 1,
		"weir.realtime.messages{events}": 1, "weir.realtime.messages{websocket}": 1,
	})
	w.do(w.begin)
	next()
	w.do(func(ctx context.Context) error { return w.succeed(ctx, "application/json", `{"n":1}`) })
	next()
	for _, l := range both {
		if e, err := l.next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %+v %v", e, err)
		}
		l.close()
	}
	want := map[string]int64{
		"weir.realtime.messages{events}": 3, "weir.realtime.messages{websocket}": 3,
		"weir.realtime.ended{events done}": 1, "weir.realtime.ended{websocket done}": 1,
	}
	b.become(want)

	// A client that has all of it is no connection; one that comes back is, and so is one that says so by a message.
	none := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", versions[len(versions)-1]))
	none.close()
	again := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", versions[0]))
	if _, err := again.next(); err != nil {
		t.Fatal(err)
	}
	if _, err := again.next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	again.close()
	many := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/socket"))
	for range 2 {
		many.say(t, `{"watch": "`+b.submit().text+`", "after": "1-1"}`)
		if _, err := many.next(); err != nil {
			t.Fatal(err)
		}
	}
	many.close()
	want["weir.realtime.messages{events}"]++
	want["weir.realtime.messages{websocket}"] += 2
	want["weir.realtime.ended{events done}"]++
	want["weir.realtime.ended{websocket client}"] = 1
	want["weir.realtime.resumed{events}"], want["weir.realtime.resumed{websocket}"] = 1, 1
	b.become(want)

	// Those who are there when the server stops.
	left := b.submit()
	sse = must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+left.text+"/events", ""))
	defer sse.close()
	ws = must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/"+left.text+"/socket"))
	defer ws.close()
	both = []stateReader{sse, ws}
	next()
	go func() { // it answers the close frame
		for {
			if _, err := ws.next(); err != nil {
				return
			}
		}
	}()
	b.stop()
	want["weir.realtime.messages{events}"]++
	want["weir.realtime.messages{websocket}"]++
	want["weir.realtime.ended{events drain}"], want["weir.realtime.ended{websocket drain}"] = 1, 1
	got := b.metrics()
	maps.DeleteFunc(want, func(k string, _ int64) bool { return strings.HasPrefix(k, "weir.realtime.messages") }) // observed no more
	if !maps.Equal(got, want) {
		t.Errorf("at the end %v, want %v", got, slices.Sorted(maps.Keys(want)))
	}
}
