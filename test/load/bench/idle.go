package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	idleConns    = 20_000
	idleGateways = 3               // a gateway has two files for each connection
	settle       = 5 * time.Second // what dialling left behind is collected
)

// idleVariant is one way to be connected.
type idleVariant struct {
	perGiB, memory string // figures
	what, kind     string
	gateways       int // in front of realtime; 0 means that clients connect to realtime itself
}

// idleConnections measures the memory of the servers of many idle connections.
func (b *bench) idleConnections(ctx context.Context) error {
	variants := []idleVariant{
		{"socket_per_gib", "socket_memory_mib", "WebSockets at realtime", kindSocket, 0},
		{"socket_per_gib_gateway", "socket_memory_gateway_mib", "WebSockets through the gateway", kindSocket, idleGateways},
		{"sse_per_gib_gateway", "sse_memory_gateway_mib", "streams of events through the gateway", kindEvents, idleGateways},
		{"centrifugo_per_gib", "centrifugo_memory_mib", "WebSockets at Centrifugo", kindCentrifugo, 0},
	}
	for _, v := range variants {
		if v.kind == kindCentrifugo && !b.buildPeer(ctx) {
			continue
		}
		if err := b.idle(ctx, v); err != nil {
			return fmt.Errorf("%s: %w", v.what, err)
		}
	}
	b.results.add("socket_connections", idleConns)
	return nil
}

// idle opens idleConns connections, spread over the servers and over two processes of clients, and adds up the memory.
func (b *bench) idle(ctx context.Context, v idleVariant) error {
	defer b.stopChildren()
	b.say("%d idle %s", idleConns, v.what)
	s, err := b.startPush(ctx, "http://127.0.0.1:1", max(1, v.gateways))
	if err != nil {
		return err
	}
	at, counted := s.realtimes, s.realtimes
	switch {
	case v.kind == kindCentrifugo:
		if at, err = b.startCentrifugo(ctx, s.nats); err != nil {
			return err
		}
		counted = at
	case v.gateways > 0:
		at, counted = s.gateways, append(s.gateways, s.realtimes...)
	}
	ls, err := b.startListeners(ctx)
	if err != nil {
		return err
	}
	empty, err := residentMemory(pidsOf(counted)...)
	if err != nil {
		return err
	}
	for n, server := range at {
		submit := s.gateways[n%len(s.gateways)].addr
		share := part(idleConns, len(at), n)
		err := ls.open(ctx, func(i int) opening {
			return opening{
				Kind: v.kind, Group: "idle", N: part(share, len(ls.addrs), i), At: server.addr,
				Submit: "http://" + submit, Name: strconv.Itoa(n) + "-" + strconv.Itoa(i),
			}
		})
		if err != nil {
			return err
		}
	}
	wait(ctx, settle)
	full, err := residentMemory(pidsOf(counted)...)
	if err != nil {
		return err
	}
	if err := ls.allOpen(ctx, "idle", idleConns); err != nil {
		return err
	}
	b.results.add(v.memory, full)
	b.results.add(v.perGiB, idleConns/(full/1024))
	fmt.Printf("    %d processes %.0f MiB (%.0f MiB without connections), %.1f KiB each; %.0f a GiB\n",
		len(counted), full, empty, (full-empty)*1024/idleConns, idleConns/(full/1024))
	return nil
}

// part is the size of the nth of so many parts of total.
func part(total, parts, n int) int { return total*(n+1)/parts - total*n/parts }

// server is a process and the address that it serves.
type server struct {
	*child
	addr string
}

// pushStack is what serves clients that listen.
type pushStack struct {
	nats                string
	realtimes, gateways []server
}

// startPush starts NATS, two of realtime, and gateways, each in front of one of these.
func (b *bench) startPush(ctx context.Context, function string, gateways int) (*pushStack, error) {
	_, url, err := b.startJobNATS(ctx, b.own(), b.folder("nats"), function, jobConcurrency)
	if err != nil {
		return nil, err
	}
	s := &pushStack{nats: url}
	for range 2 {
		c, addr, err := b.startRealtime(ctx, b.own(), url)
		if err != nil {
			return nil, err
		}
		s.realtimes = append(s.realtimes, server{c, addr})
	}
	for i := range gateways {
		c, addr, err := b.startJobGateway(ctx, b.own(), url, s.realtimes[i%len(s.realtimes)].addr)
		if err != nil {
			return nil, err
		}
		s.gateways = append(s.gateways, server{c, addr})
	}
	return s, nil
}

// residentMemory is the resident sets of processes in MiB (VmRSS).
func residentMemory(pids ...int) (sum float64, err error) {
	for _, pid := range pids {
		mib, err := memoryOf(pid, "VmRSS:")
		if err != nil {
			return 0, err
		}
		sum += mib
	}
	return sum, nil
}

func pidsOf(servers []server) []int {
	pids := make([]int, len(servers))
	for i, s := range servers {
		pids[i] = s.PID()
	}
	return pids
}
