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
	s  *Server
	wg sync.WaitGroup // of readers of results

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

// shownDoc is a document as it is sent.
type shownDoc struct {
	version string
	text    []byte // JSON
	frame   []byte // of a WebSocket: text is its end; nil if it is for one client

	once    sync.Once
	err     error
	made    bool     // guarded by shown's mu, as is waiting
	waiting []func() // called once it is made
}

// entry returns the document of a state of job j, which need not be made yet. The caller holds mu.
func (d *shown) entry(j *followed, s *job.State) *shownDoc {
	key := shownKey{s, j.text}
	doc, ok := d.docs[key]
	if !ok {
		doc = &shownDoc{}
		delete(d.docs, d.order[d.next])
		d.docs[key], d.order[d.next] = doc, key
		d.next = (d.next + 1) % maxDocuments
	}
	return doc
}

// of returns the document of a state of job j that the hub has told. Unless it is made, and has a small result, that is
// read.
func (d *shown) of(j *followed, s *job.State) (*shownDoc, error) {
	d.mu.Lock()
	doc := d.entry(j, s)
	d.mu.Unlock()
	doc.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), showTimeout) // all its followers wait for it
		defer cancel()
		var made *shownDoc
		if made, doc.err = shownOnce(d.s.document(ctx, j.text, j.id, j.maxAge, s)); doc.err == nil {
			doc.version, doc.frame = made.version, frame(made.text)
			doc.text = doc.frame[len(doc.frame)-len(made.text):]
		}
	})
	return doc, doc.err
}

// made reports whether the document of a state can be had without waiting.
func (d *shown) made(j *followed, s *job.State) bool {
	if !looks(s) {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, ok := d.docs[shownKey{s, j.text}]
	return ok && doc.made
}

// whenMade calls then once the document can be had without waiting: at once, unless it has a small result, which one
// goroutine reads for all.
func (d *shown) whenMade(j *followed, s *job.State, then func()) {
	if !looks(s) {
		then()
		return
	}
	d.mu.Lock()
	doc := d.entry(j, s)
	if doc.made {
		d.mu.Unlock()
		then()
		return
	}
	doc.waiting = append(doc.waiting, then)
	if len(doc.waiting) == 1 {
		d.wg.Go(func() {
			_, err := d.of(j, s)
			if err != nil {
				d.s.cfg.Log.Error("a state can't be shown", "job", j.text, "error", err)
			}
			d.mu.Lock()
			doc.made = true
			waiting := doc.waiting
			doc.waiting = nil
			d.mu.Unlock()
			for _, then := range waiting {
				then()
			}
		})
	}
	d.mu.Unlock()
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

// looks reports whether a state is shown with a result that has to be looked up.
func looks(s *job.State) bool {
	_, told := s.Told()
	return jobapi.Shows(s) && !told
}

// document is a state as its followers see it, with a small result.
func (s *Server) document(ctx context.Context, text string, id job.ID, maxAge time.Duration, state *job.State) jobapi.Document {
	body, _ := state.Told()
	if looks(state) {
		at, b, err := job.GetSince(ctx, s.cfg.Conn, id, maxAge, state.Version())
		if err == nil && at.Version() == state.Version() { // else the client has to ask for the result
			body = b
		}
	}
	return jobapi.NewDocument(s.cfg.Base, text, state, body)
}
