#!/usr/bin/env bash
# Builds otelcol, an OpenTelemetry Collector with what docs/kubernetes.md uses of its distribution contrib, into bin/ of the
# checkout. It takes some minutes the first time.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
bin=$(cd ../../.. && pwd)/bin
mkdir -p "$bin"
CGO_ENABLED=0 go build -mod=readonly -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" -o "$bin/otelcol" .
