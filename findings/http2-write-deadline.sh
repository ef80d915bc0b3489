#!/usr/bin/env bash
# net/http says of ResponseController.SetWriteDeadline that it "sets the deadline for writing the response". By HTTP/1.1
# that is what it does: a deadline that passes between two writes, of a stream of Server-Sent Events say, and is renewed
# before the next one, harms nothing. By HTTP/2 the same handler's stream is reset (RST_STREAM, INTERNAL_ERROR) at the
# moment the deadline passes, though everything was written and nothing is being written:
#
#   golang.org/x/net v0.61.0, http2.Server (h2c)
#
# So a server that gives each write a time limit, and is idle for longer between two, must take the deadline back after
# each write, or it cuts off its quiet clients as soon as a proxy in front speaks HTTP/2 to it.
#
# Installs it in a temporary folder and fails if what it does has changed.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.25.0

require golang.org/x/net NETVERSION
GO
cat >"$dir/main.go" <<'GO'
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

const limit = 300 * time.Millisecond

// handle writes two lines, each within the limit, with a pause between them that is longer.
func handle(w http.ResponseWriter, _ *http.Request) {
	rc := http.NewResponseController(w)
	for n := range 2 {
		time.Sleep(time.Duration(n) * 3 * limit)
		_ = rc.SetWriteDeadline(time.Now().Add(limit))
		fmt.Fprintf(w, "%d\n", n)
		_ = rc.Flush()
	}
}

func get(client *http.Client, url string) string {
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Sprintf("%s %q, then: %v", resp.Proto, text, err)
	}
	return fmt.Sprintf("%s %q", resp.Proto, text)
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = http.Serve(l, h2c.NewHandler(http.HandlerFunc(handle), &http2.Server{})) }()
	url := "http://" + l.Addr().String()
	fmt.Println(get(&http.Client{}, url))
	fmt.Println(get(&http.Client{Transport: &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}, url))
}
GO
V=v0.61.0
sed -i "s/NETVERSION/$V/" "$dir/go.mod"
(cd "$dir" && GOFLAGS=-mod=mod go build -o finding .)
got=$("$dir/finding")
want='HTTP/1.1 "0\n1\n"
HTTP/2.0 "0\n", then: stream error: stream ID 1; INTERNAL_ERROR; received from peer'
echo "golang.org/x/net $V:"
echo "$got"
if [[ $got != "$want" ]]; then
	echo "CHANGED. It was:" >&2
	echo "$want" >&2
	exit 1
fi
