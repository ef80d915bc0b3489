package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	catalogAPIs   = 10
	catalogRoutes = 1000 // of each
	catalogSchema = 2 << 10
)

// largeCatalog is 10,000 routes, each with a schema of 2 KiB of its own.
func largeCatalog() *catalog.Catalog {
	queue := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	cat := &catalog.Catalog{Queues: []catalog.Queue{queue}}
	for a := range catalogAPIs {
		api := catalog.API{Key: catalog.Key{Namespace: "default", Name: fmt.Sprint("api-", a)}}
		for r := range catalogRoutes {
			api.Routes = append(api.Routes, catalog.Route{
				Name: fmt.Sprint("route-", r), Method: http.MethodPost, Path: fmt.Sprintf("/api-%d/things-%d/{id}", a, r), MaxBodyBytes: 1000,
				Schema: largeSchema(a*catalogRoutes + r), Queue: &catalog.QueueTarget{Queue: queue.Key},
			})
		}
		cat.APIs = append(cat.APIs, api)
	}
	return cat
}

func largeSchema(n int) json.RawMessage {
	var b strings.Builder
	fmt.Fprintf(&b, `{"type":"object","required":["p%d"],"properties":{`, n)
	for i := 0; b.Len() < catalogSchema-80; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"p%d":{"type":"string","maxLength":%d}`, n+i, 10+i)
	}
	b.WriteString(`}}`)
	return json.RawMessage(b.String())
}

// catalog measures how soon a change of one of many routes is in use, and what many routes cost the gateway.
func (b *bench) catalog(ctx context.Context) error {
	_, url, err := b.startNATS(ctx, b.folder("nats"))
	if err != nil {
		return err
	}
	cat := largeCatalog()
	start := time.Now()
	if err := provision(ctx, url, cat); err != nil {
		return err
	}
	b.results.add("catalog_publish_s_10000", time.Since(start).Seconds())
	start = time.Now()
	gateway, addr, err := b.startGateway(ctx, url)
	if err != nil {
		return err
	}
	b.results.add("catalog_start_s_10000", time.Since(start).Seconds())
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	for range max(b.rounds, 3) {
		took, err := b.changeRoute(ctx, conn, cat, addr)
		if err != nil {
			return err
		}
		b.results.add("catalog_change_ms_10000", float64(took.Microseconds())/1000)
	}
	mib, err := residentMemory(gateway.PID())
	if err != nil {
		return err
	}
	b.results.add("catalog_gateway_mib_10000", mib)
	return nil
}

// changeRoute gives one route another schema, and returns the time from the beginning of its publication to the first
// request that is served by it.
func (b *bench) changeRoute(ctx context.Context, conn *stream.Conn, cat *catalog.Catalog, addr string) (time.Duration, error) {
	former, err := conn.Catalog(ctx)
	if err != nil {
		return 0, err
	}
	api, n := &cat.APIs[catalogAPIs/2], catalogRoutes/2
	api.Routes = slices.Clone(api.Routes)
	name := fmt.Sprintf("q%d", time.Now().UnixNano())
	api.Routes[n].Schema = json.RawMessage(fmt.Sprintf(`{"type":"object","required":[%q]}`, name))
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	start := time.Now()
	if err := conn.PublishCatalog(ctx, cat, 1, former); err != nil {
		return 0, err
	}
	body := fmt.Appendf(nil, `{%q:1}`, name)
	url := fmt.Sprintf("http://%s/api-%d/things-%d/1", addr, catalogAPIs/2, n)
	for {
		status, text := get(ctx, http.MethodPost, url, "application/json", body)
		switch {
		case status == http.StatusAccepted:
			return time.Since(start), nil
		case status != http.StatusBadRequest:
			return 0, fmt.Errorf("%s: %d %s", url, status, text)
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
	}
}
