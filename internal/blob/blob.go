// Package blob keeps objects, for what is too large for a record or a state: results of jobs, and uploaded inputs. It
// issues pre-signed URLs, by which a client gets or puts one without any other right.
//
// An object belongs to a queue, which says how long its objects are kept. It is stored in NATS (NATS) or in any S3 (S3).
//
// Invariants: no object is ever in memory as a whole; a write that fails leaves no object, and no part of one that could
// be read; a read of an object that is not whole is an error, never a short object; what a pre-signed URL permits can't
// be widened by its holder.
//
// May import: ownpath, stream, sign, catalog, and the S3 client, which nobody else does.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// The states that callers tell apart.
var (
	// ErrNotFound means that there is no such object: it never was, or has expired.
	ErrNotFound = errors.New("blob: no such object")
	// ErrGone means that the object was removed, replaced or has expired while it was read: what was read is incomplete.
	ErrGone = errors.New("blob: the object went while it was read")
	// ErrTooLarge means that there was more to store than the limit: nothing was stored.
	ErrTooLarge = errors.New("blob: the object is too large")
	// ErrFull means that the objects of the queue have no room for one more: nothing was stored.
	ErrFull = errors.New("blob: the store of objects is full")
	// ErrUnavailable means that the store is away. Whether a write took place is unknown; it may be repeated.
	ErrUnavailable = errors.New("blob: the store of objects is not available")
	// ErrKey means that a text can't be the key of an object.
	ErrKey = fmt.Errorf("blob: a key is 1 to %d letters, digits, - and _", stream.MaxObjectKey)
	// ErrMediaType means that a text can't be an object's Content-Type.
	ErrMediaType = fmt.Errorf("blob: a content type is at most %d printable ASCII characters", MaxContentType)
	// ErrNoKeys means that the signing keys are not there yet.
	ErrNoKeys = errors.New("blob: no signing keys yet")
)

// MaxExpiry bounds how long a pre-signed URL is valid. It is S3's own bound.
const MaxExpiry = 7 * 24 * time.Hour

// MaxContentType bounds a Content-Type, in bytes.
const MaxContentType = 255

// DefaultContentType is that of an object that was stored without one.
const DefaultContentType = "application/octet-stream"

var keyPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,` + strconv.Itoa(stream.MaxObjectKey) + `}$`)

// Store is implemented by NATS and S3. In NATS objects expire by themselves; in S3 somebody has to call S3.Expire.
type Store interface {
	// Put stores what r reads, at most limit bytes, as object key of the queue, and returns once it is durable. An
	// object of the same key is replaced atomically, so a repeated Put of the same bytes is idempotent; writers that must
	// not replace each other's objects use different keys. Its errors are ErrKey, ErrTooLarge, ErrFull, ErrUnavailable,
	// r's own, or the end of ctx.
	Put(ctx context.Context, queue catalog.Key, key, contentType string, r io.Reader, limit int64) (Info, error)
	// Open opens an object, or returns ErrNotFound. It can be read until ctx ends; a Read returns ErrGone if the object
	// vanishes meanwhile.
	Open(ctx context.Context, queue catalog.Key, key string) (*Object, error)
	// Stat describes an object, or returns ErrNotFound.
	Stat(ctx context.Context, queue catalog.Key, key string) (Info, error)
	// Delete removes an object. It is idempotent.
	Delete(ctx context.Context, queue catalog.Key, key string) error
	// PutBytes is what a Put holds in memory, in bytes.
	PutBytes() int64
	// PresignGet returns a URL by which the object can be read for expiry, at most MaxExpiry.
	PresignGet(ctx context.Context, queue catalog.Key, key string, expiry time.Duration) (Presigned, error)
	// PresignPut returns a URL by which an object of exactly that size and type can be stored.
	PresignPut(ctx context.Context, queue catalog.Key, key, contentType string, size int64, expiry time.Duration) (Presigned, error)
}

var (
	_ Store = (*NATS)(nil)
	_ Store = (*S3)(nil)
)

// Info describes an object.
type Info struct {
	Size        int64 // bytes
	ContentType string
	ETag        string // without quotes: the same for the same bytes, as far as the store knows
	Stored      time.Time
}

// Object is an open object.
type Object struct {
	io.ReadCloser
	Info
}

// Presigned is a URL that grants access.
type Presigned struct {
	Method  string
	URL     string // absolute, or only a path: then of the gateway
	Headers http.Header
	Expires time.Time
}

func check(key, contentType string) error {
	if !keyPattern.MatchString(key) {
		return ErrKey
	}
	return CheckContentType(contentType)
}

// CheckContentType returns ErrMediaType for what can't be an object's Content-Type.
func CheckContentType(contentType string) error {
	if len(contentType) > MaxContentType {
		return ErrMediaType
	}
	for i := range len(contentType) {
		if b := contentType[i]; b < ' ' || b > '~' {
			return ErrMediaType
		}
	}
	return nil
}

func checkExpiry(d time.Duration) error {
	if d < time.Second || d > MaxExpiry {
		return fmt.Errorf("blob: a pre-signed URL is good for %s to %s, not %s", time.Second, MaxExpiry, d)
	}
	return nil
}

// limited reads at most left bytes; if there is one more it fails, as the object would be cut. It remembers r's own
// error, which the S3 client doesn't pass on in every case.
type limited struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limited) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if int64(n) > l.left {
		n, err = int(l.left), ErrTooLarge
	}
	l.left -= int64(n)
	if err == io.ErrUnexpectedEOF { //nolint:errorlint // alone it would look like the end of the last chunk to ReadFull
		err = fmt.Errorf("blob: the body broke off: %w", err)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // only io.EOF itself is the end
		l.err = err
	}
	return n, err
}
