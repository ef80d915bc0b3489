package orchestrator

import (
	"context"
	"sync"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
)

const (
	// maxOfOne bounds the calls in flight from this process to one function, whatever it takes: others have room beside it.
	maxOfOne = maxCalls / 4
	// maxGates is how many functions are remembered, if so many are not being called.
	maxGates = 1000
)

// functions bounds the calls to each function: as a mapping's calls are, by what it takes at once and by its "not now".
type functions struct {
	mu    sync.Mutex
	takes map[string]int // by its URL, if it is known
	gates map[string]*gate
	sweep int // at so many gates those that nobody uses go
}

// gate is what calls to one function pass.
type gate struct {
	limiter *invoke.Limiter
	turn    chan struct{} // capacity 1: one call waits at the limiter, the others for that, in their order
	users   int           // calls that wait or are made; guarded by functions.mu
}

// use learns from the catalog how many calls functions take at once. find finds a function of a name.
func (f *functions) use(cat *catalog.Catalog, find func(namespace, name string) (catalog.Function, bool)) {
	takes := map[string]int{}
	least := func(url string, n int) {
		if known, ok := takes[url]; !ok || n < known {
			takes[url] = n
		}
	}
	for _, s := range cat.Services {
		if fn, ok := find(s.Namespace, s.Name); ok {
			least(fn.URL, s.MaxConcurrency)
		}
	}
	for i := range cat.Mappings {
		if m := &cat.Mappings[i]; m.Machine == nil {
			least(m.Function.URL, m.MaxConcurrency)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes = takes
	for url, g := range f.gates {
		g.limiter.SetMax(f.most(url))
	}
}

// most is how many calls may be in flight to a function. The caller holds mu.
func (f *functions) most(url string) int {
	if n, ok := f.takes[url]; ok {
		return max(1, min(n, maxOfOne))
	}
	return maxOfOne
}

// enter returns the gate of a function; leave gives it back.
func (f *functions) enter(url string) *gate {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.gates[url]
	if g == nil {
		if len(f.gates) >= max(f.sweep, maxGates) {
			for url, idle := range f.gates {
				if idle.users == 0 {
					delete(f.gates, url)
				}
			}
			f.sweep = 2 * len(f.gates)
		}
		g = &gate{limiter: invoke.NewLimiter(f.most(url)), turn: make(chan struct{}, 1)}
		f.gates[url] = g
	}
	g.users++
	return g
}

func (f *functions) leave(g *gate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.users--
}

// acquire waits until a call may start; the error is ctx's. The limiter's Release or Cancel ends it.
func (g *gate) acquire(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-g.turn }()
	return g.limiter.Acquire(ctx)
}
