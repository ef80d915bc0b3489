package emf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Bounds of what is kept for as long as the process runs. What a function prints decides how much that would be.
const (
	maxInstruments  = 1000     // further metrics are dropped
	maxSeries       = 10000    // further series are the overflow of their metric
	maxSourceSeries = 2000     // the same, of one source: it leaves something for the others
	maxSeriesBytes  = 16 << 20 // the same: names and dimensions of all series
	maxSources      = 1000     // further sources are one
)

// scope is that of the metrics about the lines; those of the functions have the EMF namespace as theirs.
const scope = "github.com/weir-dev/weir/internal/emf"

// overflow marks what is added up without what would tell it apart (OpenTelemetry: "Overflow attribute"), and why. It has a
// second attribute because the SDK takes a series that has the first one alone for its own overflow, and puts every later
// series into it (findings/otel-overflow-series.sh; TestSeriesAreBounded).
func overflow(why string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.Bool("otel.metric.overflow", true), reasonKey.String(why)}
}

const reasonKey = attribute.Key("weir.reason")

// Config says where metrics are recorded.
type Config struct {
	// Providers each get every value: one for what is pushed and one for what is scraped, say, which may take different
	// kinds of histogram. Their own limit of cardinality must be off, or above that of this package: theirs isn't counted.
	Providers []metric.MeterProvider
	Log       *slog.Logger
}

// Recorder records the metrics of all sources of a process.
type Recorder struct {
	cfg   Config
	ctx   context.Context // that of every value: a line comes with no request's
	own   []ownMetrics
	other *Source      // of sources that are too many
	held  atomic.Int64 // bytes of lines whose end hasn't come

	mu          sync.Mutex
	names       *names
	instruments map[string]*instrument // by namespace, name and unit as written; nil for one too many
	sources     map[attribute.Distinct]*Source
	series      int
	seriesBytes int
	warned      Reasons
}

// ownMetrics say what became of the lines.
type ownMetrics struct{ lines, dropped metric.Int64Counter }

// instrument is a metric, at each of the providers.
type instrument struct {
	histograms []metric.Float64Histogram
	apart      []attribute.KeyValue
	overflow   *series // nil until there is one too many
}

// series is an instrument with its attributes.
type series struct {
	histograms []metric.Float64Histogram
	options    []metric.RecordOption
	turn       uint64  // the directive that has recorded into it: no other of its sets or metrics may once more
	whole      float64 // the sum of its whole numbers
}

// maxWhole is how large the sum of a series' whole numbers may become, in either direction. The SDK adds them up in an int64,
// whose sum would wrap to the other sign without a word (findings/otel-float-sum-wraps.sh): a few times in nanoseconds are
// enough for that. Numbers beyond an int64 are none of them.
const maxWhole = 0x1p62

func (s *series) record(ctx context.Context, values []float64) (dropped Reasons) {
	for _, v := range values {
		if v == math.Trunc(v) && math.Abs(v) <= 0x1p63 {
			if math.Abs(s.whole+v) > maxWhole {
				dropped = SumTooLarge
				continue
			}
			s.whole += v
		}
		for _, h := range s.histograms {
			h.Record(ctx, v, s.options...)
		}
	}
	return dropped
}

// NewRecorder returns a recorder without sources.
func NewRecorder(cfg Config) (*Recorder, error) {
	if len(cfg.Providers) == 0 || cfg.Log == nil {
		return nil, errors.New("emf: Config needs a provider of meters and a logger")
	}
	r := &Recorder{cfg: cfg, ctx: context.Background(), names: newNames(), instruments: map[string]*instrument{}, sources: map[attribute.Distinct]*Source{}}
	for _, p := range cfg.Providers {
		meter := p.Meter(scope)
		lines, err := meter.Int64Counter("weir.emf.lines", metric.WithUnit("{line}"),
			metric.WithDescription("Lines in embedded metric format that were read."))
		if err != nil {
			return nil, fmt.Errorf("weir.emf.lines: %w", err)
		}
		dropped, err := meter.Int64Counter("weir.emf.dropped", metric.WithUnit("{line}"),
			metric.WithDescription("Lines in embedded metric format of which something is in no metric as it was written, by reason."))
		if err != nil {
			return nil, fmt.Errorf("weir.emf.dropped: %w", err)
		}
		r.own = append(r.own, ownMetrics{lines, dropped})
	}
	r.other = r.newSource(attribute.NewSet(overflow("function-limit")...))
	return r, nil
}

