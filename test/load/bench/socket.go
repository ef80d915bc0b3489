package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

const (
	idleSockets   = 20_000
	fanOut        = 10_000
	dialsAtOnce   = 64
	spareFiles    = 200             // of a process, beside its sockets
	settle        = 5 * time.Second // what dialling left behind is collected
	doneState     = `"status":"succeeded"`
	cancelledText = `"status":"cancelled"`
)

// socket measures clients that are pushed to: how much later than its function is done they have the result, how many
// idle WebSockets a GiB of realtime's memory holds, and how long a state takes to many.
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

// idle opens as many WebSockets as it may, half of them on one job, and cancels that.
func (b *bench) idle(ctx context.Context) error {
	defer b.stopChildren()
	t, err := b.startJobStack(ctx, b.folder("nats"), "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	n := idleSockets
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	if most := int(files.Max) - spareFiles; most < n {
		b.say("a process may open %d files: %d sockets instead of %d", files.Max, most, n)
		n = most
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	url, push := "http://"+t.addr, "http://"+t.push
	common, err := submit(ctx, client, url)
	if err != nil {
		return err
	}
	empty, err := residentMemory(t.pids["realtime"])
	if err != nil {
		return err
	}
	conns := make([]*websocket.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.CloseNow()
			}
		}
	}()
	b.say("%d sockets", n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, dialsAtOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			path, err := common, error(nil)
			if i >= fanOut {
				path, err = submit(ctx, client, url)
			}
			if err == nil {
				conns[i], err = dial(ctx, client, push+path+"/socket")
			}
			if err == nil {
				_, _, err = conns[i].Read(ctx) // the present state
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	wait(ctx, settle)
	full, err := residentMemory(t.pids["realtime"])
	if err != nil {
		return err
	}
	perGiB := float64(n) / (full / 1024)
	b.results.add("socket_connections", float64(n))
	b.results.add("socket_memory_mib", full)
	b.results.add("socket_per_gib", perGiB)
	fmt.Printf("    %d idle WebSockets: realtime %.0f MiB (%.0f MiB without any), %.1f KiB each; %.0f a GiB\n",
		n, full, empty, (full-empty)*1024/float64(n), perGiB)
	return b.fanOut(ctx, client, url+common, conns[:min(fanOut, n)])
}

// fanOut cancels the job that all conns listen to, and measures until each has been told.
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
