package job

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

const dropTimeout = 10 * time.Second

// with is r with its size, if it is body and no object, and with a plain Content-Type.
func (r Result) with(body []byte) (Result, error) {
	if len(body) > MaxInlineBytes {
		return r, fmt.Errorf("a result of %d bytes; at most %d with the state", len(body), MaxInlineBytes)
	}
	if r.Object == "" {
		r.Size = int64(len(body))
	}
	r.ContentType = plain(r.ContentType)
	return r, nil
}

// plain is a Content-Type that can be kept. One that can't becomes empty: the result is served as plain bytes.
func plain(contentType string) string {
	if blob.CheckContentType(contentType) != nil {
		return ""
	}
	return contentType
}

// StoreResult stores what body reads, at most limit bytes, as an object for the result of an attempt at the job. It is
// no job's until SucceedBy or Attempt.Succeed has stored it; if that fails the caller deletes it by Drop. Each has a key
// of its own: what one attempt stores doesn't replace the result of another.
func StoreResult(ctx context.Context, store blob.Store, queue catalog.Key, id record.ID, contentType string, body io.Reader, limit int64) (Result, error) {
	key := "r-" + id.String() + "-" + rand.Text()
	contentType = plain(contentType)
	info, err := store.Put(ctx, queue, key, contentType, body, limit)
	if err != nil {
		return Result{}, err
	}
	return Result{ContentType: contentType, Size: info.Size, Object: key, ETag: info.ETag}, nil
}

// Drop deletes the object of a result that is no job's, if it has one. What can't be deleted expires.
func Drop(ctx context.Context, store blob.Store, queue catalog.Key, r Result) error {
	if r.Object == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	return store.Delete(ctx, queue, r.Object)
}

// UploadKey is the key of what a client uploads under id.
func UploadKey(id string) string { return "u-" + id }

// NewUploadID returns an id for an upload, which nobody can guess.
func NewUploadID() string { return rand.Text() }

// MaxUploadAge is how long after its upload an input may be submitted: so it outlives its job, as objects are kept for a
// day longer than outcomes.
const MaxUploadAge = 12 * time.Hour

// Uploaded describes what was uploaded under id, or returns blob.ErrNotFound, or blob.ErrKey for what is no id.
func Uploaded(ctx context.Context, store blob.Store, queue catalog.Key, id string, now time.Time) (in *record.Input, contentType string, err error) {
	info, err := store.Stat(ctx, queue, UploadKey(id))
	if err != nil {
		return nil, "", err
	}
	if now.Sub(info.Stored) > MaxUploadAge {
		return nil, "", fmt.Errorf("%w: it is too old to be submitted", blob.ErrNotFound)
	}
	return &record.Input{Object: UploadKey(id), Size: info.Size, ETag: info.ETag}, info.ContentType, nil
}

// OpenInput opens a job's input. blob.ErrNotFound also means that another one was uploaded in its place after the job
// had been submitted.
func OpenInput(ctx context.Context, store blob.Store, queue catalog.Key, in *record.Input) (io.ReadCloser, error) {
	o, err := store.Open(ctx, queue, in.Object)
	if err != nil {
		return nil, err
	}
	if o.Size != in.Size || o.ETag != in.ETag {
		_ = o.Close()
		return nil, fmt.Errorf("%w: it was replaced", blob.ErrNotFound)
	}
	return o, nil
}
