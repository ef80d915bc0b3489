#!/usr/bin/env bash
# The CloudEvents HTTP binding 1.0.2 (section 3.1.3.2) says that in binary mode the values of attributes are
# percent-encoded in headers: a space, '"', '%' and all but printable ASCII. Neither SDK does, in either direction:
#
#   github.com/cloudevents/sdk-go/v2 v2.16.2 (Go), npm cloudevents 10.0.0
#
# read an encoded value as it stands, and write text that is not ASCII into the header as it is. So a producer that keeps
# to the binding and a consumer on one of these SDKs don't agree on "Köln": the consumer sees K%C3%B6ln. The JSON format
# (structured and batch mode) is not concerned.
#
# Installs both in a temporary folder and fails if what they do has changed.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/go" "$dir/node"

cat >"$dir/go/go.mod" <<'GO'
module finding

go 1.24

require github.com/cloudevents/sdk-go/v2 v2.16.2
GO
cat >"$dir/go/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func main() {
	ctx := context.Background()
	in, _ := http.NewRequest(http.MethodPost, "http://f", strings.NewReader("x"))
	in.Header.Set("Content-Type", "text/plain")
	for name, v := range map[string]string{"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "subject": "a%20b", "city": "K%C3%B6ln"} {
		in.Header.Set("ce-"+name, v)
	}
	e, err := binding.ToEvent(ctx, cehttp.NewMessageFromHttpRequest(in))
	if err != nil {
		panic(err)
	}
	fmt.Println("read", e.Subject(), e.Extensions()["city"])

	o := event.New()
	o.SetID("1")
	o.SetSource("/a")
	o.SetType("t")
	o.SetSubject("a b")
	o.SetExtension("city", "Köln")
	_ = o.SetData("text/plain", "x")
	out, _ := http.NewRequest(http.MethodPost, "http://f", nil)
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(&o), out); err != nil {
		panic(err)
	}
	fmt.Println("written", out.Header.Get("ce-subject"), out.Header.Get("ce-city"))
}
GO
cat >"$dir/node/main.js" <<'JS'
const { HTTP, CloudEvent } = require('cloudevents');
const headers = { 'content-type': 'text/plain', 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/a', 'ce-type': 't' };
const e = HTTP.toEvent({ headers: { ...headers, 'ce-subject': 'a%20b', 'ce-city': 'K%C3%B6ln' }, body: 'x' });
console.log('read', e.subject, e.city);
const m = HTTP.binary(new CloudEvent({ id: '1', source: '/a', type: 't', subject: 'a b', city: 'Köln', data: 'x' }));
console.log('written', m.headers['ce-subject'], m.headers['ce-city']);
JS

want=$'read a%20b K%C3%B6ln\nwritten a b Köln'
check() {
  if [[ "$2" != "$want" ]]; then
    printf '%s has changed. It printed:\n%s\nand was seen to print:\n%s\n' "$1" "$2" "$want"
    exit 1
  fi
  printf '%s:\n%s\n' "$1" "$2"
}
(cd "$dir/go" && go mod tidy >/dev/null 2>&1)
check "sdk-go v2.16.2" "$(cd "$dir/go" && go run .)"
(cd "$dir/node" && npm init -y >/dev/null && npm install --silent cloudevents@10.0.0 >/dev/null)
check "npm cloudevents 10.0.0" "$(cd "$dir/node" && node main.js)"
