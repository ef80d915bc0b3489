package gateway

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// unhurriedAnswer bounds how long a client may take nothing of an answer: what the answer holds, its memory and its
// place in the drain, must not be held by who doesn't read. minBodyRate is what it has to take over all.
const unhurriedAnswer = 10 * time.Second

// answer is an http.ResponseWriter whose client has to read.
type answer struct {
	http.ResponseWriter
	rc    *http.ResponseController
	taken bool // from HTTP
}

func newAnswer(w http.ResponseWriter) *answer {
	return &answer{ResponseWriter: w, rc: http.NewResponseController(w)}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if err := a.within(len(p)); err != nil {
		return 0, err
	}
	n, err := a.ResponseWriter.Write(p)
	if err != nil {
		return n, err
	}
	return n, a.rc.SetWriteDeadline(time.Time{}) // the next part may be long in coming
}

// FlushError is for http.ResponseController.
func (a *answer) FlushError() error {
	if err := a.within(0); err != nil {
		return err
	}
	if err := a.rc.Flush(); err != nil {
		return err
	}
	return a.rc.SetWriteDeadline(time.Time{})
}

// end bounds what is sent once the handler has returned.
func (a *answer) end() {
	if !a.taken {
		_ = a.within(0)
	}
}

func (a *answer) within(n int) error {
	return a.rc.SetWriteDeadline(time.Now().Add(unhurriedAnswer + time.Duration(n)*time.Second/minBodyRate))
}

// Hijack implements http.Hijacker.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := a.rc.Hijack()
	a.taken = err == nil
	return conn, buf, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
