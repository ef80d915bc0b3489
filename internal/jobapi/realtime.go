package jobapi

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/problem"
)

// Bounds of the reverse proxy to realtime, with which one address serves all that clients ask about jobs.
const (
	maxRealtimeIdle     = 64
	maxRealtimeIdleTime = 2 * time.Minute
	// realtimeTimeout bounds how long realtime may take to begin its answer.
	realtimeTimeout = 10 * time.Second
	// passedWriteTimeout is how long a client that listens may read nothing.
	passedWriteTimeout = 30 * time.Second
	// partSpread is the time over which a draining gateway disconnects clients that listen. They reconnect to another
	// one, and resume where they were.
	partSpread = 2 * time.Second
)

// realtime is a reverse proxy for long-lived connections.
func (a *API) realtime(target *url.URL) func(http.ResponseWriter, *http.Request, []byte) {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			// A stream that is asked for its head alone need not have ended, and would hold up the next request.
			r.Out.Close = r.Out.Method == http.MethodHead
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del(problem.HeaderRequestID) // the gateway has set its own, which realtime was told
			if resp.StatusCode == http.StatusUpgradeRequired {
				resp.Header.Set("Connection", "Upgrade") // of each hop: ReverseProxy has dropped realtime's
				resp.Header.Set("Upgrade", "websocket")
			}
			return nil
		},
		Transport:     &http.Transport{MaxIdleConnsPerHost: maxRealtimeIdle, ResponseHeaderTimeout: realtimeTimeout, IdleConnTimeout: maxRealtimeIdleTime},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			a.cfg.Log.Info("realtime can't be reached", "error", err)
			refuseListener(w, req)
		},
	}
	return func(w http.ResponseWriter, req *http.Request, _ []byte) {
		ctx, cancel := context.WithCancel(req.Context())
		defer cancel()
		rc := http.NewResponseController(w)
		done, ok := a.work.Begin() // the HTTP server no longer knows an upgraded connection
		if !ok {
			refuseListener(w, req)
			return
		}
		defer done()
		stop := context.AfterFunc(a.drain, func() { //nolint:contextcheck // it waits for the drain, and ends with the request
			select {
			case <-time.After(rand.N(partSpread)):
				cancel()
				// A client that reads nothing would keep its hijacked connection, which the server no longer knows.
				now := time.Now()
				if err := errors.Join(rc.SetReadDeadline(now), rc.SetWriteDeadline(now)); err != nil {
					a.cfg.Log.Debug("a connection's deadlines stay", "error", err)
				}
			case <-ctx.Done():
			}
		})
		defer stop()
		// The server's read timeout would end the answer.
		if err := rc.SetReadDeadline(time.Time{}); err != nil {
			a.cfg.Log.Debug("a connection's read deadline stays", "error", err)
		}
		req.Header.Set(problem.HeaderRequestID, w.Header().Get(problem.HeaderRequestID)) // realtime answers under the same id
		proxy.ServeHTTP(&listenerWriter{w, rc}, req.WithContext(ctx))
	}
}

// refuseListener answers a client that can't listen now.
func refuseListener(w http.ResponseWriter, req *http.Request) {
	if strings.HasSuffix(req.URL.Path, "/events") {
		RefuseEvents(w, ComeBack(), "try again later")
		return
	}
	problem.NotNow("Events can't be had now", "The service that pushes events gave no answer. Try again, or poll the job.", time.Second).Write(w)
}

// listenerWriter gives up on a client that reads nothing, whether or not the connection was upgraded.
type listenerWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (l *listenerWriter) Write(p []byte) (int, error) {
	if err := l.rc.SetWriteDeadline(time.Now().Add(passedWriteTimeout)); err != nil {
		return 0, err
	}
	return l.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (l *listenerWriter) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// Hijack implements http.Hijacker.
func (l *listenerWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := l.rc.Hijack()
	return &listenerConn{conn}, rw, err
}

// listenerConn is a listenerWriter's connection once it is hijacked.
type listenerConn struct{ net.Conn }

func (l *listenerConn) Write(p []byte) (int, error) {
	if err := l.SetWriteDeadline(time.Now().Add(passedWriteTimeout)); err != nil {
		return 0, err
	}
	return l.Conn.Write(p)
}
