package emf

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
)

// What tells two metrics apart whose names OpenTelemetry or Prometheus can't: the name and unit as they were written.
const (
	nameKey = attribute.Key("emf.metric.name")
	unitKey = attribute.Key("emf.metric.unit")
)

// maxInstrumentName is OpenTelemetry's bound of an instrument's name.
const maxInstrumentName = 255

// instrumentName is the name as OpenTelemetry allows it: a letter, then letters, digits and _.-/.
func instrumentName(name string) string {
	mapped := strings.Map(func(r rune) rune {
		if r < 0x80 && (isLetter(byte(r)) || r >= '0' && r <= '9' || strings.ContainsRune("_.-/", r)) {
			return r
		}
		return '_'
	}, name)
	if mapped == "" || !isLetter(mapped[0]) {
		mapped = "emf_" + mapped
	}
	return mapped[:min(len(mapped), maxInstrumentName)]
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// names decides what metrics are called. It knows how an exporter for Prometheus translates the names, because there a
// clash would cost more than the metric: a scrape with two series of one name and the same labels is refused, and so is
// a histogram x beside something called x_count.
type names struct {
	namer    otlptranslator.MetricNamer
	families map[string]bool    // names in Prometheus, of all namespaces
	owners   map[string]written // by scope and name in Prometheus: who needs no attribute to be told apart
	taken    map[string]string  // by scope, name in small letters and unit: how the SDK spells the instrument
	labels   map[string]string  // which dimension has a label in Prometheus: there two series may differ in labels alone
}

// written is a metric as the function calls it.
type written struct{ name, unit string }

// instrumentID is what a metric becomes.
type instrumentID struct {
	scope, name, unit string
	apart             []attribute.KeyValue // on each of its series
}

func newNames() *names {
	return &names{
		namer:    otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes),
		families: map[string]bool{}, owners: map[string]written{}, taken: map[string]string{}, labels: map[string]string{},
	}
}

// reserved are the beginnings of names in Prometheus that others use: Weir, the Go runtime, the exporter and Prometheus.
func reserved() []string {
	return []string{"weir_", "go_", "process_", "promhttp_", "otel_", "target_info", "scrape_", "up"}
}

// of names a metric of a namespace. The first that comes has the plain name; what would clash with it gets attributes.
func (n *names) of(namespace string, m written) instrumentID {
	id := instrumentID{scope: namespace, name: instrumentName(m.name), unit: ucum([]byte(m.unit))}
	family := n.family(id)
	for _, r := range reserved() {
		if family == r || strings.HasSuffix(r, "_") && strings.HasPrefix(family, r) {
			id.name = cut("emf_" + id.name)
			family = n.family(id)
		}
	}
	for range 3 { // each step makes it longer, and three clashes in a row would have to be meant
		if !n.overlaps(family) {
			break
		}
		id.name = cut(id.name + "_emf")
		family = n.family(id)
	}
	spelled := namespace + "\x00" + strings.ToLower(id.name) + "\x00" + id.unit
	if as, ok := n.taken[spelled]; ok {
		id.name = as // the SDK takes names that differ in capitals for one
		family = n.family(id)
	}
	n.taken[spelled] = id.name
	n.families[family] = true
	owner, owned := n.owners[namespace+"\x00"+family]
	if !owned {
		n.owners[namespace+"\x00"+family] = m
	}
	if m.name != id.name || owned && owner.name != m.name {
		id.apart = append(id.apart, nameKey.String(strings.ToValidUTF8(m.name, "\uFFFD")))
	}
	if owned && owner.unit != m.unit {
		id.apart = append(id.apart, unitKey.String(strings.ToValidUTF8(m.unit, "\uFFFD")))
	}
	return id
}

func cut(name string) string { return name[:min(len(name), maxInstrumentName)] }

func (n *names) family(id instrumentID) string {
	family, err := n.namer.Build(otlptranslator.Metric{Name: id.name, Unit: id.unit, Type: otlptranslator.MetricTypeHistogram})
	if err != nil { // of an empty name, and id.name has a letter
		return id.name
	}
	return family
}

// overlaps reports whether a histogram's own series would have the name of another metric, or the other way round.
func (n *names) overlaps(family string) bool {
	for _, suffix := range []string{"_count", "_sum", "_bucket"} {
		if base, ok := strings.CutSuffix(family, suffix); ok && n.families[base] || n.families[family+suffix] {
			return true
		}
	}
	return false
}

// dimension is the attribute of a dimension: its name, unless in Prometheus that is a label of others or none at all.
// others are the attributes of the source. Of two names that are one label the one that comes later gets its hash.
func (n *names) dimension(name string, others attribute.Set) attribute.Key {
	name = strings.ToValidUTF8(name, "\uFFFD")
	key := name
	label := labelOf(key)
	clash := label == ""
	for _, r := range []string{"le", "quantile", "job", "instance"} {
		clash = clash || label == r
	}
	for _, r := range []string{"__", "otel_", "emf_metric_", "weir_"} {
		clash = clash || strings.HasPrefix(label, r)
	}
	for i := others.Iter(); !clash && i.Next(); {
		clash = label == labelOf(string(i.Attribute().Key))
	}
	if clash {
		key = "dimension." + name
		label = labelOf(key)
	}
	if owner, taken := n.labels[label]; taken && owner != name {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name)) // it never fails
		key = fmt.Sprintf("%s_%016x", key, h.Sum64())
		label = labelOf(key)
	}
	n.labels[label] = name
	return attribute.Key(key)
}

// labelOf is a key's label in Prometheus, "" if it can have none.
func labelOf(key string) string {
	label, err := (&otlptranslator.LabelNamer{}).Build(key)
	if err != nil {
		return ""
	}
	return label
}
