#!/usr/bin/env bash
# Writes what is generated: the DeepCopy methods of api/, the chart's custom resource definitions, and of these the
# tables of docs/resources.md.
# hack/verify-codegen.sh holds them to the types.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Pinned in hack/tools/go.mod, apart from the module's own dependencies.
go -C hack/tools build -o "$root/bin/controller-gen" sigs.k8s.io/controller-tools/cmd/controller-gen

bin/controller-gen object paths=./api/...
bin/controller-gen crd paths=./api/... output:crd:dir=charts/weir/files/crds
go run ./hack/fields
