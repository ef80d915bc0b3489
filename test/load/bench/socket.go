package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

const doneState = `"status":"succeeded"`

// socket measures push to clients: how much later than its function is done they have the result, how many idle
// connections a GiB of the servers' memory holds, and how long one state takes to reach many.
func (b *bench) socket(ctx context.Context) error {
	err := b.delivery(ctx, jobLoop{"sse", "Server-Sent Events", jobRate, jobConcurrency, func(ctx context.Context, client *http.Client, url, location string) error {
		status, _, text, err := do(ctx, client, http.MethodGet, url+location+"/events", "", "") // it ends with the job
		if err != nil || status != http.StatusOK || !strings.Contains(text, doneState) {
			return fmt.Errorf("events: %d, %w: %s", status, err, text)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	err = b.delivery(ctx, jobLoop{"socket", "WebSocket", jobRate, jobConcurrency, func(ctx context.Context, client *http.Client, url, location string) error {
		conn, err := dial(ctx, client, url+location+"/socket")
		if err != nil {
			return err
		}
		defer func() { _ = conn.CloseNow() }()
		return readUntil(ctx, conn, doneState)
	}})
	if err != nil {
		return err
	}
	if err := b.idleConnections(ctx); err != nil {
		return err
	}
	return b.fanOuts(ctx)
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
