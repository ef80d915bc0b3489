package blob

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// NATS keeps objects in JetStream. Whoever makes the queues makes their streams (stream.Conn.EnsureQueue), which
// bounds their bytes and their age. Its pre-signed URLs are served by the gateway, which asks ParsePermit.
type NATS struct {
	conn stream.Objects
	ring func() sign.Ring
	now  func() time.Time
	base ownpath.Base
}

// NewNATS returns a store on conn. ring returns the current signing keys, now the time;
// pre-signed URLs begin with base.
func NewNATS(conn stream.Objects, ring func() sign.Ring, now func() time.Time, base ownpath.Base) *NATS {
	return &NATS{conn: conn, ring: ring, now: now, base: base}
}

// Put is Store.Put.
func (s *NATS) Put(ctx context.Context, queue catalog.Key, key, contentType string, r io.Reader, limit int64) (Info, error) {
	if err := check(key, contentType); err != nil {
		return Info{}, err
	}
	o, err := s.conn.PutObject(ctx, queue, key, contentType, &limited{r: r, left: limit})
	if err != nil {
		return Info{}, natsError(err)
	}
	return natsInfo(o), nil
}

// Open is Store.Open.
func (s *NATS) Open(ctx context.Context, queue catalog.Key, key string) (*Object, error) {
	if err := check(key, ""); err != nil {
		return nil, err
	}
	r, o, err := s.conn.OpenObject(ctx, queue, key)
	if err != nil {
		return nil, natsError(err)
	}
	return &Object{natsReader{r}, natsInfo(o)}, nil
}

// Stat is Store.Stat. Chunks are a little older than their description, so just before it expires an object may have a
// description and can't be opened.
func (s *NATS) Stat(ctx context.Context, queue catalog.Key, key string) (Info, error) {
	if err := check(key, ""); err != nil {
		return Info{}, err
	}
	o, err := s.conn.StatObject(ctx, queue, key)
	if err != nil {
		return Info{}, natsError(err)
	}
	return natsInfo(o), nil
}

// PutBytes is Store.PutBytes.
func (s *NATS) PutBytes() int64 { return stream.ObjectBytes }

// Delete is Store.Delete.
func (s *NATS) Delete(ctx context.Context, queue catalog.Key, key string) error {
	if err := check(key, ""); err != nil {
		return err
	}
	return natsError(s.conn.DeleteObject(ctx, queue, key))
}

// PresignGet is Store.PresignGet. It doesn't look whether there is such an object.
func (s *NATS) PresignGet(_ context.Context, queue catalog.Key, key string, expiry time.Duration) (Presigned, error) {
	return s.presign(Permit{Method: "GET", Queue: queue, Key: key}, expiry)
}

// PresignPut is Store.PresignPut.
func (s *NATS) PresignPut(_ context.Context, queue catalog.Key, key, contentType string, size int64, expiry time.Duration) (Presigned, error) {
	return s.presign(Permit{Method: "PUT", Queue: queue, Key: key, ContentType: contentType, Size: size}, expiry)
}

func (s *NATS) presign(p Permit, expiry time.Duration) (Presigned, error) {
	signed, err := presign(s.ring(), s.now(), p, expiry)
	if err == nil {
		signed.URL = s.base.Of(signed.URL)
	}
	return signed, err
}

type natsReader struct{ *stream.ObjectReader }

func (r natsReader) Read(p []byte) (int, error) {
	n, err := r.ObjectReader.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF itself must stay itself
		err = natsError(err)
	}
	return n, err
}

func natsInfo(o *stream.ObjectInfo) Info {
	return Info{Size: o.Size, ContentType: o.ContentType, ETag: hex.EncodeToString(o.Digest), Stored: o.Stored}
}

func natsError(err error) error {
	for _, same := range []struct{ theirs, ours error }{
		{stream.ErrNoObject, ErrNotFound},
		{stream.ErrObjectGone, ErrGone},
		{stream.ErrObjectKey, ErrKey},
		{stream.ErrQueueFull, ErrFull},
		{stream.ErrUnavailable, ErrUnavailable},
		{stream.ErrBusy, ErrUnavailable},
		{stream.ErrNoQueue, ErrUnavailable}, // its stream is not made yet
	} {
		if errors.Is(err, same.theirs) {
			return fmt.Errorf("%w: %w", same.ours, err)
		}
	}
	return err
}
