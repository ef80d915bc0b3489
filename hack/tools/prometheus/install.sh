#!/usr/bin/env bash
# Builds the pinned prometheus and promtool into bin/ of the checkout, and queries, which reads what dashboards and
# alerts ask for. They have a go.mod of their own: Prometheus pins much of what the others pin, at other versions.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
bin=$(cd ../../.. && pwd)/bin
mkdir -p "$bin"

# Of the ways to find targets only Kubernetes' is tried here; the others bring the SDKs of all clouds.
tags=remove_all_sd,enable_kubernetes_sd
version=$(go list -mod=readonly -m -f '{{.Version}}' github.com/prometheus/prometheus)
CGO_ENABLED=0 go build -mod=readonly -trimpath -tags "$tags" -gcflags=all=-dwarf=false \
  -ldflags "-s -w -X github.com/prometheus/common/version.Version=$version" \
  -o "$bin/" github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
CGO_ENABLED=0 go build -mod=readonly -trimpath -tags "$tags" -gcflags=all=-dwarf=false -ldflags "-s -w" -o "$bin/" ./cmd/queries
