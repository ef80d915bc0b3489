#!/usr/bin/env bash
# Runs every fuzz target whose name matches, one after the other, each for the
# given time: hack/fuzz.sh '^Fuzz' 10m
# A finding ends it; its input is in the package's testdata/fuzz, to be kept.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
pattern=${1:-^Fuzz}
fuzztime=${2:-10m}

# Only packages that have fuzz targets are built for the question which.
packages=()
while IFS= read -r file; do
  packages+=("./$(dirname "${file#./}")")
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | sort)
if ((${#packages[@]} == 0)); then
  echo "fuzz: there are no fuzz targets"
  exit 0
fi

count=0
for package in $(printf '%s\n' "${packages[@]}" | sort -u); do
  # Not in a `for … in $(…)`: a package that doesn't build must fail this.
  listed=$(go test -list '^Fuzz' "$package")
  for target in $(grep '^Fuzz' <<<"$listed" | grep -E -- "$pattern" || true); do
    echo "==> $package $target for $fuzztime"
    go test -run '^$' -fuzz "^${target}\$" -fuzztime "$fuzztime" "$package"
    count=$((count + 1))
  done
done
if ((count == 0)); then
  echo "fuzz: no target matches $pattern" >&2
  exit 1
fi
echo "fuzz: $count targets, no findings"
