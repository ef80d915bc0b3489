package lifecycle_test

import (
	"sync"
	"testing"

	"github.com/weir-dev/weir/internal/lifecycle"
)

// TestWork: what begins has ended when Wait returns, and nothing begins after it was called, whoever tries meanwhile.
func TestWork(t *testing.T) {
	for range 200 {
		var w lifecycle.Work
		var wg sync.WaitGroup
		var mu sync.Mutex
		running := 0
		for range 4 {
			wg.Go(func() {
				for {
					done, ok := w.Begin()
					if !ok {
						return
					}
					mu.Lock()
					running++
					mu.Unlock()
					mu.Lock()
					running--
					mu.Unlock()
					done()
				}
			})
		}
		w.Wait()
		mu.Lock()
		if running != 0 {
			t.Errorf("%d are under way", running)
		}
		mu.Unlock()
		if w.Go(func() { t.Error("it began") }) {
			t.Error("it says that it begins")
		}
		wg.Wait()
		w.Wait()
	}
}
