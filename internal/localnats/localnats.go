// Package localnats runs a NATS server with JetStream in this process, for `weir local` and for tests.
// It stores on disk and syncs every write before it acknowledges it, as the chart's server does.
//
// May import: filelock, and the NATS server.
package localnats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-dev/weir/internal/filelock"
)

// startTimeout bounds the recovery of what is on disk.
const startTimeout = 2 * time.Minute

// Config says where the server stores and listens.
type Config struct {
	Dir  string // of JetStream's files
	Port int    // on 127.0.0.1; zero means a free one
	// Token is what clients on the port authenticate with; empty means a new one.
	Token string
	// MaxPayload bounds a message, in bytes; zero means NATS' default, 1 MiB.
	MaxPayload int32
}

// Server is a running NATS server.
type Server struct {
	opts  server.Options
	lock  *os.File
	token string
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu  sync.Mutex
	srv *server.Server
}

// NewToken returns a secret to authenticate with.
func NewToken() string { return rand.Text() }

// Start runs a server and returns once it takes clients.
func Start(cfg Config) (_ *Server, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("NATS server: data folder: %w", err)
	}
	lock, err := filelock.Acquire(filepath.Join(cfg.Dir, "lock"))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, errors.Join(fmt.Errorf("NATS server: another process works on the data folder %s: end it first, or choose another folder", cfg.Dir), lock.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("NATS server: data folder: %w", err)
	}
	defer func() {
		if err != nil {
			_ = lock.Close() // err says more
		}
	}()
	if cfg.Token == "" {
		cfg.Token = NewToken()
	}
	if cfg.Port == 0 {
		cfg.Port = server.RANDOM_PORT
	}
	s := &Server{lock: lock, token: cfg.Token, opts: server.Options{
		ServerName: "weir-local", Host: "127.0.0.1", Port: cfg.Port, Authorization: cfg.Token,
		JetStream: true, StoreDir: cfg.Dir, SyncAlways: true, MaxPayload: cfg.MaxPayload,
		JetStreamMaxStore: maxStore, JetStreamMaxMemory: maxMemory,
		NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	}}
	if s.srv, err = run(s.opts); err != nil {
		return nil, err
	}
	s.opts.Port = s.Port() // a restart is at the same address
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.wg.Go(func() { s.watch(ctx) })
	return s, nil
}

func run(opts server.Options) (*server.Server, error) {
	srv, err := server.NewServer(&opts)
	if err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("NATS server: not ready on 127.0.0.1:%d after %s: is the port taken, or %s not writable?", opts.Port, startTimeout, opts.StoreDir)
	}
	if !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("NATS server: JetStream did not start: is the folder " + opts.StoreDir + " writable?")
	}
	return srv, nil
}

// watch restarts the server when it has given up writing: after one write that found the disk full, NATS
// takes none until it is started anew. Clients reconnect by themselves.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		srv := s.server()
		if !gaveUp(srv) || !room(s.opts.StoreDir) {
			continue
		}
		srv.Shutdown()
		srv.WaitForShutdown()
		if fresh, err := run(s.opts); err == nil {
			s.mu.Lock()
			s.srv = fresh
			s.mu.Unlock()
		}
	}
}

// gaveUp reports whether a stream takes no writes any more. The server has no code for it, only this text
// (server/monitor.go, healthz); other findings, such as a stream that is just being made, pass by themselves.
func gaveUp(srv *server.Server) bool {
	h := srv.Healthz(&server.HealthzOptions{Details: true})
	return !srv.JetStreamEnabled() || slices.ContainsFunc(h.Errors, func(e server.HealthzError) bool { return strings.Contains(e.Error, "write error") })
}

// room reports whether a file of roomBytes can be written.
func room(dir string) bool {
	f, err := os.CreateTemp(dir, ".room-*")
	if err != nil {
		return false
	}
	_, err = f.Write(make([]byte, roomBytes))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name())) == nil
}

const (
	watchEvery = time.Second
	roomBytes  = 4 << 20
)

func (s *Server) server() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

// The disk is bounded by each queue's maxBytes; this is so high that it is never the limit.
const (
	maxStore  = 1 << 50
	maxMemory = 64 << 20
)

// URL is where clients on this machine reach the server, credentials included.
func (s *Server) URL() string {
	u := url.URL{Scheme: "nats", User: url.User(s.token), Host: s.server().Addr().String()}
	return u.String()
}

// Port is the port on 127.0.0.1.
func (s *Server) Port() int { return s.server().Addr().(*net.TCPAddr).Port }

// InProcessConn is a connection that doesn't go through the network.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server().InProcessConn() }

// Stop ends the server and waits for it. It is idempotent.
func (s *Server) Stop() {
	s.stop()
	s.wg.Wait()
	srv := s.server()
	srv.Shutdown()
	srv.WaitForShutdown()
	_ = s.lock.Close() // a second Stop finds it closed
}
