package alerts_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// The queues, by what befalls them.
const (
	normal   = "normal"   // nothing
	stopped  = "stopped"  // its function is stopped
	failing  = "failing"  // its function fails
	hanging  = "hanging"  // its function hangs
	slow     = "slow"     // its function takes its time
	poisoned = "poisoned" // some of its orders can't be taken
	full     = "full"     // more comes than it may hold
	buried   = "buried"   // alike, of dead letters
	unmapped = "unmapped" // its mapping is removed
	robbed   = "robbed"   // somebody removes messages of its stream
	leased   = "leased"   // somebody takes its lease
	removed  = "removed"  // somebody removes its stream
)

func queues() []string {
	return []string{normal, stopped, failing, hanging, slow, poisoned, full, buried, unmapped, robbed, leased, removed}
}

// manifests are what a user writes: of each queue its function, too, and a route. maxBytes is the least that may be.
const manifests = `
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: %[1]s}
spec: {maxBytes: 8Mi}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: %[1]s}
spec:
  template:
    spec:
      containerConcurrency: 10
      timeoutSeconds: 300
      containers: [{image: example.com/%[1]s}]
---
apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: %[1]s}
spec:
  routes:
  - name: create
    match: {method: POST, path: /%[1]s}
    queue: {name: %[1]s}
`

const mapping = `---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: %[1]s}
spec:
  queue: %[1]s
  function: {name: %[1]s}
  maxConcurrency: %[2]d
  batch: {maxRecords: 1}
  timeout: 300s
  retry: {maxAttempts: 100, maxBackoff: 5s} # what fails doesn't become a dead letter while the test looks
`

// system is Weir in a cluster's pieces, with all that is read of it.
type system struct {
	t         *testing.T
	nats      localnats.Config // its address
	conn      *stream.Conn     // the test's own: it does the controller's part
	js        jetstream.JetStream
	functions map[string]*function // by queue
	gateway   string               // address
	client    *http.Client
	prom      *prometheus
}

// namespace is that of the pods; what befalls a pod of its own is in one of its own.
const namespace = "weir-system"

