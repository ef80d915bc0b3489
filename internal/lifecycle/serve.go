package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Server is an HTTP server that runs as a part.
type Server struct {
	HTTP     *http.Server
	Listener net.Listener
	// Drain bounds how long requests in flight may go on.
	Drain time.Duration
	// Stopping, if set, is called when the drain begins, before the listener is closed, with what there is of Drain.
	Stopping func(context.Context)
}

// Run serves until ctx is cancelled, then takes no more connections and returns once the requests in flight have been
// answered, or Drain is over: then they are cut. A hijacked connection is its handler's.
func (s Server) Run(ctx context.Context, ready func()) error {
	served := make(chan error, 1)
	go func() { served <- s.HTTP.Serve(s.Listener) }()
	ready()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Drain)
	defer cancel()
	if s.Stopping != nil {
		s.Stopping(dctx)
	}
	err := s.HTTP.Shutdown(dctx)
	if err != nil {
		err = fmt.Errorf("requests were still running after %s: %w", s.Drain, errors.Join(err, s.HTTP.Close()))
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
