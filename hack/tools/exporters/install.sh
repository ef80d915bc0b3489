#!/usr/bin/env bash
# Builds the pinned exporters of PgBouncer's and NATS' metrics into bin/ of the checkout.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
bin=$(cd ../../.. && pwd)/bin
mkdir -p "$bin"
CGO_ENABLED=0 go build -mod=readonly -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" -o "$bin/" \
  github.com/prometheus-community/pgbouncer_exporter github.com/nats-io/prometheus-nats-exporter
