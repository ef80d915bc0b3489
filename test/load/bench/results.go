package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// results collects values by name. A figure is the median of its values.
type results struct {
	machine map[string]any
	values  map[string][]float64
	// doubtful are values measured while other processes took the CPU. They count if there are no others.
	doubtful map[string][]float64
}

func newResults() *results {
	return &results{machine: map[string]any{}, values: map[string][]float64{}, doubtful: map[string][]float64{}}
}

func (r *results) add(name string, v float64) { r.values[name] = append(r.values[name], v) }

func (r *results) addDoubtful(name string, v float64) {
	r.doubtful[name] = append(r.doubtful[name], v)
}

// settle uses doubtful values where there are no others, and returns for how many names.
func (r *results) settle() (n int) {
	for name, v := range r.doubtful {
		if len(r.values[name]) == 0 {
			r.values[name] = v
			n++
		}
	}
	clear(r.doubtful)
	return n
}

// ratio sets name to the ratio of two medians, if both were measured.
func (r *results) ratio(name, numerator, denominator string) {
	if len(r.values[numerator]) == 0 || len(r.values[denominator]) == 0 {
		return
	}
	r.values[name] = []float64{r.median(numerator) / r.median(denominator)}
}

// alias gives the values with the best median of some names another name, too.
func (r *results) alias(name string, of ...string) {
	for _, n := range of {
		if len(r.values[n]) > 0 && !(r.median(n) <= r.median(name)) { // there is none at first
			r.values[name] = r.values[n]
		}
	}
}

func (r *results) median(name string) float64 { return median(r.values[name]) }

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	switch n := len(v); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// goal is the project's target for a figure.
type goal struct {
	name  string
	least bool // the value is a lower bound, not an upper one
	value float64
}

func goals() []goal {
	return []goal{
		{"schema_worst_us_per_kib", false, 5000},
		{"ingest_vs_null_256", true, 0.50},
		{"ingest_vs_null_64", true, 0.28},
		{"ingest_vs_publish_each_256", true, 10},
		{"gateway_cpu_vs_null_256", false, 1.35},
		{"ingest_attributes_vs_ingest_256", true, 0.95},
		{"ingest_telemetry_vs_without_256", true, 0.97},
		{"ingest_traced_vs_without_256", true, 0.80},
		{"ingest_traced_hangs_vs_traced_256", true, 0.97},
		{"ingest_traced_refused_vs_traced_256", true, 0.97},
		{"ingest_traced_away_vs_traced_256", true, 0.97},
		{"drain_telemetry_vs_without", true, 0.97},
		{"ingest_p99_ms_256", false, 40},
		{"ingest_bytes_per_record", false, 450},
		{"ingest_vs_none_256", true, 0.90},
		{"drain_vs_copy", true, 0.25},
		{"latency_p50_ms", false, 25},
		{"latency_p99_ms", false, 0}, // no bound is set
		{"memory_peak_mib", false, 300},
		{"limit_vs_without", true, 0.80},
		{"limit_peak_mib", false, limitMiB},
		{"telemetry_memory_mib", false, 64},
		{"job_vs_ingest_256", true, 0.70},
		{"job_vs_before", true, 5},
		{"job_drain_vs_before", true, 6},
		{"job_vs_river", true, 1.5},
		{"job_drain_vs_river", true, 1.5},
		{"job_longpoll_p50_ms", false, 6},
		{"job_longpoll_p99_ms", false, 20},
		{"job_sse_p50_ms", false, 6},
		{"job_sse_p99_ms", false, 20},
		{"job_socket_p50_ms", false, 6},
		{"job_socket_p99_ms", false, 20},
		{"job_1000_p50_ms", false, 15},
		{"job_syncs_per_job", false, 0.2},
		{"machine_vs_temporal", true, 40},
		{"machine_p50_ms", false, 20},
		{"machine_step_p50_ms", false, 3},
		{"machine_express_per_s", true, 10_000},
		{"machine_waiting_bytes", false, 1024},
		{"machine_starts_per_s", true, 2000},
		{"machine_wake_10k_s", false, 5},
		{"machine_recovery_s", false, 10},
		{"machine_event_bytes", false, 150},
		{"socket_per_gib", true, 60_000},
		{"socket_per_gib_gateway", true, 40_000},
		{"sse_per_gib_gateway", true, 40_000},
		{"socket_fanout_max_ms", false, 150},
		{"socket_fanout_progress_max_ms", false, 150},
	}
}

// table writes the table: first the figures with a goal, then the raw values.
func (r *results) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%v cores, %v, %v, fsync %v ms\n\n", r.machine["cores"], r.machine["go"], r.machine["fileSystem"], r.machine["fsyncMs"])
	fmt.Fprintln(t, "figure\tmedian\tleast\tmost\tgoal\t\t")
	rest := maps.Clone(r.values)
	for _, g := range goals() {
		v, ok := r.values[g.name]
		if !ok {
			continue
		}
		delete(rest, g.name)
		m, bound, verdict := r.median(g.name), "", ""
		switch {
		case g.value == 0:
		case g.least:
			bound, verdict = fmt.Sprintf("≥ %g", g.value), verdictOf(m >= g.value)
		default:
			bound, verdict = fmt.Sprintf("≤ %g", g.value), verdictOf(m <= g.value)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", g.name, short(m), short(slices.Min(v)), short(slices.Max(v)), bound, verdict)
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		v := rest[name]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\t\t\n", name, short(r.median(name)), short(slices.Min(v)), short(slices.Max(v)))
	}
	_ = t.Flush()
}

func verdictOf(ok bool) string {
	if ok {
		return "ok"
	}
	return "MISSED"
}

func short(v float64) string {
	switch {
	case math.Abs(v) >= 1000:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// write stores the machine's facts, the figures and the values they are medians of.
func (r *results) write(path string) error {
	figures := make(map[string]float64, len(r.values))
	for name := range r.values {
		figures[name] = math.Round(r.median(name)*1e4) / 1e4
	}
	out := maps.Clone(r.machine)
	out["figures"], out["rounds"] = figures, r.values
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// machine records what the figures depend on.
func (b *bench) machine(ctx context.Context) error {
	m := b.results.machine
	m["date"] = time.Now().UTC().Format(time.RFC3339)
	m["cores"] = runtime.NumCPU()
	m["go"] = runtime.Version()
	m["rounds_asked"], m["seconds"] = b.rounds, b.window.Seconds()
	output := func(name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = b.root
		out, err := cmd.Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	m["commit"] = output("git", "rev-parse", "--short=12", "HEAD")
	m["modified"] = output("git", "status", "--porcelain", "--untracked-files=no") != ""
	m["fileSystem"] = output("df", "--output=fstype,source", b.dir)
	if fields := strings.Fields(m["fileSystem"].(string)); len(fields) >= 2 { // the last line's
		m["fileSystem"] = strings.Join(fields[len(fields)-2:], " on ")
	}
	p50, err := b.fsync()
	m["fsyncMs"] = p50
	return err
}

// fsync is the median time of a synced 4 KiB append: what a commit can't be faster than.
func (b *bench) fsync() (ms float64, err error) {
	f, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := hdrhistogram.New(1, maxLatency, 3)
	block := make([]byte, 4096)
	for range 200 {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		if err := h.RecordValue(time.Since(start).Microseconds()); err != nil {
			return 0, err
		}
	}
	return float64(h.ValueAtQuantile(50)) / 1000, nil
}
