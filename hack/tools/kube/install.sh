#!/usr/bin/env bash
# Builds the pinned helm and kubectl into bin/ of the repository. The versions of what they share with hack/cluster are
# the same there, and so are the flags: each package is compiled once for both.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(cd "$here/../../.." && pwd)/bin
mkdir -p "$bin"
cd "$here"

# The version of the libraries is what kubectl says it is; a tool that says v0.0.0 fails checks of version skew.
libraries=$(go list -m -f '{{.Version}}' k8s.io/client-go)
kubernetes=v1.${libraries#v0.}
minor=${libraries#v0.}
minor=${minor%%.*}
helm=$(go list -m -f '{{.Version}}' helm.sh/helm/v3)
versions=(
  -X "k8s.io/component-base/version.gitVersion=$kubernetes"
  -X k8s.io/component-base/version.gitMajor=1
  -X "k8s.io/component-base/version.gitMinor=$minor"
  -X k8s.io/component-base/version.gitTreeState=clean
  -X "helm.sh/helm/v3/internal/version.version=$helm"
  # What helm takes a cluster to be that it can't ask: template and lint go by it.
  -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1
  -X "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor"
  -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1
  -X "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$minor"
)
CGO_ENABLED=0 go build -buildvcs=false -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w ${versions[*]}" -o "$bin/" \
  ./cmd/kubectl helm.sh/helm/v3/cmd/helm
