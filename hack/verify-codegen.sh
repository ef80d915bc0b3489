#!/usr/bin/env bash
# Fails if what is generated is not what hack/update-codegen.sh would write now. It leaves the tree as it was.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

before=$(mktemp -d)
restore() {
	cp -R "$before/api" "$root/"
	rm -rf "$before"
}
cp -R api "$before/"
trap restore EXIT

hack/update-codegen.sh
if ! diff -ru "$before/api" api; then
	echo "api/ is not what its types say. To fix: hack/update-codegen.sh, then commit." >&2
	exit 1
fi
