package lifecycle

import "sync"

// Work counts what is in flight and must end before its owner does, where more may try to begin while the owner waits:
// a sync.WaitGroup alone must not be added to then. The zero value is ready.
type Work struct {
	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

// Begin counts one more. The caller calls done once. ok is false after Wait was called: then it must not begin.
func (w *Work) Begin() (done func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil, false
	}
	w.wg.Add(1)
	return w.wg.Done, true
}

// Go runs f unless Wait was called, and reports whether it does.
func (w *Work) Go(f func()) bool {
	done, ok := w.Begin()
	if ok {
		go func() {
			defer done()
			f()
		}()
	}
	return ok
}

// Wait lets nothing more begin, and returns once all that has begun is done.
func (w *Work) Wait() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.wg.Wait()
}
