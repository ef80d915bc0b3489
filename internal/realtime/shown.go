package realtime

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
)

const (
	// maxDocuments is how many documents are kept for other clients that follow the same job.
	maxDocuments = 64
	// showTimeout bounds the read of a small result. After it the document is without.
	showTimeout = 5 * time.Second
)

// shown are the documents of the latest states that the hub has told: each is made once, however many follow the job.
type shown struct {
	mu    sync.Mutex
	docs  map[shownKey]*shownDoc
	order [maxDocuments]shownKey // a ring of what docs has, oldest at next
	next  int
}

// shownKey is a state, which is one pointer for all its followers, under the id that they know it by.
type shownKey struct {
	state *job.State
	text  string
}

type shownDoc struct {
	once    sync.Once
	version string
	text    []byte // JSON
	frame   []byte // of a WebSocket: text is its end; nil if it is for one client
	err     error
}

// of returns the document of a state of job j that the hub has told.
func (d *shown) of(ctx context.Context, j *followed, s *job.State) (*shownDoc, error) {
	key := shownKey{s, j.text}
	d.mu.Lock()
	doc, ok := d.docs[key]
	if !ok {
		if d.docs == nil {
			d.docs = make(map[shownKey]*shownDoc, maxDocuments)
		}
		doc = &shownDoc{}
		delete(d.docs, d.order[d.next])
		d.docs[key], d.order[d.next] = doc, key
		d.next = (d.next + 1) % maxDocuments
	}
	d.mu.Unlock()
	doc.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), showTimeout) // others wait for it too
		defer cancel()
		var made *shownDoc
		if made, doc.err = shownOnce(j.sub.s.document(ctx, j.text, j.id, j.maxAge, s)); doc.err == nil {
			doc.version, doc.frame = made.version, frame(made.text)
			doc.text = doc.frame[len(doc.frame)-len(made.text):]
		}
	})
	return doc, doc.err
}

// shownOnce is a document for one client.
func shownOnce(d jobapi.Document) (*shownDoc, error) {
	text, err := json.Marshal(d)
	return &shownDoc{version: d.Version, text: text}, err
}

// framed returns the document in a frame.
func (d *shownDoc) framed() []byte {
	if d.frame != nil {
		return d.frame
	}
	return frame(d.text)
}

// document is a state as its followers see it, with a small result.
func (s *Server) document(ctx context.Context, text string, id job.ID, maxAge time.Duration, state *job.State) jobapi.Document {
	var body []byte
	if jobapi.Shows(state) {
		at, b, err := job.Get(ctx, s.cfg.Conn, id, maxAge, time.Now())
		if err == nil && at.Version() == state.Version() { // else the client has to ask for the result
			body = b
		}
	}
	return jobapi.NewDocument(s.cfg.Base, text, state, body)
}
