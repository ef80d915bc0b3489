package emf

import (
	"encoding/binary"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Source is one function, whose lines it takes.
type Source struct {
	r       *Recorder
	attrs   attribute.Set
	lines   metric.AddOption
	dropped [reasonCount]metric.AddOption // by the bit of the reason

	mu     sync.Mutex // one line at a time, so that a series gets its values in the order of the lines
	parser Parser
	series map[string]*series // by namespace, metric, unit and dimensions as written
	turn   uint64
	prefix []byte // of a key: namespace, metric and unit
	suffix []byte // the dimensions of all sets of a directive
	ends   []int  // where in suffix each set ends
	key    []byte
}

func (r *Recorder) newSource(attrs attribute.Set) *Source {
	s := &Source{r: r, attrs: attrs, lines: metric.WithAttributeSet(attrs), series: map[string]*series{}}
	for bit := range reasonCount {
		reason := reasonKey.String(Reasons(1 << bit).String())
		s.dropped[bit] = metric.WithAttributeSet(attribute.NewSet(append(attrs.ToSlice(), reason)...))
	}
	return s
}

// Line takes one line, without its end.
func (s *Source) Line(line []byte) {
	if !candidate(line) {
		return
	}
	if len(line) > MaxLineBytes {
		s.tooLong()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := s.parser.Parse(line)
	if doc == nil {
		return
	}
	dropped := doc.Dropped
	for i := range doc.Directives {
		dropped |= s.record(&doc.Directives[i])
	}
	s.count(dropped)
}

// tooLong counts a line that was not read whole.
func (s *Source) tooLong() { s.count(TooLong) }

// count counts a line, and once for each reason why something of it was dropped.
func (s *Source) count(dropped Reasons) {
	for _, own := range s.r.own {
		own.lines.Add(s.r.ctx, 1, s.lines)
		bit := 0
		for rest := dropped; rest != 0; rest >>= 1 {
			if rest&1 != 0 {
				own.dropped.Add(s.r.ctx, 1, s.dropped[bit])
			}
			bit++
		}
	}
}

// record records the values of a directive: each metric's into the series of each dimension set.
func (s *Source) record(d *Directive) (dropped Reasons) {
	s.turn++
	s.suffix, s.ends = s.suffix[:0], s.ends[:0]
	for _, set := range d.Sets {
		for _, dim := range set {
			s.suffix = appendText(appendText(s.suffix, dim.Name), dim.Value)
		}
		s.ends = append(s.ends, len(s.suffix))
	}
	for i := range d.Metrics {
		m := &d.Metrics[i]
		s.prefix = appendText(appendText(appendText(s.prefix[:0], d.Namespace), m.Name), m.Unit)
		from := 0
		for n, set := range d.Sets {
			s.key = append(append(s.key[:0], s.prefix...), s.suffix[from:s.ends[n]]...)
			from = s.ends[n]
			to, known := s.series[string(s.key)]
			if !known {
				var why Reasons
				if to, why = s.r.place(s.attrs, len(s.series), d.Namespace, m, set); why == 0 {
					s.series[string(s.key)] = to
				} else if dropped |= why; to != nil {
					dropped |= s.r.recordOverflow(to, m.Values)
					continue
				}
			}
			if to != nil && to.turn != s.turn {
				to.turn = s.turn
				dropped |= to.record(s.r.ctx, m.Values)
			}
		}
	}
	return dropped
}

// appendText writes a text and its length, so that no two lists of texts look alike.
func appendText(b, text []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}
