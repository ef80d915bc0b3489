#!/usr/bin/env bash
# Builds skaffold into bin/ of the checkout. It takes some minutes the first time; then it is a look at the
# build cache.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../../.. && pwd)
mkdir -p "$root/bin"

# Nobody debugs it: without DWARF it compiles faster and is a third smaller. -X: what skaffold version prints.
version=$(go list -mod=readonly -m -f '{{.Version}}' github.com/GoogleContainerTools/skaffold/v2)
CGO_ENABLED=0 go build -mod=readonly -trimpath -gcflags=all=-dwarf=false \
  -ldflags "-s -w -X github.com/GoogleContainerTools/skaffold/v2/pkg/skaffold/version.version=$version" \
  -o "$root/bin/skaffold" github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold
echo "skaffold $version is at bin/skaffold"
