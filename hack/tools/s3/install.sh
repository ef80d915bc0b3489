#!/usr/bin/env bash
# Builds versitygw, the S3 server that the tests of internal/blob run against, into bin/ of the checkout. It has a
# go.mod of its own: it brings the SDKs of three clouds, and shares nothing with the other tools.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
bin=$(cd ../../.. && pwd)/bin
mkdir -p "$bin"
CGO_ENABLED=0 go build -mod=readonly -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" \
  -o "$bin/versitygw" github.com/versity/versitygw/cmd/versitygw
