package emf

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a recorder whose metrics can be looked at.
type bench struct {
	*Recorder
	reader *sdkmetric.ManualReader
	log    *strings.Builder
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{reader: sdkmetric.NewManualReader(), log: &strings.Builder{}}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader), sdkmetric.WithCardinalityLimit(0), sdkmetric.WithView(sdkmetric.NewView(
		sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})))
	t.Cleanup(func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	var err error
	if b.Recorder, err = NewRecorder(Config{Providers: []metric.MeterProvider{provider}, Log: slog.New(slog.NewTextHandler(b.log, nil))}); err != nil {
		t.Fatal(err)
	}
	return b
}

// recorded are the metrics, one text for each series: "namespace name unit {attributes} count sum min max", and
// "name {attributes} n" for the counters of Weir's own.
func (b *bench) recorded(t testing.TB) []string {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := b.reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			switch data := m.Data.(type) {
			case metricdata.ExponentialHistogram[float64]:
				for _, p := range data.DataPoints {
					low, _ := p.Min.Value()
					high, _ := p.Max.Value()
					out = append(out, fmt.Sprintf("%s %s %q {%s} %d %v %v %v", sm.Scope.Name, m.Name, m.Unit, text(p.Attributes), p.Count, p.Sum, low, high))
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					out = append(out, fmt.Sprintf("%s {%s} %d", m.Name, text(p.Attributes), p.Value))
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	slices.Sort(out)
	return out
}

func text(set attribute.Set) string {
	var out []string
	for i := set.Iter(); i.Next(); {
		out = append(out, string(i.Attribute().Key)+"="+i.Attribute().Value.String())
	}
	return strings.Join(out, " ")
}

func oneLine(s string) string {
	return strings.NewReplacer("\n", "", "\t", "").Replace(s)
}

func TestLines(t *testing.T) {
	doc := func(directive, members string) string {
		return `{"_aws":{"Timestamp":1700000000000,"CloudWatchMetrics":[` + directive + `]}` + members + `}`
	}
	of := func(dimensions, metrics string) string {
		return `{"Namespace":"N","Dimensions":` + dimensions + `,"Metrics":[` + metrics + `]}`
	}
	many := func(n int, f string) string {
		var parts []string
		for i := range n {
			parts = append(parts, strings.ReplaceAll(f, "#", fmt.Sprint(i)))
		}
		return strings.Join(parts, ",")
	}
	for _, c := range []struct {
		name, line string
		want       []string // without weir.emf.lines, which is 1 unless there is nothing at all
	}{
		// AWS: "Specification: Embedded metric format", its example.
		{
			"the specification's", oneLine(`{
			"_aws": {"Timestamp": 1574109732004, "CloudWatchMetrics": [{"Namespace": "lambda-function-metrics", "Dimensions": [["functionVersion"]],
				"Metrics": [{"Name": "time", "Unit": "Milliseconds", "StorageResolution": 60}]}]},
			"functionVersion": "$LATEST", "time": 100, "requestId": "989ffbf8-9ace-4817-a57c-e4dd734019ee"}`),
			[]string{`lambda-function-metrics time "ms" {functionVersion=$LATEST} 1 100 100 100`},
		},
		// AWS: "Using the CloudWatch agent to send embedded metric format logs".
		{
			"the agent's", `{"_aws":{"Timestamp":1574109732004,"LogGroupName":"Foo","CloudWatchMetrics":[{"Namespace":"MyApp","Dimensions":[["Operation"]],"Metrics":[{"Name":"ProcessingLatency","Unit":"Milliseconds","StorageResolution":60}]}]},"Operation":"Aggregator","ProcessingLatency":100}`,
			[]string{`MyApp ProcessingLatency "ms" {Operation=Aggregator} 1 100 100 100`},
		},
		// AWS: "Using the PutLogEvents API to send manually-created embedded metric format logs".
		{
			"that of PutLogEvents", oneLine(`{
			"_aws": {"Timestamp": 1574109732004, "CloudWatchMetrics": [{"Namespace": "MyApp", "Dimensions": [["Operation"], ["Operation", "Cell"]],
				"Metrics": [{ "Name": "ProcessingLatency", "Unit": "Milliseconds" }]}]},
			"Operation": "Aggregator", "Cell": "001", "ProcessingLatency": 100}`),
			[]string{`MyApp ProcessingLatency "ms" {Cell=001 Operation=Aggregator} 1 100 100 100`, `MyApp ProcessingLatency "ms" {Operation=Aggregator} 1 100 100 100`},
		},
		// AWS: the specification, on references: a target is a member of the root, whatever its name looks like.
		{"a name with a dot", doc(of(`[[]]`, `{"Name":"A.a"}`), `,"A.a":1,"A":{"a":2}`), []string{`N A.a "" {} 1 1 1 1`}},
		{"nested is no target", doc(of(`[[]]`, `{"Name":"A.a"}`), `,"A":{"a":2}`), []string{`weir.emf.dropped {weir.reason=missing-metric} 1`}},

		{"members before _aws", `{"v":1,"d":"x","_aws":{"CloudWatchMetrics":[` + of(`[["d"]]`, `{"Name":"v"}`) + `],"Timestamp":1}}`, []string{`N v "" {d=x} 1 1 1 1`}},
		{"an array", doc(of(`[["d"]]`, `{"Name":"v","Unit":"Count"}`), `,"d":"x","v":[1, 2.5 ,-3e0]`), []string{`N v "{count}" {d=x} 3 0.5 -3 2.5`}},
		{"an empty array", doc(of(`[["d"]]`, `{"Name":"v"}`), `,"d":"x","v":[]`), []string{}},
		{"100 values", doc(of(`[[]]`, `{"Name":"v"}`), `,"v":[`+many(100, "#")+`]`), []string{`N v "" {} 100 4950 0 99`}},
		{"101 values", doc(of(`[[]]`, `{"Name":"v"},{"Name":"w"}`), `,"w":1,"v":[`+many(101, "#")+`]`), []string{`N w "" {} 1 1 1 1`, `weir.emf.dropped {weir.reason=too-many-values} 1`}},
		{"several dimension sets", doc(of(`[["a"],["a","b"],[]]`, `{"Name":"v"}`), `,"a":"1","b":"2","v":7`), []string{`N v "" {a=1 b=2} 1 7 7 7`, `N v "" {a=1} 1 7 7 7`, `N v "" {} 1 7 7 7`}},
		{"the same set twice", doc(of(`[["a"],["a"]]`, `{"Name":"v"},{"Name":"v"}`), `,"a":"1","v":7`), []string{`N v "" {a=1} 1 7 7 7`}},
		{"no sets", doc(of(`[]`, `{"Name":"v"}`), `,"v":7`), []string{`N v "" {} 1 7 7 7`}},
		{
			"several directives", doc(of(`[["a"]]`, `{"Name":"v"}`)+`,{"Namespace":"M","Dimensions":[[]],"Metrics":[{"Name":"v"},{"Name":"w","Unit":"Bytes/Second","StorageResolution":1}]}`, `,"a":"1","v":7,"w":8`),
			[]string{`M v "" {} 1 7 7 7`, `M w "By/s" {} 1 8 8 8`, `N v "" {a=1} 1 7 7 7`},
		},
		{"a metric is missing", doc(of(`[[]]`, `{"Name":"v"},{"Name":"w"}`), `,"w":8`), []string{`N w "" {} 1 8 8 8`, `weir.emf.dropped {weir.reason=missing-metric} 1`}},
		{"a dimension is missing", doc(of(`[["a"],["b"]]`, `{"Name":"v"}`), `,"a":"1","v":7`), []string{`N v "" {a=1} 1 7 7 7`, `weir.emf.dropped {weir.reason=missing-dimension} 1`}},
		{"a dimension is a number", doc(of(`[["v"]]`, `{"Name":"v"}`), `,"v":7`), []string{`N v "" {v=7} 1 7 7 7`}},
		{"a dimension is an object", doc(of(`[["a"],[]]`, `{"Name":"v"}`), `,"a":{},"v":7`), []string{`N v "" {} 1 7 7 7`, `weir.emf.dropped {weir.reason=dimension} 1`}},
		{"a dimension is empty", doc(of(`[["a"]]`, `{"Name":"v"}`), `,"a":"","v":7`), []string{`weir.emf.dropped {weir.reason=dimension} 1`}},
		{"a value is text", doc(of(`[[]]`, `{"Name":"v"},{"Name":"w"}`), `,"v":"7","w":[1,"2"]`), []string{`weir.emf.dropped {weir.reason=value} 1`}},
		{"a value that CloudWatch refuses", doc(of(`[[]]`, `{"Name":"v"},{"Name":"w"}`), `,"v":1e400,"w":3e108`), []string{`weir.emf.dropped {weir.reason=value} 1`}},
		{"a sum past an int64", doc(of(`[[]]`, `{"Name":"v"}`), `,"v":[3e18,3e18,-4e18,3e18,0.5,1e30]`), []string{`N v "" {} 5 1.000000000002e+30 -4e+18 1e+30`, `weir.emf.dropped {weir.reason=sum-limit} 1`}},
		{"30 dimensions", doc(of(`[[`+many(30, `"d#"`)+`]]`, `{"Name":"v"}`), `,"v":7,`+many(30, `"d#":"#"`)), []string{`N v "" {` + attributes(30) + `} 1 7 7 7`}},
		{"31 dimensions", doc(of(`[[`+many(31, `"d#"`)+`],["d1"]]`, `{"Name":"v"}`), `,"v":7,`+many(31, `"d#":"#"`)), []string{`N v "" {d1=1} 1 7 7 7`, `weir.emf.dropped {weir.reason=too-many-dimensions} 1`}},
		{"101 metrics", doc(of(`[[]]`, many(101, `{"Name":"m#"}`))+`,`+of(`[[]]`, `{"Name":"m1"}`), `,`+many(101, `"m#":#`)), []string{`N m1 "" {} 1 1 1 1`, `weir.emf.dropped {weir.reason=too-many-metrics} 1`}},
		{"no namespace", doc(`{"Dimensions":[[]],"Metrics":[{"Name":"v"}]}`, `,"v":1`), []string{`weir.emf.dropped {weir.reason=directive} 1`}},
		{"no dimensions", doc(`{"Namespace":"N","Metrics":[{"Name":"v"}]}`, `,"v":1`), []string{`weir.emf.dropped {weir.reason=directive} 1`}},
		{"dimensions of another form", doc(of(`["a"]`, `{"Name":"v"}`), `,"a":"1","v":1`), []string{`weir.emf.dropped {weir.reason=directive} 1`}},
		{"a metric without a name", doc(of(`[[]]`, `{"Unit":"Count"}`), ``), []string{`weir.emf.dropped {weir.reason=directive} 1`}},
		{"no array", `{"_aws":{"CloudWatchMetrics":{}}}`, []string{`weir.emf.dropped {weir.reason=malformed} 1`}},
		{"cut off", `{"_aws":{"CloudWatchMetrics":[{"Namesp`, []string{`weir.emf.dropped {weir.reason=malformed} 1`}},
		{"text behind it", doc(of(`[[]]`, `{"Name":"v"}`), `,"v":1`) + `x`, []string{`weir.emf.dropped {weir.reason=malformed} 1`}},
		{"space around it", "\t " + doc(of(`[[]]`, `{"Name":"v"}`), `,"v":1`) + " \r", []string{`N v "" {} 1 1 1 1`}},
		{"escapes", `{"\u005faws":{"CloudWatchMetrics":[{"Namespace":"\u004e","Dimensions":[["\u0061"]],"Metrics":[{"Name":"\u0076","Unit":"\u0043ount"}]}]},"a":"\u00e9","v":1}`, []string{`N v "{count}" {a=é} 1 1 1 1`}},
		{"the last of two", `{"_aws":{"CloudWatchMetrics":[` + of(`[[]]`, `{"Name":"w"}`) + `]},"_aws":{"CloudWatchMetrics":[` + of(`[[]]`, `{"Name":"v"}`) + `]},"v":1,"v":2}`, []string{`N v "" {} 1 2 2 2`}},
		{"an unknown unit", doc(of(`[[]]`, `{"Name":"v","Unit":"Apples {}"}`), `,"v":1`), []string{`N v "{Apples___}" {} 1 1 1 1`}},
		{"a unit that is no text", doc(of(`[[]]`, `{"Name":"v","Unit":1}`), `,"v":1`), []string{`N v "" {} 1 1 1 1`}},
		{"a name that OpenTelemetry refuses", doc(of(`[[]]`, `{"Name":"Process Latency"}`), `,"Process Latency":1`), []string{`N Process_Latency "" {emf.metric.name=Process Latency} 1 1 1 1`}},
		{"a name of other letters", doc(of(`[[]]`, `{"Name":"延迟"}`), `,"延迟":1`), []string{`N emf___ "" {emf.metric.name=延迟} 1 1 1 1`}},

		{"plain text", `START RequestId: 989ffbf8 Version: $LATEST`, nil},
		{"an empty line", ``, nil},
		{"a JSON log", `{"level":"INFO","message":"said \"_aws\": {}"}`, nil},
		{"_aws of something else", `{"_aws":{"Timestamp":1}}`, nil},
		{"_aws that is no object", `{"_aws":[{"CloudWatchMetrics":[]}]}`, nil},
		{"_aws further inside", `{"a":{"_aws":{"CloudWatchMetrics":[` + of(`[[]]`, `{"Name":"v"}`) + `]}},"v":1}`, nil},
		{"an array of documents", `[{"_aws":{"CloudWatchMetrics":[]}}]`, nil},
		{"a prefix, as of Lambda's runtime", "2026-11-28T00:00:00Z\tid\tINFO\t" + doc(of(`[[]]`, `{"Name":"v"}`), `,"v":1`), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.Source().Line([]byte(c.line))
			want := c.want
			if want != nil {
				want = append(slices.Clone(want), "weir.emf.lines {} 1")
			}
			slices.Sort(want)
			if got := b.recorded(t); !slices.Equal(got, want) {
				t.Errorf("%s\nbecomes\n%s\nwant\n%s", c.line, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// attributes are d0=0 … as the SDK sorts them.
func attributes(n int) string {
	set := map[string]string{}
	for i := range n {
		set[fmt.Sprintf("d%d", i)] = fmt.Sprint(i)
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(set)) {
		out = append(out, k+"="+set[k])
	}
	return strings.Join(out, " ")
}

const sample = `{"_aws":{"Timestamp":1700000000000,"LogGroupName":"/functions/orders","CloudWatchMetrics":[{"Namespace":"orders","Dimensions":[["service","operation"]],"Metrics":[{"Name":"latency","Unit":"Milliseconds"},{"Name":"rows","Unit":"Count"}]}]},"service":"order-writer","operation":"write-batch","latency":12.75,"rows":100,"requestId":"989ffbf8-9ace-4817-a57c-e4dd734019ee","version":"2026-11-28","region":"eu-central-1"}`

func BenchmarkLines(b *testing.B) {
	for _, c := range []struct{ name, line string }{
		{"emf", sample},
		{"plain", "2026-11-28T00:00:00Z INFO wrote a batch of 100 orders in 12.75 ms for request 989ffbf8-9ace-4817-a57c-e4dd734019ee, and nothing failed"},
		{"json", `{"time":"2026-11-28T00:00:00Z","level":"INFO","msg":"wrote a batch","service":"order-writer","rows":100,"latency":12.75,"requestId":"989ffbf8-9ace-4817-a57c-e4dd734019ee"}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newBench(b).Source(attribute.String("faas.name", "order-writer")).Splitter()
			chunk := []byte(strings.Repeat(c.line+"\n", 64))
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			n := 0
			before := testkit.ProcessorTime(b)
			for b.Loop() {
				_, _ = w.Write(chunk)
				n += 64
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lines/s")
			b.ReportMetric(float64(n)/(testkit.ProcessorTime(b)-before).Seconds(), "lines/CPU-s") // whatever else the machine does
		})
	}
}
