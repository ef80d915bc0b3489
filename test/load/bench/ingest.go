package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
)

const warmUp = time.Second

// variant is a way to answer POST /orders.
type variant struct {
	name  string // in the figures' names
	conns []int
	// start returns the address and the processes whose CPU is counted, by name; dir is NATS's.
	start func(context.Context, *bench) (addr, dir string, pids map[string]int, err error)
}

func ingestVariants() []variant {
	both := []int{64, 256}
	return []variant{
		{"null", both, func(ctx context.Context, b *bench) (string, string, map[string]int, error) {
			c, addr, err := b.self(ctx, "null", "null")
			if err != nil {
				return "", "", nil, err
			}
			return addr, "", map[string]int{"null": c.pid()}, nil
		}},
		{"publish_each", both, func(ctx context.Context, b *bench) (string, string, map[string]int, error) {
			dir := b.folder("nats")
			server, url, err := b.startNATS(ctx, dir)
			if err != nil {
				return "", "", nil, err
			}
			c, addr, err := b.self(ctx, "publish-each", "publish-each", url)
			if err != nil {
				return "", "", nil, err
			}
			return addr, dir, map[string]int{"publish_each": c.pid(), "nats": server.pid()}, nil
		}},
		{"ingest", both, gatewayWith("zstd")},
		{"ingest_s2", both[1:], gatewayWith("s2")},
		{"ingest_none", both[1:], gatewayWith("none")},
	}
}

// gatewayWith is the gateway and NATS, each in its process, and nobody who takes from the queue.
func gatewayWith(compression string) func(context.Context, *bench) (string, string, map[string]int, error) {
	return func(ctx context.Context, b *bench) (string, string, map[string]int, error) {
		dir := b.folder("nats")
		server, url, err := b.startNATS(ctx, dir)
		if err != nil {
			return "", "", nil, err
		}
		cat, err := b.catalogOf("http://127.0.0.1:1")
		if err != nil {
			return "", "", nil, err
		}
		if err := provision(ctx, url, withoutMappings(cat)); err != nil {
			return "", "", nil, err
		}
		gateway, addr, err := b.startGateway(ctx, url, compression)
		if err != nil {
			return "", "", nil, err
		}
		return addr, dir, map[string]int{"gateway": gateway.pid(), "nats": server.pid()}, nil
	}
}

// ingest measures the variants in turn, in one order and the other.
func (b *bench) ingest(ctx context.Context) error {
	variants := ingestVariants()
	for round := range b.rounds {
		b.say("ingest, round %d of %d", round+1, b.rounds)
		for _, v := range variants {
			if err := b.measure(ctx, v); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		slices.Reverse(variants)
	}
	r := b.results
	for _, conns := range []string{"256", "64"} {
		r.ratio("ingest_vs_null_"+conns, "ingest_per_s_"+conns, "null_per_s_"+conns)
		r.ratio("ingest_vs_publish_each_"+conns, "ingest_per_s_"+conns, "publish_each_per_s_"+conns)
	}
	r.copy("ingest_zstd_per_s_256", "ingest_per_s_256")
	r.copy("ingest_zstd_bytes_per_record", "ingest_bytes_per_record")
	r.ratio("ingest_zstd_vs_none_256", "ingest_per_s_256", "ingest_none_per_s_256")
	r.ratio("ingest_s2_vs_none_256", "ingest_s2_per_s_256", "ingest_none_per_s_256")
	return nil
}

// measure starts a variant anew, so that none bears what an earlier one left, and runs its loads.
func (b *bench) measure(ctx context.Context, v variant) error {
	defer b.stopChildren()
	addr, dir, pids, err := v.start(ctx, b)
	if err != nil {
		return err
	}
	for _, conns := range v.conns {
		if err := b.measureLoad(ctx, v, addr, dir, pids, conns); err != nil {
			return err
		}
	}
	b.stopChildren()
	if dir != "" {
		return os.RemoveAll(dir)
	}
	return nil
}

//nolint:revive // five parameters and a context: what a variant's start returned
func (b *bench) measureLoad(ctx context.Context, v variant, addr, dir string, pids map[string]int, conns int) error {
	cpu, busy := map[string]time.Duration{}, time.Duration(0)
	l := load{addr: addr, conns: conns, orders: b.orders, warm: warmUp, window: b.window}
	l.onWindow = func(begin bool) {
		sign := time.Duration(1)
		if begin {
			sign = -1
			if v.name == "ingest" || v.name == "null" {
				for name, pid := range pids {
					b.perf(fmt.Sprintf("%s-%d", name, conns), b.window, pid)
				}
			}
		}
		busy += sign * machineCPU()
		for name, pid := range pids {
			cpu[name] += sign * cpuTime(pid)
		}
		cpu["client"] += sign * ownCPU()
	}
	before := int64(0)
	var err error
	if dir != "" {
		if before, err = folderBytes(dir); err != nil {
			return err
		}
	}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	if res.accepted == 0 || len(res.statuses) > 1 {
		return fmt.Errorf("the answers were not all 202: %v", res.statuses)
	}
	r, suffix := b.results, fmt.Sprintf("_%d", conns)
	r.add(v.name+"_per_s"+suffix, res.perSecond())
	r.add(v.name+"_p50_ms"+suffix, res.ms(50))
	r.add(v.name+"_p99_ms"+suffix, res.ms(99))
	if v.name == "ingest" || v.name == "null" {
		for name, d := range cpu {
			key := "cpu_us_per_request_" + name + suffix
			if v.name == "null" && name == "client" {
				key = "cpu_us_per_request_null_client" + suffix
			}
			r.add(key, float64(d.Microseconds())/float64(res.accepted))
		}
	}
	for _, d := range cpu {
		busy -= d
	}
	others := max(0, busy.Seconds()/b.window.Seconds()/float64(runtime.NumCPU()))
	r.add("others_cpu_share", others)
	line := fmt.Sprintf("    %-13s %3d connections: %7.0f/s  p50 %6.2f ms  p99 %6.2f ms", v.name, conns, res.perSecond(), res.ms(50), res.ms(99))
	if dir != "" && v.name != "publish_each" {
		after, err := folderBytes(dir)
		if err != nil {
			return err
		}
		perRecord := float64(after-before) / float64(res.stored)
		line += fmt.Sprintf("  %4.0f bytes an order", perRecord)
		if conns == 256 {
			r.add(v.name+"_bytes_per_record", perRecord)
		}
	}
	if others > othersShare {
		line += fmt.Sprintf("  (others took %.0f %% of the CPU)", 100*others)
	}
	fmt.Println(line)
	return nil
}

// othersShare of the machine's CPU taken by processes that are not the bench's makes a measurement doubtful.
const othersShare = 0.08

// ownCPU is the user and system time of this process, the load generator.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
