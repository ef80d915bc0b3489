package traces

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed story.yaml
var manifests string

// Parts are what the manifests name.
type Parts struct {
	Writer    string // the image of order-writer
	Worker    string // the URL of the job's function
	Collector string // its URL
	// Heartbeat is that of the jobs' mapping. Its half is longer than spans are on their way, for these are what the story waits
	// for before the job's function reports. The job's record is looked at again after it: the last span comes no sooner.
	Heartbeat time.Duration
}

// Manifests are what is to be applied before the stories.
func Manifests(p Parts) string {
	return strings.NewReplacer("WRITER", p.Writer, "WORKER", p.Worker, "COLLECTOR", p.Collector, "HEARTBEAT", p.Heartbeat.String()).Replace(manifests)
}

// The queues of the stories.
const (
	Orders = "traced-orders"
	Jobs   = "traced-jobs"
)

// System is where the stories are played. Of its stages and functions only what a client has sampled is traced.
type System struct {
	Gateway   string        // its URL
	DB        *pgxpool.Pool // to the orders' database
	Worker    *Worker
	Collector *Collector
	// Redrive does what `weir dlq redrive QUEUE` does, to its end.
	Redrive  func(queue string) error
	Patience time.Duration // for each step
}

// Play plays both stories, and shows that all spans of all time are of the one trace or the other.
func Play(t *testing.T, s System) {
	t.Helper()
	s.warm(t)
	var order, job client
	t.Run("Order", func(t *testing.T) { order = s.order(t) })
	t.Run("Job", func(t *testing.T) { job = s.job(t) })
	if t.Failed() {
		return
	}
	s.check(t, order, orderTree) // once more: nothing has come after its end
	for _, span := range s.Collector.All() {
		if span.Trace != order.trace && span.Trace != job.trace {
			t.Errorf("%s of %s is in trace %s, which nobody has begun", span.Name, span.Service, span.Trace)
		}
	}
	if err := s.Collector.Wrong(); err != nil {
		t.Error(err)
	}
}

// client is who sends a request: it has a span of its own, which nobody exports.
type client struct{ trace, span string }

func newClient() client {
	var id [24]byte
	_, _ = rand.Read(id[:]) // it never fails
	return client{trace: hex.EncodeToString(id[:16]), span: hex.EncodeToString(id[16:])}
}

// post sends a request, in the trace if there is one, and returns the record's id.
func (s *System) post(t *testing.T, c client, path, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Gateway+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.trace != "" {
		req.Header.Set("Traceparent", "00-"+c.trace+"-"+c.span+"-01")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	var answer struct{ ID string }
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil || resp.StatusCode != http.StatusAccepted || answer.ID == "" {
		t.Fatalf("POST %s: %s %s, %v", path, resp.Status, text, err)
	}
	return answer.ID
}

// warm has an order written without a trace, so that the function is there, and has its tables and a connection.
func (s *System) warm(t *testing.T) {
	t.Helper()
	id := s.post(t, client{}, "/traced/orders", `{"sku": "warm"}`)
	s.row(t, id)
}

// row waits until an order is a row.
func (s *System) row(t *testing.T, id string) {
	t.Helper()
	deadline := time.NewTimer(s.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n := 0
		err := s.DB.QueryRow(t.Context(), `SELECT count(*) FROM orders WHERE id = $1`, id).Scan(&n)
		if n == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s in vain for order %s: %v", s.Patience, id, err)
		}
	}
}

// arrives waits until a trace has n spans that match.
func (s *System) arrives(t *testing.T, c client, what string, n int, matches func(*Span) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	defer cancel()
	if !s.Collector.wait(ctx, c.trace, n, matches) {
		t.Fatalf("waited %s in vain until %s; what has come:\n%s", s.Patience, what, Tree(s.Collector.Of(c.trace), c.span))
	}
}

// check waits for as many spans as a tree has, and compares. All of them are about one record.
func (s *System) check(t *testing.T, c client, want string) {
	t.Helper()
	s.arrives(t, c, "all spans are there", strings.Count(want, "\n"), func(*Span) bool { return true })
	spans := s.Collector.Of(c.trace)
	if got := Tree(spans, c.span); got != want {
		t.Fatalf("the tree of trace %s is\n%s\nwant\n%s", c.trace, got, want)
	}
	record := ""
	for i := range spans {
		for _, key := range []string{"weir.record.id", "cloudevents.event_id"} {
			if id := spans[i].Attributes[key]; id != "" && record == "" {
				record = id
			} else if id != "" && id != record {
				t.Errorf("%s of %s is about record %s, the trace about %s", spans[i].Name, spans[i].Service, id, record)
			}
		}
	}
	if record == "" {
		t.Error("no span says which record it is about")
	}
}

