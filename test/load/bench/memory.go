package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// memory measures the peak resident memory of `weir local` while its queue grows and its function, whose database is
// unavailable, takes nothing.
func (b *bench) memory(ctx context.Context) error {
	nowhere, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	url := "postgres://weir:weir@" + nowhere + "/weir?sslmode=disable"
	secrets, err := b.secrets(url, url)
	if err != nil {
		return err
	}
	c, addr, admin, err := b.startLocal(ctx, readyTimeout, filepath.Join(b.root, "deploy", "k8s", "orders"), nil, "--data", b.folder("nats"), "--secrets", secrets)
	if err != nil {
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

// startLocal starts `weir local` with a folder of YAML, and waits until it is ready. It returns the addresses of its gateway and
// of its probes.
func (b *bench) startLocal(ctx context.Context, within time.Duration, folder string, env []string, args ...string) (c *child, addr, admin string, err error) {
	if addr, err = freeAddress(ctx); err != nil {
		return nil, "", "", err
	}
	if admin, err = freeAddress(ctx); err != nil {
		return nil, "", "", err
	}
	c, err = b.start("weir-local", filepath.Join(b.bin, "weir"), append([]string{"local", "-f", folder, "--listen", addr, "--admin", admin}, args...), env)
	if err != nil {
		return nil, "", "", err
	}
	return c, addr, admin, c.answersIn(ctx, within, "http://"+admin+"/readyz")
}
