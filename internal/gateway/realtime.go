package gateway

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// What is passed on to realtime, so that one address serves all that clients ask about jobs.
const (
	maxRealtimeIdle = 64
	// realtimeTimeout bounds how long realtime may take until its answer begins.
	realtimeTimeout = 10 * time.Second
	// partSpread is the time over which a gateway that drains parts from clients that listen. They come back to another
	// one, and go on where they were.
	partSpread = 2 * time.Second
)

// realtime passes connections on that stay open.
func (g *Gateway) realtime(target *url.URL) http.HandlerFunc {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport:     &http.Transport{MaxIdleConnsPerHost: maxRealtimeIdle, ResponseHeaderTimeout: realtimeTimeout, IdleConnTimeout: idleTimeout},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			g.cfg.Log.Info("realtime can't be reached", "error", err)
			writeProblem(w, req, problem{
				Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Events can't be had now", retryAfter: 1,
				Detail: "The service that pushes events gave no answer. Try again, or poll the job.",
			})
		},
	}
	return func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithCancel(req.Context())
		defer cancel()
		g.wg.Add(1) // an upgraded connection is none of the HTTP server's any more
		defer g.wg.Done()
		stop := context.AfterFunc(g.drain, func() { //nolint:contextcheck // it waits for the drain, and ends with the request
			select {
			case <-time.After(rand.N(partSpread)):
				cancel()
			case <-ctx.Done():
			}
		})
		defer stop()
		// The bound on reading a request would end the answer.
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
			g.cfg.Log.Debug("a connection's read deadline stays", "error", err)
		}
		proxy.ServeHTTP(w, req.WithContext(ctx))
	}
}
