#!/usr/bin/env bash
# /healthz of a NATS server without a parameter is meant for start-up probes: "ok" once all streams and consumers that the server should
# have are there and have caught up, so that a rolling update goes on to the next one:
#
#   github.com/nats-io/nats-server/v2 v2.15.2
#
# of a server that comes back with an empty disk it says so before, once, a second or two after its start. What it looks through are
# the streams of which it knows, and it calls itself current a moment before it begins with the cluster's snapshot, from which it
# learns them: that 200 comes while it has none of the streams, and may be the first. The answers after it are 503 until
# all is there, but a start-up probe is done with its first success. On a quiet machine the moment lasts under a millisecond, on a busy one
# longer; one start in six or so shows it to somebody who asks without a pause. Who then takes the next server down, as a rolling update
# does, leaves the only full copy with an empty one that votes.
#
# So a start-up probe of servers whose disks may be replaced begins some seconds late, or something counts what is there.
#
# Installs it in a temporary folder, gives one of three servers an empty disk, up to 60 times, and fails if its first 200 never comes
# before it has all. Needs Go; takes half a minute to five.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.26.0

require (
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
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const streams, messages, rounds = 60, 20, 60

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// until asks again until f is true.
func until(what string, every time.Duration, f func() bool) {
	for end := time.Now().Add(90 * time.Second); !f(); time.Sleep(every) {
		if time.Now().After(end) {
			must(fmt.Errorf("in vain: %s", what))
		}
	}
}

// holds is how many streams and messages a server has itself.
func holds(s *server.Server) (found int, n uint64) {
	info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	must(err)
	for _, a := range info.AccountDetails {
		for _, st := range a.Streams {
			found++
			n += st.State.Msgs
		}
	}
	return found, n
}

// healthy asks as a start-up probe does.
func healthy(s *server.Server) bool {
	r, err := http.Get(fmt.Sprintf("http://%s/healthz", s.MonitorAddr()))
	must(err)
	must(r.Body.Close())
	return r.StatusCode == http.StatusOK
}

func main() {
	var ports []int
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
		must(l.Close())
	}
	folder := func(i int) string { return filepath.Join(os.Args[1], fmt.Sprint(i)) }
	start := func(i int) *server.Server {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: -1, HTTPHost: "127.0.0.1", HTTPPort: -1, JetStream: true, StoreDir: folder(i),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}, Routes: routes, NoLog: true, NoSigs: true,
		})
		must(err)
		s.Start()
		if !s.ReadyForConnections(30 * time.Second) {
			must(fmt.Errorf("a server does not start"))
		}
		return s
	}
	stop := func(s *server.Server) {
		s.Shutdown()
		s.WaitForShutdown()
	}
	servers := []*server.Server{start(0), start(1), start(2)}
	until("the cluster has a leader", 100*time.Millisecond, func() bool { return healthy(servers[0]) })
	nc, err := nats.Connect(servers[0].ClientURL())
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	ctx := context.Background()
	for i := range streams {
		name := fmt.Sprint("S", i)
		until("stream "+name, 100*time.Millisecond, func() bool {
			try, done := context.WithTimeout(ctx, 5*time.Second)
			defer done()
			_, err := js.CreateStream(try, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: 3})
			return err == nil
		})
		for range messages {
			_, err := js.Publish(ctx, name, []byte("text"), jetstream.WithRetryAttempts(20))
			must(err)
		}
	}
	nc.Close()
	full := func() bool {
		found, n := holds(servers[2])
		return found == streams && n == streams*messages
	}
	until("all have all", 100*time.Millisecond, full)
	// As for an upgrade: now the cluster has a snapshot of what its streams are.
	for _, s := range servers {
		stop(s)
	}
	servers = []*server.Server{start(0), start(1), start(2)}
	until("all have all", 100*time.Millisecond, func() bool { return full() && healthy(servers[0]) && healthy(servers[1]) && healthy(servers[2]) })
	for round := range rounds {
		stop(servers[2])
		must(os.RemoveAll(folder(2)))
		servers[2] = start(2)
		until("it is healthy", 0, func() bool { return healthy(servers[2]) })
		found, n := holds(servers[2])
		fmt.Printf("start %d: at its first 200 the new disk has %d of %d streams, %d of %d messages\n", round+1, found, streams, n, streams*messages)
		if found < streams || n < streams*messages {
			fmt.Println("the next answer is 200:", healthy(servers[2]))
			break
		}
		until("all have all", 100*time.Millisecond, full)
	}
	for _, s := range servers {
		stop(s)
	}
}
GO
cd "$dir"
go mod tidy >/dev/null 2>&1
go build -o try .
./try "$dir/store" | tee out.txt

if grep -q 'the new disk has 0 of 60 streams' out.txt && grep -q 'the next answer is 200: false' out.txt; then
	echo "as before: an empty replica says for a moment that it is healthy"
else
	echo "CHANGED"
	exit 1
fi
