package realtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/testkit"
)

// feedOf is a feed: where it is, and whose its jobs are.
func (b *bench) feedOf() (path string, client record.Client) {
	b.t.Helper()
	f := job.NewFeed()
	text, err := f.Text(b.ring, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return ownpath.Feeds + text, f.Client()
}

// each connects by both protocols, to resume after a position.
func (b *bench) each(path, after string) map[string]stateReader {
	b.t.Helper()
	sse := must[*eventClient](b.t)(b.listen(b.t.Context(), path+"/events", after))
	b.t.Cleanup(sse.close)
	ws := must[*socketClient](b.t)(b.dial(b.t.Context(), path+"/socket?after="+after))
	b.t.Cleanup(ws.close)
	return map[string]stateReader{"events": sse, "socket": ws}
}

func TestFeed(t *testing.T) {
	b := start(t)
	path, client := b.feedOf()
	_, stranger := b.feedOf()
	done, running, begun := b.submitOf(client, b.queue), b.submitOf(client, b.other), b.submitOf(client, b.queue)
	begun2 := b.submitOf(client, b.queue) // has no state yet
	for _, w := range []*work{b.submit(), b.submitOf(stranger, b.queue), done, running} {
		w.do(w.begin)
	}
	done.do(func(ctx context.Context) error { return done.succeed(ctx, "text/plain", "one") })

	listeners := b.each(path, "")
	name := map[string]string{done.text: "done", running.text: "running", begun.text: "begun", begun2.text: "begun2"}
	expect := func(l stateReader, want ...string) (last event) {
		t.Helper()
		var got []string
		for range want {
			e, err := l.next()
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			if e.id != "" && e.id != e.doc.Position {
				t.Errorf("id %q, position %q", e.id, e.doc.Position)
			}
			s := name[e.doc.ID] + " " + e.doc.Status
			if e.doc.Result != nil {
				s += " " + string(e.doc.Result.Data)
			}
			got, last = append(got, s), e
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		return last
	}
	position := ""
	for _, l := range listeners { // the current states
		position = expect(l, `done succeeded "one"`, "running running").doc.Position
	}
	begun.do(begun.begin)
	running.do(func(ctx context.Context) error { return running.succeed(ctx, "text/plain", "two") })
	for _, l := range listeners { // then every later one
		expect(l, "begun running", `running succeeded "two"`)
	}
	begun.do(func(ctx context.Context) error { return begun.succeed(ctx, "text/plain", "three") })
	begun2.do(begun2.begin)
	for _, l := range listeners {
		expect(l, `begun succeeded "three"`, "begun2 running")
	}
	for _, l := range b.each(path, position) { // a client that reconnects gets what is later, and of each job the latest
		expect(l, `running succeeded "two"`, `begun succeeded "three"`, "begun2 running")
		l.close()
	}
	for _, bad := range []string{path[:len(path)-1], path + "A", ownpath.Feeds + "x", ownpath.Feeds + done.text} {
		if l, err := b.listen(t.Context(), bad+"/events", ""); err != nil || l.resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, %v", bad, l.resp.Status, err)
		}
		if _, err := b.dial(t.Context(), bad+"/socket"); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestFeedOfMany: more states than a server keeps for one client arrive all the same, each once and in order, also at
// a client that reads slowly.
func TestFeedOfMany(t *testing.T) {
	const n = 5000
	b := start(t)
	path, client := b.feedOf()
	var wg sync.WaitGroup
	next := make(chan struct{}, n)
	for range n {
		next <- struct{}{}
	}
	close(next)
	for range 32 {
		wg.Go(func() {
			for range next {
				w := b.submitOf(client, b.queue)
				if err := w.begin(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for what, connect := range map[string]func(after string) (stateReader, error){
		"events": func(after string) (stateReader, error) { return b.listen(t.Context(), path+"/events", after) },
		"socket": func(after string) (stateReader, error) { return b.dial(t.Context(), path+"/socket?after="+after) },
	} {
		last, position, told, connects := uint64(0), "", 0, 0
		// On a machine that is busy the server may lose NATS, and then it ends all streams: a client goes on where it was.
		testkit.Eventually(t, what+": all have come", func() bool {
			l, err := connect(position)
			if err != nil {
				return false
			}
			defer l.close()
			if connects++; connects > 5 {
				t.Fatalf("%s: %d connections brought %d of %d", what, connects, told, n)
			}
			for told < n {
				e, err := l.next()
				if err != nil || e.kind != "state" {
					t.Logf("%s: %s after %d: %v", what, e.kind, told, err)
					return false
				}
				v := job.ParsePosition(e.doc.Position, []catalog.Key{b.queue})[b.queue].Seq
				if v <= last {
					t.Fatalf("%s: %s after %d", what, e.doc.Position, last)
				}
				last, position = v, e.doc.Position
				told++
			}
			return true
		})
	}
}

// TestFeedRace: jobs that take no time, submitted while the client connects, disconnects and reconnects: of each it
// gets the end exactly once, and no state twice.
func TestFeedRace(t *testing.T) {
	const jobs = 400
	b := start(t)
	path, client := b.feedOf()
	var wg sync.WaitGroup
	for q, queue := range []catalog.Key{b.queue, b.other} {
		for range 4 {
			wg.Go(func() {
				for i := range jobs / 8 {
					w := b.submitOf(client, queue)
					err := w.begin(t.Context())
					if err == nil {
						err = w.succeed(t.Context(), "text/plain", "done")
					}
					if err != nil {
						t.Errorf("queue %d, job %d: %v", q, i, err)
						return
					}
				}
			})
		}
	}
	defer wg.Wait()
	follow := func(connect func(after string) (stateReader, error)) error {
		ends, versions, position := map[string]int{}, map[string]string{}, ""
		for round := 0; len(ends) < jobs; round++ {
			l, err := connect(position)
			if err != nil {
				return err
			}
			for range 7 + round%13 { // then the connection breaks
				e, err := l.next()
				if err != nil {
					l.close()
					return err
				}
				if versions[e.doc.ID] == e.doc.Version {
					l.close()
					return fmt.Errorf("version %s of a job came twice", e.doc.Version)
				}
				versions[e.doc.ID], position = e.doc.Version, e.doc.Position
				if e.doc.Status == "succeeded" {
					ends[e.doc.ID]++
				}
				if len(ends) == jobs {
					break
				}
			}
			l.close()
		}
		for n := range maps.Values(ends) {
			if n != 1 {
				return errors.New("an end came " + strconv.Itoa(n) + " times")
			}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	results := make(chan error)
	go func() {
		results <- follow(func(after string) (stateReader, error) { return b.listen(ctx, path+"/events", after) })
	}()
	go func() {
		results <- follow(func(after string) (stateReader, error) { return b.dial(ctx, path+"/socket?after="+after) })
	}()
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestFeedOfOtherQueues: a client is told to reconnect when the queues to follow have changed.
func TestFeedOfOtherQueues(t *testing.T) {
	b := start(t)
	path, _ := b.feedOf()
	feed, err := b.server.newClientFeed(path[len(ownpath.Feeds):], "", func() {})
	if err != nil {
		t.Fatal(err)
	}
	if feed.stale() {
		t.Error("with nothing changed")
	}
	b.server.Use(&catalog.Catalog{Queues: []catalog.Queue{{Key: b.other, Jobs: true}}})
	if !feed.stale() {
		t.Error("with a queue less")
	}
}

// TestDrainOfFeeds: clients with feeds are told to reconnect, and nothing else.
func TestDrainOfFeeds(t *testing.T) {
	b := start(t)
	path, client := b.feedOf()
	var listeners []stateReader
	for range 30 {
		for _, l := range b.each(path, "") {
			listeners = append(listeners, l)
		}
	}
	w := b.submitOf(client, b.queue)
	w.do(w.begin)
	for _, l := range listeners {
		if e, err := l.next(); err != nil || e.doc.Status != "running" {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); b.stop() }()
	for _, l := range listeners {
		e, err := l.next()
		if _, sse := l.(*eventClient); sse && (err != nil || e.kind != "close" || e.doc.Code != closeLife.code) {
			t.Errorf("events: %+v, %v", e, err)
		} else if !sse && websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("socket: %+v, %v", e, err)
		}
	}
	<-stopped
}

// TestEventSourceComesBack: an EventSource gives up after any status but 200, so what is refused for now begins and
// ends.
func TestEventSourceComesBack(t *testing.T) {
	b := start(t)
	path, _ := b.feedOf()
	w := b.submit()
	b.server.cfg.MaxConnections = 0
	for _, path := range []string{path, "/weir/jobs/" + w.text} {
		l := must[*eventClient](t)(b.listen(t.Context(), path+"/events", ""))
		e, err := l.next()
		if l.close(); err != nil || l.resp.StatusCode != http.StatusOK || e.kind != "close" || e.doc.Code != closeAway.code {
			t.Errorf("%s: %d, %+v, %v", path, l.resp.StatusCode, e, err)
		}
		if l, err := b.dial(t.Context(), path+"/socket"); err == nil {
			l.close()
			t.Errorf("%s/socket was taken", path)
		}
	}
}

// TestFeedsAreCountedOut: a feed that has ended, at whatever point, makes room for another.
func TestFeedsAreCountedOut(t *testing.T) {
	b := start(t)
	path, _ := b.feedOf()
	for _, l := range b.each(path, "") {
		l.close()
	}
	l := must[*eventClient](t)(b.listen(t.Context(), path+"/socket", "")) // no WebSocket
	if l.close(); l.resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a GET of a socket: %s", l.resp.Status)
	}
	testkit.Eventually(t, "no feed is counted", func() bool { return b.server.feeds.Load() == 0 })
	b.server.feeds.Store(maxFeeds)
	l = must[*eventClient](t)(b.listen(t.Context(), path+"/events", ""))
	if e, err := l.next(); err != nil || e.kind != "close" || e.doc.Code != closeAway.code {
		t.Errorf("one more: %+v, %v", e, err)
	}
	l.close()
	b.server.feeds.Store(0)
}
