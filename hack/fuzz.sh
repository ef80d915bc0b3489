#!/usr/bin/env bash
# Runs every fuzz target whose name matches, one after the other, each for the
# given time or number of inputs: hack/fuzz.sh '^Fuzz' 10m, hack/fuzz.sh '^Fuzz' 3000x
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

log=$(mktemp)
trap 'rm -f "$log"' EXIT
count=0
for package in $(printf '%s\n' "${packages[@]}" | sort -u); do
  # Not in a `for … in $(…)`: a package that doesn't build must fail this.
  listed=$(go test -list '^Fuzz' "$package")
  for target in $(grep '^Fuzz' <<<"$listed" | grep -E -- "$pattern" || true); do
    echo "==> $package $target for $fuzztime"
    # go test may report its own deadline, on a busy machine, as a failure of the
    # target. A finding always names the input that it has written.
    if ! go test -run '^$' -fuzz "^${target}\$" -fuzztime "$fuzztime" "$package" 2>&1 | tee "$log"; then
      if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input written' "$log"; then
        exit 1
      fi
      echo "fuzz: that was go test's own deadline, not a finding"
    fi
    count=$((count + 1))
  done
done
if ((count == 0)); then
  echo "fuzz: no target matches $pattern" >&2
  exit 1
fi
echo "fuzz: $count targets, no findings"
