#!/usr/bin/env bash
# A backup of a JetStream stream with its consumers says where each consumer is, and a restore to a cluster, with three replicas,
# gives it to all three. Expected is what holds for all else that is replicated: a replica that loses its disk is filled
# from the others and knows it again:
#
#   github.com/nats-io/nats-server/v2 v2.15.2, github.com/nats-io/jsm.go v0.5.1, github.com/nats-io/nats.go v1.55.0
#
# of the messages that is so; of the consumers' positions not always. The restored position reaches the replicas with the consumer's
# assignment, not in the consumer's own Raft log. A snapshot of that, which would hold it, is made after two to three minutes, or when a
# server is stopped, if its stopping leaves the time. Where the servers were restarted, the cluster's own snapshot stands for the
# assignment, without the position. A replica that gets an empty disk before the consumer's snapshot then takes over with a consumer
# that begins at the stream's first message, though all three call themselves healthy and current, and what was acknowledged before the
# backup is delivered again. The consumer's info depends on who leads.
#
# So who restores a stream removes before what its consumers have settled, or acknowledges something and lets some minutes pass before a
# server goes.
#
# Installs them in a temporary folder, restores 16 streams to three servers, restarts those, empties one, waits until it has all messages,
# lets it lead each consumer, and fails if all of them are where they were. Needs Go.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.26.0

require (
	github.com/nats-io/jsm.go v0.5.1
	github.com/nats-io/nats-server/v2 v2.15.2
	github.com/nats-io/nats.go v1.55.0
)
GO
cat >"$dir/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/jsm.go"
	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const streams, messages, settled = 16, 30, 20

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// until asks again until f is true.
func until(what string, f func() bool) {
	for end := time.Now().Add(90 * time.Second); !f(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			must(fmt.Errorf("in vain: %s", what))
		}
	}
}

func start(opts server.Options) *server.Server {
	opts.Host, opts.Port, opts.JetStream, opts.NoLog, opts.NoSigs = "127.0.0.1", -1, true, true, true
	s, err := server.NewServer(&opts)
	must(err)
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		must(fmt.Errorf("a server does not start"))
	}
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// holds is how many messages a server has itself.
func holds(s *server.Server) (n uint64) {
	info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	must(err)
	for _, a := range info.AccountDetails {
		for _, st := range a.Streams {
			n += st.State.Msgs
		}
	}
	return n
}

func name(i int) string { return fmt.Sprint("S", i) }

func main() {
	ctx := context.Background()
	dir := os.Args[1]

	// A single server with streams, whose consumers have settled the first 20 of 30 messages, and a backup of each.
	single := start(server.Options{StoreDir: filepath.Join(dir, "single")})
	nc, err := nats.Connect(single.ClientURL())
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	manager, err := jsm.New(nc)
	must(err)
	var configs []api.StreamConfig
	for i := range streams {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name(i), Subjects: []string{name(i)}})
		must(err)
		for range messages {
			_, err := js.Publish(ctx, name(i), []byte("text"))
			must(err)
		}
		consumer, err := js.CreateConsumer(ctx, name(i), jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy})
		must(err)
		batch, err := consumer.Fetch(settled)
		must(err)
		for m := range batch.Messages() {
			must(m.DoubleAck(ctx))
		}
		s, err := manager.LoadStream(name(i))
		must(err)
		config := s.Configuration()
		config.Replicas = 3
		configs = append(configs, config)
		_, err = s.SnapshotToDirectory(ctx, filepath.Join(dir, "backup", name(i)), jsm.SnapshotConsumers())
		must(err)
	}
	nc.Close()
	stop(single)

	// Three servers, to which they are restored.
	var ports []int
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
		must(l.Close())
	}
	folder := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	member := func(i int) *server.Server {
		return start(server.Options{
			ServerName: fmt.Sprint("s", i), StoreDir: folder(i),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}, Routes: routes,
		})
	}
	servers := []*server.Server{member(0), member(1), member(2)}
	all := func(want uint64) {
		until("all have all", func() bool {
			for _, s := range servers {
				if s.Healthz(nil).Status != "ok" || holds(s) != want {
					return false
				}
			}
			return true
		})
	}
	all(0)
	nc, err = nats.Connect(servers[0].ClientURL())
	must(err)
	manager, err = jsm.New(nc)
	must(err)
	for i := range streams {
		_, _, err := manager.RestoreSnapshotFromDirectory(ctx, name(i), filepath.Join(dir, "backup", name(i)), jsm.RestoreConfiguration(configs[i]))
		must(err)
	}
	nc.Close()
	all(streams * messages)

	// All are stopped and started again, as for an upgrade.
	for _, s := range servers {
		stop(s)
	}
	servers = []*server.Server{member(0), member(1), member(2)}
	all(streams * messages)
	// One gets a new disk, which the others fill.
	stop(servers[2])
	must(os.RemoveAll(folder(2)))
	servers[2] = member(2)
	all(streams * messages)

	nc, err = nats.Connect(servers[0].ClientURL())
	must(err)
	js, err = jetstream.New(nc)
	must(err)
	floors := map[string]int{}
	for i := range streams {
		seen := map[string]bool{}
		until("each has led "+name(i), func() bool {
			c, err := js.Consumer(ctx, name(i), "c")
			if err != nil {
				return false
			}
			info := c.CachedInfo()
			leader := info.Cluster.Leader
			if leader == "" {
				return false
			}
			if !seen[leader] {
				seen[leader] = true
				kind := "others"
				if leader == "s2" {
					kind = "replaced"
				}
				floors[fmt.Sprint(kind, " ", info.AckFloor.Stream)]++
			}
			if seen["s2"] && len(seen) > 1 {
				return true
			}
			_, _ = nc.Request("$JS.API.CONSUMER.LEADER.STEPDOWN."+name(i)+".c", nil, time.Second)
			return false
		})
	}
	for what, n := range floors {
		fmt.Println(what, n)
	}
	nc.Close()
	for _, s := range servers {
		stop(s)
	}
}
GO
cd "$dir"
go mod tidy >/dev/null 2>&1
go build -o try .
./try "$dir/store" | sort | tee out.txt

# Each line: who led, the position that the consumer then had, how many consumers.
if ! grep -q '^others 0 ' out.txt && grep -q '^others 20 ' out.txt && grep -q '^replaced 0 ' out.txt; then
	echo "as before: a restored consumer begins anew where the replica with the new disk leads"
else
	echo "CHANGED"
	exit 1
fi