const (
	breakOrders = `ALTER TABLE orders ADD CONSTRAINT traced CHECK (sku <> 'traced') NOT VALID`
	mendOrders  = `ALTER TABLE orders DROP CONSTRAINT IF EXISTS traced`
)

// order: an order that the database refuses is tried twice, is a dead letter, and once the database takes it, it is redriven
// and becomes a row.
func (s *System) order(t *testing.T) client {
	t.Helper()
	mend := func(ctx context.Context) {
		if _, err := s.DB.Exec(ctx, mendOrders); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.DB.Exec(t.Context(), breakOrders); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mend(context.WithoutCancel(t.Context())) })
	c := newClient()
	id := s.post(t, c, "/traced/orders", `{"sku": "traced"}`)
	s.dies(t, c)
	mend(t.Context())
	if err := s.Redrive(Orders); err != nil {
		t.Fatal(err)
	}
	s.row(t, id)
	s.check(t, c, orderTree)
	return c
}

// job: a job whose function fails is tried twice, is a dead letter, and once the function works, it is redriven. The function
// answers 202 and reports later.
func (s *System) job(t *testing.T) client {
	t.Helper()
	c := newClient()
	s.post(t, c, "/traced/jobs", `{}`)
	s.dies(t, c)
	s.Worker.mended.Store(true)
	if err := s.Redrive(Jobs); err != nil {
		t.Fatal(err)
	}
	// A report before that would find no record that waits: the tree would be another one.
	s.arrives(t, c, "the job waits for its function's report", 1, func(span *Span) bool { return span.Attributes["weir.job.status"] == "running" })
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	defer cancel()
	if err := s.Worker.report(ctx); err != nil {
		t.Fatal(err)
	}
	s.check(t, c, jobTree)
	return c
}

// dies waits until the second attempt's span has come, which ends after the dead letter is stored.
func (s *System) dies(t *testing.T, c client) {
	t.Helper()
	s.arrives(t, c, "it is a dead letter", 1, func(span *Span) bool { return strings.HasPrefix(span.Name, "dead-letter ") })
	s.arrives(t, c, "its second attempt is over", 2, func(span *Span) bool { return strings.HasPrefix(span.Name, "process ") && span.Failed })
}

// orderTree and jobTree are what Tree makes of the stories.
const (
	orderTree = `POST /traced/orders | server | weir-gateway
  send default/traced-orders | producer | weir-gateway
  process default/traced-orders | consumer | weir-dispatcher | failed
    POST | client | weir-dispatcher | failed
      traced-writer | server | traced-writer | failed
        pool.acquire | client | traced-writer
        INSERT | client | traced-writer | failed
  retry default/traced-orders | producer | weir-dispatcher | linked to process default/traced-orders #1
  process default/traced-orders | consumer | weir-dispatcher | failed
    POST | client | weir-dispatcher | failed
      traced-writer | server | traced-writer | failed
        pool.acquire | client | traced-writer
        INSERT | client | traced-writer | failed
  dead-letter default/traced-orders | producer | weir-dispatcher | linked to process default/traced-orders #2
  redrive default/traced-orders | producer | weir-cli
  process default/traced-orders | consumer | weir-dispatcher
    POST | client | weir-dispatcher
      traced-writer | server | traced-writer
        pool.acquire | client | traced-writer
        INSERT | client | traced-writer
`
	// The reports: the last one's caller had kept the call's context, the one's before only its header, and the first one's
	// nothing. The last process finds that the job has succeeded.
	jobTree = `POST /traced/jobs | server | weir-gateway
  send default/traced-jobs | producer | weir-gateway
  process default/traced-jobs | consumer | weir-dispatcher | failed | job queued
    POST | client | weir-dispatcher | failed
      traced-worker | server | traced-worker | failed
  retry default/traced-jobs | producer | weir-dispatcher | linked to process default/traced-jobs #1
  process default/traced-jobs | consumer | weir-dispatcher | failed | job failed
    POST | client | weir-dispatcher | failed
      traced-worker | server | traced-worker | failed
  dead-letter default/traced-jobs | producer | weir-dispatcher | linked to process default/traced-jobs #2
  redrive default/traced-jobs | producer | weir-cli
  process default/traced-jobs | consumer | weir-dispatcher | job running
    POST | client | weir-dispatcher
      traced-worker | server | traced-worker
        POST /weir/callbacks/{callback} | server | weir-gateway
      POST /weir/callbacks/{callback} | server | weir-gateway
  POST /weir/callbacks/{callback} | server | weir-gateway
  process default/traced-jobs | consumer | weir-dispatcher | job succeeded
`
)
