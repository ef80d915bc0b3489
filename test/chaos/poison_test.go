package chaos_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weir-dev/weir/internal/testkit"
)

// deadLetter is what `weir dlq` prints as JSON.
type deadLetter struct {
	ID       string `json:"id"`
	Attempts int    `json:"attempts"`
	Status   int    `json:"status"`
	Reason   string `json:"reason"`
	Body     struct {
		N int `json:"n"`
	} `json:"body"`
}

func deadLetters(t testing.TB, w *weir) []deadLetter {
	t.Helper()
	var out []deadLetter
	d := json.NewDecoder(strings.NewReader(w.command("dlq", "list", "orders", "--json")))
	for {
		var l deadLetter
		err := d.Decode(&l)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
}

// TestPoison posts one order that the function can't take among 10,000: it alone is dead-lettered, with the
// reason; a redrive after a fix of the function brings it in.
func TestPoison(t *testing.T) {
	const poison = 1_234
	for _, tt := range []struct {
		name   string
		refuse func(w http.ResponseWriter, r *http.Request, events []event, rest func(*http.Request) int)
		status int
		reason string
		orders int
	}{
		{"named in batchItemFailures", named, http.StatusOK, "batchItemFailures", 10_000},
		{"fails its whole batch", func(w http.ResponseWriter, _ *http.Request, _ []event, _ func(*http.Request) int) {
			http.Error(w, "this batch holds a poison order", http.StatusInternalServerError)
		}, http.StatusInternalServerError, "poison order", 10_000},
		{"refused for good", func(w http.ResponseWriter, _ *http.Request, _ []event, _ func(*http.Request) int) {
			http.Error(w, "a poison order is no order", http.StatusUnprocessableEntity)
		}, http.StatusUnprocessableEntity, "no order", 2_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var fixed atomic.Bool
			var m meter
			writer := forward(t, orderWriter(t))
			url := m.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				raw, events, err := readBatch(r)
				if err != nil {
					http.Error(w, err.Error(), http.StatusTeapot)
					return
				}
				var good []json.RawMessage
				for i := range events {
					if !events[i].Data.Poison || fixed.Load() {
						good = append(good, raw[i])
					}
				}
				if len(good) == len(events) {
					setBatch(r, good)
					writer.ServeHTTP(w, r)
					return
				}
				tt.refuse(w, r, events, func(r *http.Request) int {
					if len(good) == 0 {
						return http.StatusOK
					}
					setBatch(r, good)
					sw := &statusWriter{ResponseWriter: discard{}, status: http.StatusOK}
					writer.ServeHTTP(sw, r)
					return sw.status
				})
			}))
			folder := manifests(t, "maxAttempts: 5, initialBackoff: 1s, maxBackoff: 5m", "maxAttempts: 3, initialBackoff: 200ms, maxBackoff: 1s")
			w := newWeir(t, folder, "--function", "order-writer="+url)
			w.up()
			l := newLoad(t, w.addr, 64, tt.orders)
			l.body = func(n int) []byte {
				if n == poison {
					return fmt.Appendf(nil, `{"sku":%q,"n":%d,"poison":true}`, l.tag, n)
				}
				return l.plain(n)
			}
			l.start()
			l.wait()

			var dead []deadLetter
			testkit.Eventually(t, "something is dead-lettered", func() bool {
				dead = deadLetters(t, w)
				return len(dead) > 0
			})
			var id string
			for got, n := range l.accepted {
				if n == poison {
					id = got
				}
			}
			if id == "" {
				t.Fatal("the poison order was not accepted")
			}
			delete(l.accepted, id)
			l.verify(true) // the others are rows, and it is not
			dead = deadLetters(t, w)
			if len(dead) != 1 || dead[0].ID != id {
				t.Fatalf("dead letters: %+v; want the poison order %s alone", dead, id)
			}
			var whole deadLetter
			if err := json.Unmarshal([]byte(w.command("dlq", "show", "orders", id)), &whole); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls; dead letter: attempts %d, status %d, reason %q", m.total(), whole.Attempts, whole.Status, whole.Reason)
			if whole.Body.N != poison || whole.Status != tt.status || !strings.Contains(whole.Reason, tt.reason) {
				t.Errorf("the dead letter says %+v; want order %d, status %d, a reason with %q", whole, poison, tt.status, tt.reason)
			}

			fixed.Store(true)
			w.command("dlq", "redrive", "orders", "--rate", "5")
			l.accepted[id] = poison
			l.verify(true)
			if dead := deadLetters(t, w); len(dead) != 0 {
				t.Errorf("dead letters after the redrive: %+v", dead)
			}
		})
	}
}

// named forwards the good orders and names the poison one as failed.
func named(w http.ResponseWriter, r *http.Request, events []event, rest func(*http.Request) int) {
	if status := rest(r); status >= 300 {
		w.WriteHeader(status)
		return
	}
	type failure struct {
		ItemIdentifier string `json:"itemIdentifier"`
	}
	var failures []failure
	for _, e := range events {
		if e.Data.Poison {
			failures = append(failures, failure{e.ID})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"batchItemFailures": failures})
}

func setBatch(r *http.Request, events []json.RawMessage) {
	b, err := json.Marshal(events)
	if err != nil {
		panic(err) // they were read as JSON
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	r.Header.Set("Content-Length", fmt.Sprint(len(b)))
}

// discard is a ResponseWriter whose answer nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}