func newSystem(t *testing.T, prom *prometheus) *system {
	t.Helper()
	s := &system{
		t: t, nats: localnats.Config{Dir: t.TempDir(), Port: processes.FreePort(t), Token: localnats.NewToken()}, functions: map[string]*function{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 30 * time.Second}, prom: prom,
	}
	t.Cleanup(s.client.CloseIdleConnections)
	server := testkit.NATSIn(t, s.nats)
	s.conn, s.js = testkit.Conn(t, server), testkit.JetStream(t, server)
	for _, q := range queues() {
		s.functions[q] = newFunction(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	cat := s.catalog("")
	if err := s.conn.EnsureLeases(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.EnsureKeys(ctx, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, q := range cat.Queues {
		if err := s.conn.EnsureQueue(ctx, q, 1); err != nil {
			t.Fatal(err)
		}
	}
	s.publish(cat)
	return s
}

func natsURL(c localnats.Config) string {
	return fmt.Sprintf("nats://%s@127.0.0.1:%d", c.Token, c.Port)
}

func key(queue string) catalog.Key { return catalog.Key{Namespace: "default", Name: queue} }

// catalog reads the manifests, but for the mapping of the queue without.
func (s *system) catalog(without string) *catalog.Catalog {
	s.t.Helper()
	dir := s.t.TempDir()
	for _, q := range queues() {
		text := fmt.Sprintf(manifests, q)
		if q != without {
			calls := map[string]int{hanging: 2, slow: 1, robbed: 1}[q]
			if calls == 0 {
				calls = 4
			}
			text += fmt.Sprintf(mapping, q, calls)
		}
		if err := os.WriteFile(filepath.Join(dir, q+".yaml"), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	bundle, err := manifest.LoadDir(dir, manifest.Options{FunctionURL: func(k catalog.Key) string { return "http://" + s.functions[k.Name].addr }})
	if err != nil {
		s.t.Fatal(err)
	}
	return bundle.Catalog
}

func (s *system) publish(cat *catalog.Catalog) {
	s.t.Helper()
	if err := s.conn.PublishCatalog(s.t.Context(), cat, 1, nil); err != nil {
		s.t.Fatal(err)
	}
}

// stage is a process of a service, with the addresses that it keeps over restarts.
type stage struct {
	*processes.Child
	s      *system
	target target
	env    []string
}

// start starts a stage as a pod, and Prometheus reads it from now on.
func (s *system) start(namespace, service, pod string, server localnats.Config, env ...string) *stage {
	s.t.Helper()
	g := &stage{s: s, target: target{namespace, "weir-" + service, pod, fmt.Sprintf("127.0.0.1:%d", processes.FreePort(s.t))}}
	g.env = append([]string{
		"WEIR_NATS_URL=" + natsURL(server), "WEIR_HEALTH_LISTEN=" + g.target.address, "WEIR_INSTANCE=" + pod, "WEIR_LOG_FORMAT=text",
	}, env...)
	if service == "controller" {
		g.env = append(g.env, asController+"=1")
	}
	g.again()
	s.prom.add(g.target)
	return g
}

// again starts the process at the same addresses, with more in its environment.
func (g *stage) again(env ...string) {
	g.s.t.Helper()
	path := filepath.Join(parts.bin, g.target.job[len("weir-"):])
	if g.target.job == "weir-controller" {
		self, err := os.Executable()
		if err != nil {
			g.s.t.Fatal(err)
		}
		path = self
	}
	g.Child = processes.Start(g.s.t, g.target.pod, path, append(g.env, env...))
}

// startGateway starts one that clients use, and returns once it serves the catalog.
func (s *system) startGateway(env ...string) {
	s.t.Helper()
	s.gateway = fmt.Sprintf("127.0.0.1:%d", processes.FreePort(s.t))
	g := s.start(namespace, "gateway", "gateway-0", s.nats, append(env, "WEIR_LISTEN="+s.gateway)...)
	within(s.t, "the gateway is ready", func() string {
		resp, err := s.client.Get("http://" + g.target.address + "/readyz")
		if err != nil {
			return err.Error()
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
}

// post posts an order to a queue's route and returns the answer's status.
func (s *system) post(ctx context.Context, queue, body string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.gateway+"/"+queue, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return resp.StatusCode, resp.Body.Close()
}

// orders posts n of them, one after the other, each until it is accepted: on a machine that others keep busy a write may take
// longer than the gateway waits.
func (s *system) orders(queue string, n int) {
	s.t.Helper()
	for i := range n {
		within(s.t, fmt.Sprintf("order %d to %s is accepted", i, queue), func() string {
			status, err := s.post(s.t.Context(), queue, fmt.Sprintf("order %d", i))
			if err == nil && status != http.StatusAccepted {
				return http.StatusText(status)
			}
			return said(err)
		})
	}
}

// traffic posts an order every now and then, until stop or the test's end. What is answered is not looked at.
func (s *system) traffic(queue string, every time.Duration, body func(i int) string) (stop func()) {
	i := 0
	return s.keep(every, func(ctx context.Context) {
		_, _ = s.post(ctx, queue, body(i))
		i++
	})
}

// keep does it again and again, until stop or the test's end.
func (s *system) keep(every time.Duration, do func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			do(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	s.t.Cleanup(stop)
	return stop
}

// rob removes a message of the queue's stream by hand, one that has neighbours.
func (s *system) rob(queue string) {
	s.t.Helper()
	st, err := s.js.Stream(s.t.Context(), "WEIR_Q_default_"+queue)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := st.DeleteMsg(s.t.Context(), st.CachedInfo().State.LastSeq-1); err != nil {
		s.t.Fatal(err)
	}
}

// remove removes the queue's stream by hand, and returns what the controller does about it within a minute, if NATS has room.
func (s *system) remove(queue string) (makeAgain func()) {
	s.t.Helper()
	if err := s.js.DeleteStream(s.t.Context(), "WEIR_Q_default_"+queue); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		for _, q := range s.catalog("").Queues {
			if q.Key == key(queue) {
				if err := s.conn.EnsureQueue(s.t.Context(), q, 1); err != nil {
					s.t.Error(err)
				}
			}
		}
	}
}

// thieve takes the lease of queue from whoever has it, again and again until stop: in the name of another, and for longer
// than it takes the owner to renew it.
func (s *system) thieve(queue string) (stop func()) {
	const thief, ttl = "a-thief", 6 * time.Second
	subject := "weir.lease.queue.default." + queue
	st, err := s.js.Stream(s.t.Context(), "WEIR_LEASES")
	if err == nil {
		_, err = st.GetLastMsgForSubject(s.t.Context(), subject) // it is under that name
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return s.keep(100*time.Millisecond, func(ctx context.Context) {
		m, err := st.GetLastMsgForSubject(ctx, subject)
		if err == nil && len(m.Data) > 0 && string(m.Data) != thief { // without a body it is the marker of a free lease
			_, _ = s.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: []byte(thief)}, jetstream.WithMsgTTL(ttl))
		}
	})
}

// function is one that can be stopped, and do other things than to take what it gets.
type function struct {
	t      *testing.T
	addr   string
	do     atomic.Pointer[http.HandlerFunc]
	server *http.Server
	served sync.WaitGroup
}

func newFunction(t *testing.T) *function {
	t.Helper()
	f := &function{t: t, addr: fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))}
	f.mend()
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *function) start() {
	f.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*f.do.Load())(w, r) }),
		ReadHeaderTimeout: 10 * time.Second,
	}
	f.served.Go(func() { _ = f.server.Serve(l) })
}

func (f *function) stop() {
	_ = f.server.Close()
	f.served.Wait()
}

// mend makes it take all that it gets.
func (f *function) mend() {
	f.does(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	})
}

func (f *function) does(h http.HandlerFunc) { f.do.Store(&h) }

// takes makes it take that long for each order. Until it is mended; then those in its hands end too.
func (f *function) takes(d time.Duration) (mend func()) {
	mended := make(chan struct{})
	f.does(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(d):
		case <-mended:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return sync.OnceFunc(func() { f.mend(); close(mended) })
}
