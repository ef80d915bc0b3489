package emf

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"go.opentelemetry.io/otel/attribute"
)

func line(namespace, name, unit, dimensions, members string) string {
	return fmt.Sprintf(`{"_aws":{"CloudWatchMetrics":[{"Namespace":%q,"Dimensions":%s,"Metrics":[{"Name":%q,"Unit":%q}]}]},%s}`, namespace, dimensions, name, unit, members)
}

func has(t *testing.T, got []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, strings.Join(append(got[:min(len(got), 20)], got[max(0, len(got)-20):]...), "\n"))
		}
	}
}

// TestSplitter: however the output is cut into pieces, each line counts once.
func TestSplitter(t *testing.T) {
	text := "plain\n" + sample + "\n\n  " + sample + "\r\n{not JSON\n{\"a\":1}\n" + strings.Repeat("x", 100_000) + "\n" + sample // without an end
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)), "halves": iotest.HalfReader(strings.NewReader(text)),
	} {
		b := newBench(t)
		w := b.Source().Splitter()
		if n, err := io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{r}); err != nil || n != int64(len(text)) {
			t.Fatalf("%s: %d %v", name, n, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		has(t, b.recorded(t), "weir.emf.lines {} 3", `orders rows "{count}" {operation=write-batch service=order-writer} 3 300 100 100`)
		if n := b.held.Load(); n != 0 {
			t.Errorf("%s: %d bytes count as held", name, n)
		}
	}
}

// TestTooLong: a long line is dropped and counted, whether it comes whole or in pieces, and the next one is read.
func TestTooLong(t *testing.T) {
	long := strings.TrimSuffix(sample, "}") + `,"x":"` + strings.Repeat("x", MaxLineBytes) + "\"}\n"
	for _, pieces := range []int{len(long), 4096} {
		b := newBench(t)
		w := b.Source().Splitter()
		for piece := range slices.Chunk([]byte(long+`{"x":"`+strings.Repeat("y", MaxLineBytes)+"\"}\n"+sample+"\n"), pieces) {
			_, _ = w.Write(piece)
			if len(w.held) > MaxLineBytes {
				t.Fatalf("%d bytes are held", len(w.held))
			}
		}
		has(t, b.recorded(t), "weir.emf.lines {} 2", "weir.emf.dropped {weir.reason=too-long} 1", `orders rows "{count}" {operation=write-batch service=order-writer} 1 100 100 100`)
	}
}

// TestHeldBytes: lines that don't end take no more memory together than they may.
func TestHeldBytes(t *testing.T) {
	b := newBench(t)
	part := []byte(strings.TrimSuffix(sample, "}") + `,"x":"` + strings.Repeat("x", MaxLineBytes/2))
	var all []*Splitter
	for range 3 * maxHeldBytes / MaxLineBytes {
		w := b.Source().Splitter()
		_, _ = w.Write(part)
		all = append(all, w)
	}
	if n := b.held.Load(); n > maxHeldBytes || n < maxHeldBytes-int64(len(part)) {
		t.Errorf("%d bytes are held", n)
	}
	for _, w := range all {
		_, _ = w.Write([]byte("\"}\n" + sample + "\n"))
	}
	if n := b.held.Load(); n != 0 {
		t.Errorf("%d bytes are held after the lines have ended", n)
	}
	kept := maxHeldBytes / len(part)
	has(t, b.recorded(t), fmt.Sprintf("weir.emf.dropped {weir.reason=too-long} %d", len(all)-kept), fmt.Sprintf("weir.emf.lines {} %d", 2*len(all)))
}

