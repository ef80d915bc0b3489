// Command loader posts orders to a gateway from within the cluster, where no port-forward can break between them,
// and counts the answers. It runs until POST /stop on -listen, whose answer is the report; GET /report is what it
// is so far. With -get it does one GET instead and exits with 1 unless the answer is 200: for the chart's test pods.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Report is what the answers were. An order's index is its customer, and its run is its sku.
type Report struct {
	Sent     int            `json:"sent"`
	Statuses map[string]int `json:"statuses"`
	Errors   map[string]int `json:"errors"` // requests without an answer, by error
	Accepted []int          `json:"accepted"`
	SlowestS float64        `json:"slowestSeconds"` // answer
	Problems []string       `json:"problems"`       // the first bodies of other answers than 202
}

const (
	timeout     = 35 * time.Second // above the gateway's own
	maxProblems = 5
)

func main() {
	var (
		url    = flag.String("url", "", "of the route")
		run    = flag.String("run", "", "name of this run: the orders' sku")
		rate   = flag.Int("rate", 100, "orders a second, all connections together")
		conns  = flag.Int("c", 16, "connections")
		limit  = flag.Int("n", 0, "orders at most; 0: until stopped")
		pad    = flag.Int("pad", 0, "bytes that make each order larger, which no codec makes smaller")
		listen = flag.String("listen", ":8080", "address of /stop and /report")
		get    = flag.String("get", "", "only GET this URL")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	if *get != "" {
		err = getOnce(ctx, *get)
	} else {
		l := &load{
			url: *url, run: *run, limit: *limit, pad: *pad, report: Report{Statuses: map[string]int{}, Errors: map[string]int{}},
			client: &http.Client{Timeout: timeout, Transport: &http.Transport{MaxIdleConnsPerHost: *conns}},
		}
		err = l.serve(ctx, *listen, *rate, *conns)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		os.Exit(1)
	}
}

func getOnce(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	fmt.Printf("%s: %s\n", resp.Status, body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

type load struct {
	url, run string
	limit    int
	pad      int
	client   *http.Client
	next     atomic.Int64

	mu     sync.Mutex
	report Report
}

func (l *load) serve(ctx context.Context, listen string, rate, conns int) error {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	var senders sync.WaitGroup
	ticks := make(chan struct{}, conns)
	senders.Go(func() { pace(sending, ticks, rate) })
	for range conns {
		senders.Go(func() {
			for range ticks {
				if i := int(l.next.Add(1)); l.limit == 0 || i <= l.limit {
					l.post(ctx, i)
				}
			}
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) { l.write(w) })
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) {
		stop()
		senders.Wait() // requests in flight are answered first
		l.write(w)
	})
	srv := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: timeout}
	go func() { <-ctx.Done(); _ = srv.Close() }()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pace gives rate ticks a second. Ticks that no connection takes in time are dropped.
func pace(ctx context.Context, ticks chan<- struct{}, rate int) {
	defer close(ticks)
	t := time.NewTicker(time.Second / time.Duration(rate))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		select {
		case ticks <- struct{}{}:
		default:
		}
	}
}

func (l *load) post(ctx context.Context, i int) {
	note := make([]byte, l.pad*3/4)
	_, _ = rand.Read(note)
	body := fmt.Sprintf(`{"sku":%q,"quantity":1,"customer":"%d","note":%q}`, l.run, i, base64.StdEncoding.EncodeToString(note))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader([]byte(body)))
	if err != nil {
		l.count("", err, 0, i, nil)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	// No Idempotency-Key: with one, net/http would quietly repeat a request whose connection broke.
	start := time.Now()
	resp, err := l.client.Do(req)
	if err != nil {
		l.count("", err, time.Since(start), i, nil)
		return
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	l.count(resp.Status[:3], err, time.Since(start), i, answer)
}

func (l *load) count(status string, err error, took time.Duration, i int, answer []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.report
	r.Sent++
	r.SlowestS = max(r.SlowestS, took.Seconds())
	if err != nil {
		r.Errors[err.Error()]++
		return
	}
	r.Statuses[status]++
	if status == "202" {
		r.Accepted = append(r.Accepted, i)
	} else if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, string(answer))
	}
}

func (l *load) write(w http.ResponseWriter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(l.report)
}
