#!/usr/bin/env bash
# Fails if what is generated is not what hack/update-codegen.sh would write now.
# It generates into a temporary folder: the tree is not touched, however this ends.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Pinned in hack/tools/go.mod, as in hack/update-codegen.sh.
go -C hack/tools build -o "$tmp/controller-gen" sigs.k8s.io/controller-tools/cmd/controller-gen

stale=0
for package in api/*/; do
  package=${package%/}
  mkdir -p "$tmp/$package"
  # One package a call: output:object:dir is flat, they would overwrite each other.
  "$tmp/controller-gen" object "paths=./$package" "output:object:dir=$tmp/$package"
  # -N: a file that is missing on either side is a difference too.
  diff -uN "$package/zz_generated.deepcopy.go" "$tmp/$package/zz_generated.deepcopy.go" || stale=1
done
"$tmp/controller-gen" crd paths=./api/... "output:crd:dir=$tmp/crds"
diff -urN charts/weir/files/crds "$tmp/crds" || stale=1
cp docs/resources.md "$tmp/resources.md"
go run ./hack/fields -page "$tmp/resources.md" -crds "$tmp/crds"
diff -u docs/resources.md "$tmp/resources.md" || stale=1
if ((stale)); then
  echo "api/, the chart's custom resource definitions or docs/resources.md are not what the types say. To fix: hack/update-codegen.sh, then commit." >&2
  exit 1
fi
