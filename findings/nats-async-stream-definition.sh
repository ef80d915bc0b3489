#!/usr/bin/env bash
# persist_mode "async" of a JetStream stream is described as a mode of its messages: they are acknowledged before they are
# on the disk. With sync_interval "always", which makes a server sync everything before it answers, it says more than that:
#
#   github.com/nats-io/nats-server/v2 v2.15.2, github.com/nats-io/nats.go v1.55.0
#
# the definition of such a stream (meta.inf, its checksum and the folder) is not synced either, so the answer to the request
# that creates or changes it is no promise: a power cut soon after takes the stream itself, with its subjects and limits. That of
# a stream with the default mode beside it, on the same server, is written with O_SYNC and its folder is synced.
#
# So who creates one must be ready to find it gone: create it again at each start, and not only when it was not there before.
#
# Installs both in a temporary folder, creates a stream of each mode while strace watches, and fails if what is synced has
# changed. Needs Linux, Go and strace.
set -euo pipefail
command -v strace >/dev/null || { echo "strace is missing"; exit 2; }

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
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: os.Args[1], SyncAlways: true, NoLog: true, NoSigs: true,
	})
	must(err)
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		must(fmt.Errorf("the server does not start"))
	}
	nc, err := nats.Connect(s.ClientURL())
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	for name, mode := range map[string]jetstream.PersistModeType{
		"PLAIN": jetstream.DefaultPersistMode, "LAZY": jetstream.AsyncPersistMode,
	} {
		_, err := js.CreateStream(context.Background(), jetstream.StreamConfig{Name: name, Subjects: []string{name}, PersistMode: mode})
		must(err)
	}
	nc.Close()
	s.Shutdown()
	s.WaitForShutdown()
}
GO
cd "$dir"
go mod tidy >/dev/null 2>&1
go build -o try .
strace -f -y -e trace=openat,fsync,fdatasync -o trace.txt ./try "$dir/store"

# synced counts what was opened with O_SYNC, or synced, in a stream's folder.
synced() {
	grep -E "/streams/$1[/>]" trace.txt | grep -cE 'openat\(.*O_D?SYNC|(fsync|fdatasync)\(' || true
}
plain=$(synced PLAIN) lazy=$(synced LAZY)
echo "synced of the definition: default $plain, async $lazy"
if [ "$plain" -gt 0 ] && [ "$lazy" -eq 0 ]; then
	echo "as before: the definition of an async stream is not synced"
else
	echo "CHANGED"
	exit 1
fi
