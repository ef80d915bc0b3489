package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The collector runs when some garbageRoom of garbage has come together, whatever is alive. Go's way, a proportion of
// what is alive, is too little for a heap of a few MiB, where the default would take a tenth of the CPU, and too much
// for tens of thousands of idle connections, whose memory is what counts.
const (
	garbageRoom  = 12 << 20
	minGCPercent = 25
	maxGCPercent = 400
)

// TuneGC configures the garbage collector for a process of Weir. GOGC overrides it.
func TuneGC() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(maxGCPercent)
	afterEachGC(maxGCPercent)
}

// cycle is garbage at once, so that its finalizer runs after each cycle of the collector. It isn't tiny: such objects
// are collected together.
type cycle struct{ percent *int }

func afterEachGC(percent int) {
	runtime.SetFinalizer(&cycle{&percent}, func(c *cycle) { afterEachGC(tuned(*c.percent)) })
}

// tuned sets the percentage to what leaves garbageRoom, unless it is about that now, and returns it.
func tuned(now int) int {
	alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(alive)
	var bytes uint64
	for _, s := range alive {
		bytes += s.Value.Uint64()
	}
	percent := percentFor(bytes)
	if percent > now*9/10 && percent < now*11/10 {
		return now
	}
	debug.SetGCPercent(percent)
	return percent
}

// percentFor is GOGC for so many bytes alive.
func percentFor(alive uint64) int {
	return int(min(max(garbageRoom*100/max(alive, 1), minGCPercent), maxGCPercent))
}
