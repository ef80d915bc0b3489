package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	idleSockets   = 20_000
	fanOut        = 10_000
	dialsAtOnce   = 64
	settle        = 5 * time.Second // what dialling left behind is collected
	doneState     = `"status":"succeeded"`
	cancelledText = `"status":"cancelled"`
)

// socket measures push to clients: how much later than its function is done they have the result, how many idle
// WebSockets a GiB of realtime's memory holds, and how long one state takes to reach many.
func (b *bench) socket(ctx context.Context) error {
	err := b.delivery(ctx, "sse", "Server-Sent Events", func(ctx context.Context, client *http.Client, url, location string) error {
		status, _, text, err := do(ctx, client, http.MethodGet, url+location+"/events", "", "") // it ends with the job
		if err != nil || status != http.StatusOK || !strings.Contains(text, doneState) {
			return fmt.Errorf("events: %d, %w: %s", status, err, text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = b.delivery(ctx, "socket", "WebSocket", func(ctx context.Context, client *http.Client, url, location string) error {
		conn, err := dial(ctx, client, url+location+"/socket")
		if err != nil {
			return err
		}
		defer func() { _ = conn.CloseNow() }()
		return readUntil(ctx, conn, doneState)
	})
	if err != nil {
		return err
	}
	return b.idle(ctx)
}

func dial(ctx context.Context, client *http.Client, url string) (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client}) //nolint:bodyclose // there is none
	return conn, err
}

func readUntil(ctx context.Context, conn *websocket.Conn, text string) error {
	for {
		_, data, err := conn.Read(ctx)
		if err != nil || strings.Contains(string(data), text) {
			return err
		}
	}
}

// idle opens WebSockets, half of them on one job here, half on jobs of their own in another process, at two instances of
// realtime: a process may not open as many files. Then it cancels the one job.
func (b *bench) idle(ctx context.Context) error {
	defer b.stopChildren()
	t, err := b.startJobStack(ctx, b.folder("nats"), "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	other, push, err := b.startRealtime(ctx, t.nats)
	if err != nil {
		return err
	}
	memory := func() (float64, error) {
		one, err := residentMemory(t.pids["realtime"])
		two, oerr := residentMemory(other.PID())
		return one + two, errors.Join(err, oerr)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	url := "http://" + t.addr
	common, err := submit(ctx, client, url)
	if err != nil {
		return err
	}
	empty, err := memory()
	if err != nil {
		return err
	}
	b.say("%d sockets", idleSockets)
	conns, err := listen(ctx, fanOut, "http://"+t.push, client, func() (string, error) { return common, nil })
	defer hangUp(conns)
	if err != nil {
		return err
	}
	if _, line, err := b.self(ctx, "listen", "listen", url, "http://"+push, strconv.Itoa(idleSockets-fanOut)); err != nil {
		return err
	} else if line != strconv.Itoa(idleSockets-fanOut) {
		return fmt.Errorf("the other clients have %s sockets", line)
	}
	wait(ctx, settle)
	full, err := memory()
	if err != nil {
		return err
	}
	b.results.add("socket_connections", idleSockets)
	b.results.add("socket_memory_mib", full)
	b.results.add("socket_per_gib", idleSockets/(full/1024))
	fmt.Printf("    %d idle WebSockets: two of realtime %.0f MiB (%.0f MiB without any), %.1f KiB each; %.0f a GiB\n",
		idleSockets, full, empty, (full-empty)*1024/idleSockets, idleSockets/(full/1024))
	return b.fanOut(ctx, client, url+common, conns)
}

// listen opens n WebSockets at realtime, each on the job that next names, and reads the current state.
func listen(ctx context.Context, n int, push string, client *http.Client, next func() (string, error)) ([]*websocket.Conn, error) {
	conns := make([]*websocket.Conn, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, dialsAtOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			path, err := next()
			if err == nil {
				conns[i], err = dial(ctx, client, push+path+"/socket")
			}
			if err == nil {
				_, _, err = conns[i].Read(ctx)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return conns, errors.Join(errs...)
}

func hangUp(conns []*websocket.Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.CloseNow()
		}
	}
}

// fanOut cancels the job that all conns listen to, and measures until each has received it.
func (b *bench) fanOut(ctx context.Context, client *http.Client, job string, conns []*websocket.Conn) error {
	at := make([]time.Time, len(conns))
	errs := make([]error, len(conns))
	var reading, wg sync.WaitGroup
	for i, c := range conns {
		reading.Add(1)
		wg.Go(func() {
			reading.Done()
			errs[i] = readUntil(ctx, c, cancelledText)
			at[i] = time.Now()
		})
	}
	reading.Wait()
	start := time.Now()
	status, _, _, err := do(ctx, client, http.MethodDelete, job, "", "")
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("cancellation: %d, %w", status, err)
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.SortFunc(at, time.Time.Compare)
	ms := func(q float64) float64 {
		return float64(at[int(q*float64(len(at)-1))].Sub(start).Microseconds()) / 1000
	}
	b.results.add("socket_fanout_p50_ms", ms(0.5))
	b.results.add("socket_fanout_max_ms", ms(1))
	fmt.Printf("    a cancellation reaches %d of them: p50 %.0f ms, the last after %.0f ms\n", len(conns), ms(0.5), ms(1))
	return nil
}

// residentMemory is the resident set of a process in MiB (VmRSS).
func residentMemory(pid int) (float64, error) { return memoryOf(pid, "VmRSS:") }
