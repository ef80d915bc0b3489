package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
)

// memory measures the peak resident memory of `weir local` while its queue grows and its function, whose database is
// unavailable, takes nothing.
func (b *bench) memory(ctx context.Context) error {
	addr, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	admin, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	nowhere, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	url := "postgres://weir:weir@" + nowhere + "/weir?sslmode=disable"
	secrets, err := b.secrets(url, url)
	if err != nil {
		return err
	}
	c, err := b.start("weir-local", filepath.Join(b.bin, "weir"), []string{
		"local", "-f", filepath.Join(b.root, "deploy", "k8s", "orders"), "--listen", addr, "--admin", admin, "--data", b.folder("nats"), "--secrets", secrets,
	}, nil)
	if err != nil {
		return err
	}
	if err := c.answers(ctx, "http://"+admin+"/readyz"); err != nil {
		return err
	}
	l := load{addr: addr, conns: maxConns, orders: b.orders, total: b.memoryOrders}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	peak, err := peakMemory(c.PID())
	if err != nil {
		return fmt.Errorf("peak memory: %w", err)
	}
	b.results.add("memory_peak_mib", peak)
	b.results.add("memory_orders", float64(res.stored))
	b.results.add("memory_ingest_per_s", res.perSecond())
	b.results.add("memory_ingest_p99_ms", res.ms(99))
	fmt.Printf("    %d orders at %.0f/s, p99 %.1f ms: peak %.0f MiB; statuses %v\n", res.stored, res.perSecond(), res.ms(99), peak, res.statuses)
	if status, body := get(ctx, http.MethodGet, "http://"+admin+"/healthz", "", nil); status != http.StatusOK {
		return fmt.Errorf("it is not well afterwards: %d %s", status, body)
	}
	return nil
}
