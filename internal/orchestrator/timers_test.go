package orchestrator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestTimers: times that are set, changed and removed at random come when a plain map says.
func TestTimers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var keys []string
	for n := range 300 {
		name := fmt.Sprint("n", n)
		switch n % 3 {
		case 1:
			name = uuid.NewString()
		case 2:
			name = fmt.Sprint("ö", n)
		}
		keys = append(keys, ID{Machine: catalog.Key{Namespace: "ns", Name: fmt.Sprint("m", n%4)}, Name: name}.Key())
	}
	timers, model := newTimers(), map[string]int64{}
	now := time.UnixMilli(1_800_000_000_000)
	for range 20_000 {
		key := keys[random.IntN(len(keys))]
		switch random.IntN(10) {
		case 0:
			timers.set(key, time.Time{})
			delete(model, key)
		case 1:
			now = now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
			due, next := timers.due(now, 5)
			for _, key := range due {
				if at, ok := model[key]; !ok || at > now.UnixMilli() {
					t.Fatalf("%s is due, and planned: %t, for %d", key, ok, at-now.UnixMilli())
				}
				delete(model, key)
			}
			for key, at := range model {
				if len(due) < 5 && (at <= now.UnixMilli() || at < next.UnixMilli()) {
					t.Fatalf("%s, at %d, is not due, nor next at %s", key, at, next)
				}
			}
		default:
			at := now.Add(time.Duration(random.IntN(200)-20) * time.Millisecond)
			least := at.UnixMilli()
			for other, at := range model {
				if other != key {
					least = min(least, at)
				}
			}
			model[key] = at.UnixMilli()
			if first := timers.set(key, at); first && at.UnixMilli() != least || !first && at.UnixMilli() < least {
				t.Fatalf("first: %t", first)
			}
		}
		if key := keys[random.IntN(len(keys))]; timers.has(key) != (model[key] != 0) || timers.len() != len(model) {
			t.Fatalf("%s: %t, %d of %d", key, timers.has(key), timers.len(), len(model))
		}
	}
	all, _ := timers.due(now.Add(time.Hour), len(keys))
	slices.Sort(all)
	if all = slices.Compact(all); len(all) != len(model) || len(timers.places)+len(timers.longs)+len(timers.names) != 0 {
		t.Errorf("%d left of %d; %d, %d, %d are kept", len(all), len(model), len(timers.places), len(timers.longs), len(timers.names))
	}
}
