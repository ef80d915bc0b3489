package jobapi

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/pace"
	"github.com/weir-dev/weir/internal/problem"
)

const (
	// maxTransfers bounds the concurrent transfers of objects by clients through this process, and separately those of
	// results that functions report: each holds some MiB.
	maxTransfers = 32
	// transferTimeout is how long the peer of a transfer may send or read nothing. After as long, its rate over all
	// must be at least minTransferRate.
	transferTimeout = 30 * time.Second
	minTransferRate = 16 << 10 // bytes a second
)

// transfer counts one more in flight, or answers that there can't be one now. Close waits for it. The caller calls
// done.
func (a *API) transfer(w http.ResponseWriter, inFlight *atomic.Int64) (done func(), ok bool) {
	if inFlight.Add(1) > maxTransfers {
		inFlight.Add(-1)
		problem.NotNow("Too many transfers at once", "Nothing was stored. Try again.", time.Second).Write(w)
		return nil, false
	}
	ended, ok := a.work.Begin()
	if !ok {
		inFlight.Add(-1)
		problem.NotNow("This gateway is stopping", "Nothing was stored. Try again: another one takes it.", time.Second).Write(w)
		return nil, false
	}
	return func() {
		inFlight.Add(-1)
		ended()
	}, true
}

// receive prepares to read a large body, as long as the client keeps pace. ok is false when it can't; then it has
// answered. Otherwise the caller calls done.
func (a *API) receive(w http.ResponseWriter, req *http.Request, inFlight *atomic.Int64) (body *receiver, done func(), ok bool) {
	if done, ok = a.transfer(w, inFlight); !ok {
		return nil, nil, false
	}
	return &receiver{r: req.Body, rc: http.NewResponseController(w), pace: newPace()}, done, true
}

func newPace() pace.Pace {
	return pace.Pace{Start: time.Now(), Grace: transferTimeout, Rate: minTransferRate}
}

// receiver reads the body of a request, and remembers why that failed.
type receiver struct {
	r    io.Reader
	rc   *http.ResponseController
	pace pace.Pace
	err  error // io.EOF too: no deadline is set after the end
}

func (r *receiver) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.rc.SetReadDeadline(r.pace.Deadline()); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.pace.Bytes += int64(n)
	r.err = err
	return n, err
}

// failed returns why reading failed, nil if it didn't.
func (r *receiver) failed() error {
	if errors.Is(r.err, io.EOF) {
		return nil
	}
	return r.err
}

// sender writes an answer, as long as the client keeps pace.
type sender struct {
	http.ResponseWriter
	rc   *http.ResponseController
	pace pace.Pace
}

func (s *sender) Write(p []byte) (int, error) {
	if err := s.rc.SetWriteDeadline(s.pace.Deadline()); err != nil {
		return 0, err
	}
	n, err := s.ResponseWriter.Write(p)
	s.pace.Bytes += int64(n)
	return n, err
}
