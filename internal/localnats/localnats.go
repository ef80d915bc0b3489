// Package localnats runs a NATS server with JetStream in this process, for `weir local` and for tests.
// It stores on disk and syncs every write before it acknowledges it, as the chart's server does.
//
// May import: filelock, and the NATS server.
package localnats

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-dev/weir/internal/filelock"
)

// startTimeout bounds the recovery of what is on disk.
const startTimeout = 2 * time.Minute

// Config says where the server stores and listens.
type Config struct {
	Dir  string // of JetStream's files
	Port int    // on 127.0.0.1; 0: a free one
	// Token is what clients on the port authenticate with; empty: a new one.
	Token string
	// LazySync leaves syncing to the default interval of two minutes: for comparisons only.
	LazySync bool
}

// Server is a running NATS server.
type Server struct {
	srv   *server.Server
	lock  *os.File
	token string
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
	srv, err := server.NewServer(&server.Options{
		ServerName: "weir-local", Host: "127.0.0.1", Port: cfg.Port, Authorization: cfg.Token,
		JetStream: true, StoreDir: cfg.Dir, SyncAlways: !cfg.LazySync,
		JetStreamMaxStore: maxStore, JetStreamMaxMemory: maxMemory,
		NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("NATS server: not ready on 127.0.0.1:%d after %s: is the port taken, or %s not writable?", cfg.Port, startTimeout, cfg.Dir)
	}
	if !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("NATS server: JetStream did not start: is the folder " + cfg.Dir + " writable?")
	}
	return &Server{srv: srv, lock: lock, token: cfg.Token}, nil
}

// The disk is bounded by each queue's maxBytes; this is only so high that it never is the limit first.
const (
	maxStore  = 1 << 50
	maxMemory = 64 << 20
)

// URL is where clients on this machine reach the server, credentials included.
func (s *Server) URL() string {
	u := url.URL{Scheme: "nats", User: url.User(s.token), Host: s.srv.Addr().String()}
	return u.String()
}

// Port is the port on 127.0.0.1.
func (s *Server) Port() int { return s.srv.Addr().(*net.TCPAddr).Port }

// Token is what clients authenticate with.
func (s *Server) Token() string { return s.token }

// InProcessConn is a connection that doesn't go through the network.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// Stop ends the server and waits for it. It is idempotent.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	_ = s.lock.Close() // a second Stop finds it closed
}