// Source returns the source that has these attributes, on all that is recorded from it: which function it is. There is one
// of the same attributes. When they are too many, the rest shares one that has those of the overflow.
func (r *Recorder) Source(attrs ...attribute.KeyValue) *Source {
	set := attribute.NewSet(attrs...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sources[set.Equivalent()]; s != nil {
		return s
	}
	if len(r.sources) == maxSources {
		if r.first(tooManySources) {
			r.cfg.Log.Warn("more functions than can be told apart: the metrics of the others have no name of a function", "bound", maxSources)
		}
		return r.other
	}
	s := r.newSource(set)
	r.sources[set.Equivalent()] = s
	return s
}

// place finds or makes the series of a metric and its dimensions for a source, that has n. dropped says what is in the way
// of it: then it is that of the overflow, or nil.
func (r *Recorder) place(source attribute.Set, n int, namespace []byte, m *Metric, set []Dimension) (s *series, dropped Reasons) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.instrument(string(namespace), written{string(m.Name), string(m.Unit)})
	if i == nil {
		if r.first(TooManyNames) {
			r.cfg.Log.Warn("no further metrics are made of what functions print: there are as many as there may be", "bound", maxInstruments)
		}
		return nil, TooManyNames
	}
	size := len(namespace) + len(m.Name) + len(m.Unit)
	for _, d := range set {
		size += len(d.Name) + len(d.Value)
	}
	if n >= maxSourceSeries || r.series >= maxSeries || r.seriesBytes+size > maxSeriesBytes {
		if i.overflow == nil {
			i.overflow = i.series(attribute.NewSet(append(overflow(TooManySeries.String()), i.apart...)...))
		}
		if r.first(TooManySeries) {
			r.cfg.Log.Warn("further series are added up without their dimensions: does a dimension hold an id?",
				"bound", maxSeries, "of a function", maxSourceSeries, "namespace", string(namespace), "metric", string(m.Name))
		}
		return i.overflow, TooManySeries
	}
	r.series++
	r.seriesBytes += size
	attrs := make([]attribute.KeyValue, 0, len(set)+source.Len()+len(i.apart))
	for _, d := range set {
		attrs = append(attrs, r.names.dimension(string(d.Name), source).String(string(d.Value)))
	}
	attrs = append(attrs, i.apart...)
	attrs = append(attrs, source.ToSlice()...) // of two of a name the last one counts: nobody prints being another function
	return i.series(attribute.NewSet(attrs...)), 0
}

func (i *instrument) series(set attribute.Set) *series {
	return &series{histograms: i.histograms, options: []metric.RecordOption{metric.WithAttributeSet(set)}}
}

// recordOverflow records into a series that all sources share. It has no turn: of two sets of a directive both count.
func (r *Recorder) recordOverflow(s *series, values []float64) Reasons {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.record(r.ctx, values)
}

// instrument is nil if there are too many.
func (r *Recorder) instrument(namespace string, m written) *instrument {
	key := namespace + "\x00" + m.name + "\x00" + m.unit
	if i := r.instruments[key]; i != nil {
		return i
	}
	if len(r.instruments) == maxInstruments {
		return nil
	}
	id := r.names.of(namespace, m)
	i := &instrument{apart: id.apart}
	for _, p := range r.cfg.Providers {
		h, err := p.Meter(id.scope).Float64Histogram(id.name, metric.WithUnit(id.unit))
		if err != nil { // the name is one that OpenTelemetry allows: TestNames
			r.cfg.Log.Error("a metric of a function can't be made", "namespace", namespace, "metric", m.name, "err", err)
			continue
		}
		i.histograms = append(i.histograms, h)
	}
	r.instruments[key] = i
	return i
}

// first reports whether a bound is reached for the first time: it is logged once. r.mu is held.
func (r *Recorder) first(reason Reasons) bool {
	if r.warned&reason != 0 {
		return false
	}
	r.warned |= reason
	return true
}
