#!/usr/bin/env bash
# A pull request to a JetStream consumer may bound both the messages that it brings (batch) and their bytes (max_bytes). When the batch
# is complete and bytes are left, the server says so by a status, "409 Batch Completed". Expected is that it comes behind the last message,
# as all that a consumer sends comes in order:
#
#   github.com/nats-io/nats-server/v2 v2.15.2, github.com/nats-io/nats.go v1.55.0
#
# of a consumer with one replica it does. Of one with three, the server holds a message back until its delivery is replicated, and the
# status not: it overtakes the last message. A client that takes the status for the end of the pull, as Consumer.Fetch of nats.go does
# with FetchMaxBytes, has unsubscribed when the message comes. It is delivered again after AckWait, which is a counted delivery and
# counts against MaxDeliver; the error, "batch completed", is the batch's. Pulls of one message bring none at all.
#
# So who reads a replicated consumer bounds pulls by messages alone.
#
# Installs both in a temporary folder, runs three servers, reads ten messages one by one from a consumer of each kind, and fails if
# what comes has changed. Needs Go.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.25.0

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
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

const messages = 10

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
	var servers []*server.Server
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: filepath.Join(os.Args[1], fmt.Sprint(i)),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}, Routes: routes, NoLog: true, NoSigs: true,
		})
		must(err)
		s.Start()
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(30 * time.Second) {
			must(fmt.Errorf("a server does not start"))
		}
	}
	nc, err := nats.Connect(servers[0].ClientURL())
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, replicas := range []int{1, 3} {
		name := fmt.Sprint("R", replicas)
		for {
			try, done := context.WithTimeout(ctx, 2*time.Second)
			_, err := js.CreateStream(try, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: replicas})
			done()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				must(err)
			}
			time.Sleep(200 * time.Millisecond) // the cluster has no leader yet
		}
		consumer, err := js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour})
		must(err)
		for range messages {
			_, err := js.Publish(ctx, name, []byte("text"))
			must(err)
		}
		for _, bounded := range []bool{false, true} {
			came := 0
			for range messages / 2 {
				opts := []jetstream.FetchOpt{jetstream.FetchMaxWait(5 * time.Second)}
				if bounded {
					opts = append(opts, jetstream.FetchMaxBytes(1<<20))
				}
				batch, err := consumer.Fetch(1, opts...)
				must(err)
				for m := range batch.Messages() {
					came++
					must(m.Ack())
				}
			}
			fmt.Printf("replicas %d, max_bytes %t: %d of %d\n", replicas, bounded, came, messages/2)
		}
	}
	nc.Close()
	for _, s := range servers {
		s.Shutdown()
		s.WaitForShutdown()
	}
}
GO
cd "$dir"
go mod tidy >/dev/null 2>&1
go build -o try .
./try "$dir/store" | tee out.txt

came() { sed -n "s/^replicas $1, max_bytes $2: \([0-9]*\) of 5$/\1/p" out.txt; }
if [ "$(came 1 false)" = 5 ] && [ "$(came 1 true)" = 5 ] && [ "$(came 3 false)" = 5 ] && [ "$(came 3 true)" -lt 5 ]; then
	echo "as before: with max_bytes messages of a replicated consumer don't come"
else
	echo "CHANGED"
	exit 1
fi