// TestSeriesAreBounded: what is too much of one source is added up without its dimensions, and of another is not.
func TestSeriesAreBounded(t *testing.T) {
	b := newBench(t)
	noisy, quiet := b.Source(attribute.String("faas.name", "noisy")), b.Source(attribute.String("faas.name", "quiet"))
	for i := range maxSourceSeries + 10 {
		noisy.Line([]byte(line("N", "v", "", `[["id"]]`, fmt.Sprintf(`"v":2,"id":"%d"`, i))))
	}
	noisy.Line([]byte(line("N", "v", "", `[["id"]]`, `"v":2,"id":"0"`))) // one that is known still counts
	quiet.Line([]byte(line("N", "v", "", `[["id"]]`, `"v":3,"id":"0"`)))
	got := b.recorded(t)
	has(t, got, `N v "" {otel.metric.overflow=true weir.reason=series-limit} 10 20 2 2`, `N v "" {faas.name=noisy id=0} 2 4 2 2`, `N v "" {faas.name=quiet id=0} 1 3 3 3`,
		"weir.emf.dropped {faas.name=noisy weir.reason=series-limit} 10")
	if n := strings.Count(b.log.String(), "without their dimensions"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

func TestAllSeriesAreBounded(t *testing.T) {
	b := newBench(t)
	for i := range maxSeries + 10 {
		source := b.Source(attribute.Int("n", i/1000))
		source.Line([]byte(line("N", "v", "", `[["id"]]`, fmt.Sprintf(`"v":2,"id":"%d"`, i))))
	}
	has(t, b.recorded(t), `N v "" {otel.metric.overflow=true weir.reason=series-limit} 10 20 2 2`)

	b = newBench(t)
	long := strings.Repeat("x", 1000)
	var members, names []string
	for i := range 30 {
		members, names = append(members, fmt.Sprintf(`"d%d":"%s"`, i, long)), append(names, fmt.Sprintf(`"d%d"`, i))
	}
	for i := range 600 { // of 30 kB each
		b.Source().Line([]byte(line("N", "v", "", `[[`+strings.Join(names, ",")+`]]`, strings.Join(members, ",")+fmt.Sprintf(`,"v":2,"d0":"%d"`, i))))
	}
	if b.seriesBytes > maxSeriesBytes {
		t.Errorf("%d bytes of dimensions are kept", b.seriesBytes)
	}
	if got := b.recorded(t); !strings.Contains(strings.Join(got, "\n"), "overflow=true weir.reason=series-limit") {
		t.Error("nothing is in the overflow")
	}
}

func TestMetricsAreBounded(t *testing.T) {
	b := newBench(t)
	for i := range maxInstruments + 5 {
		b.Source().Line([]byte(line("N", fmt.Sprintf("m%d", i), "", `[[]]`, fmt.Sprintf(`"m%d":1`, i))))
	}
	got := b.recorded(t)
	has(t, got, "weir.emf.dropped {weir.reason=metric-limit} 5", fmt.Sprintf("weir.emf.lines {} %d", maxInstruments+5))
	if len(got) != maxInstruments+2 {
		t.Errorf("%d series", len(got))
	}
}

func TestSourcesAreBounded(t *testing.T) {
	b := newBench(t)
	for i := range maxSources + 5 {
		b.Source(attribute.Int("n", i)).Line([]byte(line("N", "v", "", `[[]]`, `"v":1`)))
	}
	if first := b.Source(attribute.Int("n", 0)); b.Source(attribute.Int("n", 0)) != first {
		t.Error("the same attributes are two sources")
	}
	has(t, b.recorded(t), `N v "" {otel.metric.overflow=true weir.reason=function-limit} 5 5 1 1`, `N v "" {n=999} 1 1 1 1`)
}

// TestConcurrent: what several streams of several functions print at a time is added up.
func TestConcurrent(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	for n := range 8 {
		w := b.Source(attribute.Int("n", n/2)).Splitter()
		wg.Go(func() {
			for range 500 {
				_, _ = io.WriteString(w, sample+"\n")
			}
		})
	}
	wg.Wait()
	for n := range 4 {
		has(t, b.recorded(t), fmt.Sprintf(`orders rows "{count}" {n=%d operation=write-batch service=order-writer} 1000 100000 100 100`, n), fmt.Sprintf("weir.emf.lines {n=%d} 1000", n))
	}
}
