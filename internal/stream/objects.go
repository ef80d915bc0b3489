package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// The objects of a queue are a stream of their own:
//
//	WEIR_O_ns_name  weir.o.ns.name.m.KEY    the description of the object KEY: its size, its digest and the ID of its
//	                                        chunks. It is written last, and replaced atomically.
//	                weir.o.ns.name.c.ID.N   chunk N. An ID is never used again.
//
// This is not the layout of nats.go's own object store, which keeps all chunks on one subject. A chunk on a subject
// of its own is read by a request for just that subject: the reader decides how much is in flight, a missing chunk is
// seen as missing, no consumer is needed, and NATS' permissions can narrow reading and removing to objects. A chunk is
// removed by a tombstone, an empty message that takes its place even in a full stream and expires by itself.
const (
	objectChunkBytes = 512 << 10
	// objectWindow is how many chunks of one object are in flight, and so in memory.
	objectWindow = 4
	// ObjectBytes is what an object that is written or read takes of memory.
	ObjectBytes = objectWindow * objectChunkBytes
	// MaxObjectKey bounds the name of an object.
	MaxObjectKey = 200
	// maxContentType bounds the content type in a description, in bytes.
	maxContentType = 255
	// removeTimeout bounds how long removing an object's chunks may take. The rest ages out.
	removeTimeout = 30 * time.Second
	// removedTTL is how long a tombstone stays. A second is the least that NATS takes.
	removedTTL = time.Second
	// A replica may answer that lags behind its leader: what should be there is read up to objectLooks times,
	// objectLookWait apart.
	objectLooks    = 10
	objectLookWait = 100 * time.Millisecond
)

// The states of an object.
var (
	// ErrNoObject means that no object of the key is stored.
	ErrNoObject = errors.New("stream: no such object")
	// ErrObjectGone means that an object vanished while it was read: it has expired, or was replaced or deleted.
	ErrObjectGone = errors.New("stream: the object is not whole any more")
	// ErrObjectKey means that a text can't be the key of an object.
	ErrObjectKey = fmt.Errorf("stream: the key of an object is 1 to %d letters, digits, - and _", MaxObjectKey)
)

var objectKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,` + strconv.Itoa(MaxObjectKey) + `}$`)

func objectStream(k catalog.Key) string { return "WEIR_O_" + k.Namespace + "_" + k.Name }
func objectSubject(k catalog.Key, key string) string {
	return "weir.o." + k.Namespace + "." + k.Name + ".m." + key
}

func chunkSubject(k catalog.Key, id, n string) string {
	return "weir.o." + k.Namespace + "." + k.Name + ".c." + id + "." + n
}

// objectConfig is the stream of a queue's objects, with what it has in common with the queue's others in base.
func objectConfig(q catalog.Queue, base jetstream.StreamConfig) jetstream.StreamConfig {
	sc := base
	sc.Name, sc.Subjects = objectStream(q.Key), []string{objectSubject(q.Key, "*"), chunkSubject(q.Key, "*", "*")}
	sc.AllowMsgTTL = true
	sc.Retention, sc.Discard = jetstream.LimitsPolicy, jetstream.DiscardNew
	sc.MaxAge, sc.MaxBytes, sc.MaxMsgsPerSubject = q.Objects.MaxAge, q.Objects.MaxBytes, 1
	return sc
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	ContentType string    `json:"contentType"`
	Size        int64     `json:"size"`
	Digest      []byte    `json:"digest"` // SHA-256
	Stored      time.Time `json:"-"`      // when the server stored the description
	id          string
	chunks      int
	chunkBytes  int
	seq         uint64
}

// description is an ObjectInfo as it is stored.
type description struct {
	ObjectInfo
	ID         string `json:"id"`
	Chunks     int    `json:"chunks"`
	ChunkBytes int    `json:"chunkBytes"`
}

// Objects keeps large inputs and results.
type Objects interface {
	PutObject(ctx context.Context, k catalog.Key, key, contentType string, r io.Reader) (*ObjectInfo, error)
	StatObject(ctx context.Context, k catalog.Key, key string) (*ObjectInfo, error)
	OpenObject(ctx context.Context, k catalog.Key, key string) (*ObjectReader, *ObjectInfo, error)
	DeleteObject(ctx context.Context, k catalog.Key, key string) error
}

// PutObject stores what r reads as object key of queue k and returns once it is durable. An object of this key is
// replaced atomically. If r fails, or ctx ends, nothing is left behind; only when NATS goes away may orphaned chunks
// stay until they age out. ErrQueueFull means that the queue's objects have no room for it.
func (c *Conn) PutObject(ctx context.Context, k catalog.Key, key, contentType string, r io.Reader) (*ObjectInfo, error) {
	if !objectKey.MatchString(key) {
		return nil, ErrObjectKey
	}
	if len(contentType) > maxContentType {
		return nil, fmt.Errorf("object %s of queue %s: a content type of %d bytes; at most %d", key, k, len(contentType), maxContentType)
	}
	if err := c.Ready(); err != nil {
		return nil, err
	}
	d := &description{ObjectInfo: ObjectInfo{ContentType: contentType}, ID: uuid.NewString(), ChunkBytes: c.Room(objectChunkBytes)}
	if err := c.putChunks(ctx, k, d, r); err != nil {
		c.removeChunks(ctx, k, d.ID, d.Chunks)
		return nil, fmt.Errorf("object %s of queue %s: %w", key, k, err)
	}
	if err := c.describe(ctx, k, key, d); err != nil {
		// If the answer was lost the object may be there: its chunks stay.
		if !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
			c.removeChunks(ctx, k, d.ID, d.Chunks)
		}
		return nil, fmt.Errorf("object %s of queue %s: %w", key, k, err)
	}
	return &d.ObjectInfo, nil
}

// putChunks stores what r reads, objectWindow chunks at a time, and fills d in: if it fails, with the chunks begun.
func (c *Conn) putChunks(ctx context.Context, k catalog.Key, d *description, r io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait() // before the caller removes what was written
	defer cancel(nil)
	digest := sha256.New()
	free := make(chan []byte, objectWindow)
	for range objectWindow {
		free <- nil
	}
	for end := false; !end; {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if buf == nil {
			buf = make([]byte, d.ChunkBytes)
		}
		n, err := io.ReadFull(r, buf)
		end = err == io.EOF || err == io.ErrUnexpectedEOF // ReadFull's own, not an error of r that wraps one
		if err != nil && !end {
			return err
		}
		if n == 0 {
			break
		}
		digest.Write(buf[:n])
		subject := chunkSubject(k, d.ID, strconv.Itoa(d.Chunks))
		d.Chunks++
		d.Size += int64(n)
		wg.Go(func() {
			if err := c.publish(ctx, &nats.Msg{Subject: subject, Data: buf[:n]}, ""); err != nil {
				cancel(err)
			}
			free <- buf
		})
	}
	wg.Wait()
	d.Digest = digest.Sum(nil)
	return context.Cause(ctx)
}

// describe writes d, which makes the object visible, and removes the chunks of the one that it replaces.
func (c *Conn) describe(ctx context.Context, k catalog.Key, key string, d *description) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	for {
		before, err := c.lastObject(ctx, k, key, 1)
		if err != nil {
			return err
		}
		// Compare-and-set at the leader, so that each of two writers of one key knows whose chunks it has to remove.
		err = c.publish(ctx, &nats.Msg{Subject: objectSubject(k, key), Data: data}, "", jetstream.WithExpectLastSequencePerSubject(before.seq))
		if wrongSequence(err) {
			if err := sleep(ctx, objectLookWait); err != nil { // a replica's answer may have been stale
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		d.Stored, d.id, d.chunks = time.Now(), d.ID, d.Chunks
		c.removeChunks(ctx, k, before.id, before.chunks)
		return nil
	}
}

// removeChunks writes tombstones over an object's chunks. What can't be removed now ages out: when NATS goes away, and
// when a stream of several replicas is full to its last hundred bytes.
func (c *Conn) removeChunks(ctx context.Context, k catalog.Key, id string, chunks int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout) // that ctx has ended is a common reason to be here
	defer cancel()
	var wg sync.WaitGroup
	var left atomic.Int64
	slots := make(chan struct{}, objectWindow)
	for n := range chunks {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil || c.Ready() != nil || c.publish(ctx, removed(chunkSubject(k, id, strconv.Itoa(n))), "") != nil {
				left.Add(1)
			}
		})
	}
	wg.Wait()
	if n := left.Load(); n > 0 {
		c.log.Warn("orphaned chunks of an object are left to age out", "queue", k.String(), "chunks", n)
	}
}

func removed(subject string) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{jetstream.MsgTTLHeader: {removedTTL.String()}}}
}

// StatObject describes object key of queue k, or returns ErrNoObject.
func (c *Conn) StatObject(ctx context.Context, k catalog.Key, key string) (*ObjectInfo, error) {
	if !objectKey.MatchString(key) {
		return nil, ErrObjectKey
	}
	if err := c.Ready(); err != nil {
		return nil, err
	}
	o, err := c.lastObject(ctx, k, key, objectLooks/2)
	if err != nil {
		return nil, fmt.Errorf("object %s of queue %s: %w", key, k, err)
	}
	if o.id == "" {
		return nil, ErrNoObject
	}
	return o, nil
}

// lastObject reads a description; one without an id means that there is no object.
func (c *Conn) lastObject(ctx context.Context, k catalog.Key, key string, looks int) (*ObjectInfo, error) {
	m, err := c.look(ctx, k, objectSubject(k, key), looks)
	if errors.Is(err, errNoMessage) {
		return &ObjectInfo{}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(m.data) == 0 {
		return &ObjectInfo{seq: m.seq}, nil
	}
	var d description
	if err := json.Unmarshal(m.data, &d); err != nil {
		return nil, fmt.Errorf("its description can't be read: %w", err)
	}
	if d.ID == "" || d.Chunks < 0 || d.Size < 0 || d.Chunks > 0 && d.ChunkBytes <= 0 {
		return nil, errors.New("its description can't be read: there is something missing in it")
	}
	if d.Stored, err = time.Parse(time.RFC3339Nano, m.header.Get(jetstream.TimeStampHeaer)); err != nil {
		return nil, fmt.Errorf("its description has no time: %w", err)
	}
	d.id, d.chunks, d.chunkBytes, d.seq = d.ID, d.Chunks, d.ChunkBytes, m.seq
	return &d.ObjectInfo, nil
}

// look reads the last message of a subject, up to looks times if there is none.
func (c *Conn) look(ctx context.Context, k catalog.Key, subject string, looks int) (*stored, error) {
	for n := 1; ; n++ {
		m, err := c.last(ctx, objectStream(k), subject)
		if !errors.Is(err, errNoMessage) || n >= looks {
			return m, err
		}
		if err := sleep(ctx, objectLookWait); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// DeleteObject removes object key of queue k. It is idempotent.
func (c *Conn) DeleteObject(ctx context.Context, k catalog.Key, key string) error {
	for emptied := false; ; {
		o, err := c.StatObject(ctx, k, key)
		if errors.Is(err, ErrNoObject) {
			return nil
		}
		if err != nil {
			return err
		}
		err = c.publish(ctx, removed(objectSubject(k, key)), "", jetstream.WithExpectLastSequencePerSubject(o.seq))
		if wrongSequence(err) {
			if err := sleep(ctx, objectLookWait); err != nil {
				return err
			}
			continue // it was replaced in between
		}
		if errors.Is(err, ErrQueueFull) && !emptied {
			// A compare-and-set needs room in the stream; a tombstone over a chunk, without one, doesn't.
			emptied = true
			c.removeChunks(ctx, k, o.id, o.chunks)
			continue
		}
		if err != nil {
			return fmt.Errorf("object %s of queue %s: %w", key, k, err)
		}
		c.removeChunks(ctx, k, o.id, o.chunks)
		return nil
	}
}

// ObjectReader reads an object. It prefetches at most objectWindow chunks.
type ObjectReader struct {
	c      *Conn
	ctx    context.Context //nolint:containedctx // of all Reads, which have none
	cancel context.CancelFunc
	wg     sync.WaitGroup
	k      catalog.Key
	info   *ObjectInfo
	ahead  []chan chunk // in order
	asked  int
	pos    int64 // of the next byte to be read
	at     int64 // where rest, or the next chunk, begins
	begun  int64 // where the chunks that are asked for begin: zero if the digest can be compared
	read   int64
	digest hash.Hash
	rest   []byte
	err    error // what every further Read returns, until Seek
}

type chunk struct {
	data []byte
	err  error
}

// OpenObject opens object key of queue k, or returns ErrNoObject. It has read the first chunk then. The reader is
// usable until ctx ends, and must be closed. A Read returns io.EOF only after all bytes were read and are those that
// PutObject stored, by size and digest.
func (c *Conn) OpenObject(ctx context.Context, k catalog.Key, key string) (*ObjectReader, *ObjectInfo, error) {
	o, err := c.StatObject(ctx, k, key)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &ObjectReader{c: c, ctx: ctx, cancel: cancel, k: k, info: o, digest: sha256.New()}
	if r.fill(); r.err != nil && !errors.Is(r.err, io.EOF) {
		_ = r.Close()
		if errors.Is(r.err, ErrObjectGone) { // chunks age out before their description
			return nil, nil, ErrNoObject
		}
		return nil, nil, fmt.Errorf("object %s of queue %s: %w", key, k, r.err)
	}
	return r, o, nil
}

// Read implements io.Reader.
func (r *ObjectReader) Read(p []byte) (int, error) {
	if r.pos != r.at {
		r.restart()
	}
	if len(r.rest) == 0 && r.err == nil {
		r.fill()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.pos += int64(n)
	r.at = r.pos
	return n, nil
}

// Seek implements io.Seeker. What is read from another place than the beginning is not held against the digest.
func (r *ObjectReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.info.Size
	}
	if offset < 0 {
		return 0, errors.New("stream: a place before the object's beginning")
	}
	r.pos = offset
	return offset, nil
}

// restart asks for the chunks from pos on.
func (r *ObjectReader) restart() {
	r.at, r.ahead, r.rest, r.err, r.read = r.pos, nil, nil, nil, 0 // what is under way ends by itself
	r.digest.Reset()
	if r.pos >= r.info.Size {
		r.asked, r.begun = r.info.chunks, r.info.Size
		return
	}
	r.asked = int(r.pos / int64(r.info.chunkBytes))
	r.begun = int64(r.asked) * int64(r.info.chunkBytes)
	if r.fill(); r.err == nil {
		r.rest = r.rest[min(int64(len(r.rest)), r.pos-r.begun):]
	}
}

// fill takes the next chunk, or sets err. The digest is compared before the last chunk is handed out.
func (r *ObjectReader) fill() {
	for len(r.ahead) < objectWindow && r.asked < r.info.chunks {
		subject, ch := chunkSubject(r.k, r.info.id, strconv.Itoa(r.asked)), make(chan chunk, 1)
		r.asked++
		r.ahead = append(r.ahead, ch)
		r.wg.Go(func() {
			m, err := r.c.look(r.ctx, r.k, subject, objectLooks)
			switch {
			case errors.Is(err, errNoMessage):
				err = ErrObjectGone
			case err == nil && len(m.data) == 0: // removed
				err = ErrObjectGone
			}
			if err != nil {
				ch <- chunk{err: err}
				return
			}
			ch <- chunk{data: m.data}
		})
	}
	if len(r.ahead) == 0 {
		r.err = io.EOF
		return
	}
	next := <-r.ahead[0] // comes, as every request is bounded
	r.ahead = r.ahead[1:]
	if next.err != nil {
		r.err = next.err
		return
	}
	r.digest.Write(next.data)
	r.read += int64(len(next.data))
	last := len(r.ahead) == 0 && r.asked == r.info.chunks
	if last && (r.begun+r.read != r.info.Size || r.begun == 0 && !bytes.Equal(r.digest.Sum(nil), r.info.Digest)) {
		r.err = fmt.Errorf("%w: its bytes are not those of its digest", ErrObjectGone)
		return
	}
	r.rest = next.data
}

// Close ends the reading and waits for the chunks in flight. It is idempotent.
func (r *ObjectReader) Close() error {
	r.cancel()
	r.wg.Wait()
	return nil
}
