package realtime

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/testkit"
)

// anew deletes the queue and creates it again.
func (b *bench) anew() {
	b.t.Helper()
	b.leave()
	if err := b.conn.DeleteQueue(b.t.Context(), b.queue); err != nil {
		b.t.Fatal(err)
	}
	q := catalog.Queue{
		Key: b.queue, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour,
		Jobs: true, Results: catalog.Results{MaxAge: time.Hour, MaxBytes: 64 << 20},
	}
	if err := b.conn.EnsureQueue(b.t.Context(), q, 1); err != nil {
		b.t.Fatal(err)
	}
	b.leave = testkit.OwnStates(b.t, b.conn, b.queue)
}

// TestFeedOfQueueMadeAnew: the position that a client gives is of the former queue, and lower than the current one's.
func TestFeedOfQueueMadeAnew(t *testing.T) {
	b := start(t)
	path, client := b.feedOf()
	for range 3 {
		w := b.submitOf(client, b.queue)
		w.do(w.begin)
	}
	position := ""
	for _, l := range b.each(path, "") {
		for range 3 {
			e, err := l.next()
			if err != nil {
				t.Fatal(err)
			}
			position = e.doc.Position
		}
	}
	b.anew()
	const jobs = 6
	for range jobs {
		w := b.submitOf(client, b.queue)
		w.do(w.begin)
	}
	for what, l := range b.each(path, position) {
		for i := range jobs {
			if _, err := l.next(); err != nil {
				t.Fatalf("%s: %d of %d: %v", what, i, jobs, err)
			}
		}
	}
	if p := job.ParsePosition("00:17", []catalog.Key{b.queue}); len(p) != 0 {
		t.Errorf("a position of a former version is taken: %v", p)
	}
}

// TestVersionOfQueueMadeAnew: a version of a job of the former queue hides no state of the job that has its id now,
// whether it is higher, the same sequence, or a sequence alone.
func TestVersionOfQueueMadeAnew(t *testing.T) {
	b := start(t)
	w := b.submit()
	w.do(w.begin)
	former := first(t, b, w, "")
	b.anew()
	w.do(w.begin)
	present := first(t, b, w, "")
	_, sum, _ := strings.Cut(former.doc.Version, "-")
	seq, ok := jobapi.ParseVersion(present.doc.Version)
	if !ok || sum == "" {
		t.Fatalf("%s, then %s", former.doc.Version, present.doc.Version)
	}
	higher, same := fmt.Sprint(seq+5), fmt.Sprint(seq)
	for _, after := range []string{former.doc.Version, higher + "-" + sum, same + "-" + sum, higher, "expired"} {
		if e := first(t, b, w, after); e.doc.Version != present.doc.Version {
			t.Errorf("after %s: %+v", after, e.doc)
		}
	}
	// A client that has the current one gets only what is later.
	events, socket := connect(t, b, w, present.doc.Version)
	w.do(func(ctx context.Context) error { return w.succeed(ctx, "text/plain", "done") })
	for _, l := range []stateReader{events, socket} {
		if e, err := l.next(); err != nil || e.doc.Status != "succeeded" {
			t.Errorf("%+v, %v", e.doc, err)
		}
	}
}

func connect(t *testing.T, b *bench, w *work, after string) (events, socket stateReader) {
	t.Helper()
	e := must[*eventClient](t)(b.listen(t.Context(), ownpath.Jobs+w.text+"/events", after))
	t.Cleanup(e.close)
	s := must[*socketClient](t)(b.dial(t.Context(), ownpath.Jobs+w.text+"/socket?after="+after))
	t.Cleanup(s.close)
	return e, s
}

// first is what both protocols send first.
func first(t *testing.T, b *bench, w *work, after string) event {
	t.Helper()
	events, socket := connect(t, b, w, after)
	e, err := events.next()
	if err != nil {
		t.Fatal(err)
	}
	s, err := socket.next()
	if err != nil || s.doc.Version != e.doc.Version || e.id != e.doc.Version {
		t.Fatalf("%+v, %+v, %v", e, s, err)
	}
	return e
}
