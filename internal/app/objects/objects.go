// Package objects opens the object store that the configuration names, for the services that use it.
package objects

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// PingInterval is long: a ping waits behind chunks of half a MiB.
const PingInterval = 5 * time.Second

// Store is an open store.
type Store struct {
	blob.Store
	keys atomic.Pointer[sign.Ring]
	end  func()
}

// Open opens S3 if cfg names it, else NATS over a connection of its own: on a shared one, chunks would delay small
// messages and the pings that detect an outage within a second. It is no error if the store is unavailable.
func Open(cfg app.Config, service string) (*Store, error) {
	if cfg.S3.Endpoint != "" {
		s3, err := S3(cfg)
		if err != nil {
			return nil, err
		}
		return &Store{Store: s3, end: s3.Close}, nil
	}
	nats := cfg.NATS.Stream("weir-"+service+"-objects-"+cfg.Instance, cfg.Log.With("connection", "objects"))
	nats.PingInterval = PingInterval
	conn, err := stream.Connect(nats)
	if err != nil {
		return nil, err
	}
	s := Over(conn, cfg.PathPrefix)
	s.end = conn.Close
	return s, nil
}

// S3 opens the S3 that cfg names.
func S3(cfg app.Config) (*blob.S3, error) {
	s3, err := blob.NewS3(blob.S3Config(cfg.S3), time.Now)
	if err != nil {
		return nil, fmt.Errorf("S3 (WEIR_S3_…): %w", err)
	}
	return s3, nil
}

// Over returns a store in NATS over conn, which the caller still has to close. Its URLs begin with base.
func Over(conn *stream.Conn, base ownpath.Base) *Store {
	s := &Store{end: func() {}}
	s.Store = blob.NewNATS(conn, func() sign.Ring {
		if ring := s.keys.Load(); ring != nil {
			return *ring
		}
		return sign.Ring{}
	}, time.Now, base)
	return s
}

// UseKeys makes ring the keys that URLs are signed with, unless S3 signs them.
func (s *Store) UseKeys(ring sign.Ring) { s.keys.Store(&ring) }

// Close ends the connection. It is idempotent.
func (s *Store) Close() { s.end() }
