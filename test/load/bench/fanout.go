package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	fanOut        = 10_000 // listeners of one job, half of them at each of two instances
	fanOutTurns   = 5      // of each contestant in a round
	fanOutTries   = 3      // of a round
	fanOutRest    = time.Second
	cancelledText = `"status":"cancelled"`
)

// contestant tells many listeners of one change.
type contestant struct {
	figure  string // its figures' beginning
	what    string
	group   string // of connections
	servers []server
	// change makes the change, in which the listeners find the mark.
	change func(ctx context.Context, mark string) error
	tally  tally
}

// tally is what fan-outs took.
type tally struct {
	p50, last []float64 // milliseconds
	cpu       time.Duration
}

// fanOuts measures how long a change of one job takes to reach many listeners, beside a publication of the same size by
// Centrifugo. A round in which a listener was sent away or told nothing is repeated, twice at most.
func (b *bench) fanOuts(ctx context.Context) error {
	for round := range b.rounds {
		b.say("fan-out to %d, round %d of %d", fanOut, round+1, b.rounds)
		failed := 0
		for err := b.fanOutRound(ctx); err != nil; err = b.fanOutRound(ctx) {
			if failed++; failed == fanOutTries || ctx.Err() != nil {
				return err
			}
			b.say("THE ROUND IS REPEATED: %v", err)
		}
		b.results.add("socket_fanout_failed", float64(failed))
	}
	if b.buildPeer(ctx) {
		b.results.ratio("socket_fanout_vs_centrifugo", "socket_fanout_progress_max_ms", "centrifugo_fanout_max_ms")
	}
	return nil
}

// fanOutRound connects the listeners of all contestants, which then take turns. The job is cancelled at the end.
func (b *bench) fanOutRound(ctx context.Context) error {
	defer b.stopChildren()
	function, calls, stop, err := serveCalls(ctx)
	if err != nil {
		return err
	}
	defer stop()
	s, err := b.startPush(ctx, "http://"+function, 1)
	if err != nil {
		return err
	}
	url := "http://" + s.gateways[0].addr
	if _, err := b.startDispatcher(s.nats, "WEIR_CALLBACK_URL="+url); err != nil {
		return err
	}
	var nodes []server
	if b.buildPeer(ctx) {
		if nodes, err = b.startCentrifugo(ctx, s.nats); err != nil {
			return err
		}
	}
	ls, err := b.startListeners(ctx)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	job, err := submit(ctx, client, url)
	if err != nil {
		return err
	}
	var callback string
	select {
	case callback = <-calls:
	case <-time.After(readyTimeout):
		return errors.New("the function was not called in time")
	}

	report := func(ctx context.Context, mark string) error {
		status, _, text, err := do(ctx, client, http.MethodPost, callback+"?status=running", `{"percent":50,"message":"`+mark+`"}`, "")
		if err != nil || status != http.StatusNoContent {
			return fmt.Errorf("report: %d, %w: %s", status, err, text)
		}
		return nil
	}
	const first = "progress-00"
	if err := report(ctx, first); err != nil {
		return err
	}
	_, _, document, err := do(ctx, client, http.MethodGet, url+job, "", "")
	if err != nil || !strings.Contains(document, first) {
		return fmt.Errorf("the job has no progress, %w: %s", err, document)
	}
	contestants := []*contestant{{figure: "socket_fanout_progress", what: "a progress report", group: "weir", servers: s.realtimes, change: report}}
	if nodes != nil {
		contestants = append(contestants, &contestant{
			figure: "centrifugo_fanout", what: "a publication by Centrifugo", group: "centrifugo", servers: nodes,
			change: func(ctx context.Context, mark string) error { // the same document
				return publish(ctx, client, nodes[0].addr, "job", bytes.Replace([]byte(document), []byte(first), []byte(mark), 1))
			},
		})
	}
	for _, c := range contestants {
		err := ls.open(ctx, func(i int) opening {
			o := opening{Kind: kindSocket, Group: c.group, N: part(fanOut, len(ls.addrs), i), At: c.servers[i].addr, Path: job}
			if c.group == "centrifugo" {
				o.Kind, o.Path = kindCentrifugo, "job"
			}
			return o
		})
		if err != nil {
			return err
		}
	}
	wait(ctx, settle)
	others := b.watchOthers()
	for turn := range 1 + fanOutTurns { // the first warms up
		for _, c := range contestants {
			if err := c.fanOut(ctx, ls, fmt.Sprintf("progress-%02d", turn+1)); err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
			if turn == 0 {
				c.tally = tally{}
			}
			wait(ctx, fanOutRest)
		}
		slices.Reverse(contestants)
	}
	final := &contestant{
		figure: "socket_fanout", what: "a final state", group: "weir", servers: s.realtimes,
		change: func(ctx context.Context, _ string) error {
			status, _, text, err := do(ctx, client, http.MethodDelete, url+job, "", "")
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("cancellation: %d, %w: %s", status, err, text)
			}
			return nil
		},
	}
	if err := final.fanOut(ctx, ls, cancelledText); err != nil {
		return err
	}
	crowd := b.crowd(others())
	for _, c := range append(contestants, final) {
		n := len(c.tally.last)
		p50, last, cpu := median(c.tally.p50), median(c.tally.last), float64(c.tally.cpu.Microseconds())/float64(n*fanOut)
		b.results.add(c.figure+"_p50_ms", p50)
		b.results.add(c.figure+"_max_ms", last)
		b.results.add(c.figure+"_cpu_us", cpu)
		fmt.Printf("    %s: p50 %.0f ms, the last after %.0f ms, %.0f µs of CPU each%s\n", c.what, p50, last, cpu, crowd)
	}
	return nil
}

// fanOut makes a change and measures until each listener has been told. Both processes' clock is the machine's.
func (c *contestant) fanOut(ctx context.Context, ls *listeners, mark string) error {
	if err := ls.expect(ctx, c.group, mark); err != nil {
		return err
	}
	pids := pidsOf(c.servers)
	cpu, start := cpuTime(pids...), time.Now().UnixNano()
	if err := c.change(ctx, mark); err != nil {
		return err
	}
	at, err := ls.seen(ctx, c.group)
	if err != nil {
		return err
	}
	c.tally.cpu += cpuTime(pids...) - cpu
	slices.Sort(at)
	ms := func(ns int64) float64 { return float64(ns-start) / 1e6 }
	c.tally.p50 = append(c.tally.p50, ms(at[(len(at)-1)/2]))
	c.tally.last = append(c.tally.last, ms(at[len(at)-1]))
	return nil
}

// serveCalls is a function that goes on after its answer: calls are the addresses for its reports.
func serveCalls(ctx context.Context) (addr string, calls <-chan string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, nil, err
	}
	reports := make(chan string, 1)
	srv := &http.Server{ReadHeaderTimeout: readyTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case reports <- r.Header.Get("Weir-Callback"):
			w.WriteHeader(http.StatusAccepted)
		default: // there is only one job
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l) // until it is closed
	}()
	return l.Addr().String(), reports, func() {
		_ = srv.Close()
		<-served
	}, nil
}
