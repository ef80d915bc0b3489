package realtime

import (
	"errors"
	"runtime"
	"sync"
	"time"
)

const (
	sentAtOnce = 16 // listeners that a sender takes at a time
	// maxPutOff is how long a sender puts off listeners that have to wait for something, or are to be closed.
	maxPutOff = time.Second
)

// errWait means that what is asked for can't be done without waiting.
var errWait = errors.New("realtime: it would have to wait")

// senders tell listeners of what is pending: as many goroutines as there are cores, while there is something. They wait
// for nobody. A listener that has to wait, because its client reads too slowly or its connection is to be closed, gets a
// goroutine of its own, but only once the others have been told.
type senders struct {
	mu    sync.Mutex
	ready []*listener // each once
	busy  int
	wg    sync.WaitGroup
}

// add has l told. It doesn't block.
func (s *senders) add(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, l)
	if s.busy < runtime.GOMAXPROCS(0) {
		s.busy++
		s.wg.Go(s.run)
	}
}

func (s *senders) run() {
	var taken [sentAtOnce]*listener
	var late []*listener
	var since time.Time // when the first of late came
	for {
		n := s.take(taken[:])
		for _, l := range taken[:n] {
			if l.sendNow() {
				continue
			}
			if late = append(late, l); len(late) == 1 {
				since = time.Now()
			}
		}
		if n < len(taken) || len(late) > 0 && time.Since(since) > maxPutOff {
			for _, l := range late {
				l.sendLate()
			}
			late = nil
		}
		if n == 0 {
			return
		}
	}
}

// take returns how many it has taken. With none the caller is a sender no more.
func (s *senders) take(to []*listener) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(to, s.ready)
	clear(s.ready[:n])
	if s.ready = s.ready[n:]; len(s.ready) == 0 {
		s.ready = nil
	}
	if n == 0 {
		s.busy--
	}
	return n
}
