#!/usr/bin/env bash
# Fails if skaffold.yaml is not what the pinned Skaffold can work with: diagnoses it and renders every profile,
# the chart and the sample together, without a cluster, a registry or the network. Nothing is built, and
# nothing is written outside a temporary folder but bin/skaffold, if that is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

die() {
  printf 'verify-skaffold: %s\n' "$*" >&2
  exit 1
}

PATH=$root/bin:$PATH
pinned=$(go -C hack/tools/skaffold list -mod=readonly -m -f '{{.Version}}' github.com/GoogleContainerTools/skaffold/v2)
if [[ ! -x bin/skaffold || "$(SKAFFOLD_UPDATE_CHECK=false bin/skaffold version 2>/dev/null)" != "$pinned" ]]; then
  hack/tools/skaffold/install.sh
fi
for tool in helm kubectl; do
  command -v "$tool" >/dev/null || die "$tool is needed: hack/tools/kube/install.sh builds bin/$tool"
done

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Skaffold asks its makers for new versions and counts its uses unless told not to, and keeps both that
# decision and its cache in the home folder. Go keeps its own where they are.
GOPATH=$(go env GOPATH) GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE)
export GOPATH GOCACHE GOMODCACHE
cat >"$tmp/config" <<'END'
global:
  collect-metrics: false
  survey: {disable-prompt: true}
END
export HOME=$tmp KUBECONFIG=$tmp/no-cluster
export SKAFFOLD_CONFIG=$tmp/config SKAFFOLD_CACHE_FILE=$tmp/cache
export SKAFFOLD_UPDATE_CHECK=false SKAFFOLD_INTERACTIVE=false

quietly() {
  timeout 120 "$@" >"$tmp/log" 2>&1 || {
    cat "$tmp/log" >&2
    die "failed: $*"
  }
}

schema=$(sed -n 's/^apiVersion: //p' skaffold.yaml)
for profile in kind remote; do
  quietly skaffold diagnose --profile "$profile"
  # An older schema would be upgraded silently.
  grep -q "^Configuration version: $schema$" "$tmp/log" ||
    die "skaffold.yaml is $schema, and skaffold $pinned says: $(grep '^Configuration version' "$tmp/log")"
  # --digest-source=tag: the tags that a build would give, without building.
  quietly skaffold render --profile "$profile" --offline=true --digest-source=tag \
    --default-repo registry.example.com/weir --output "$tmp/$profile.yaml"
  for main in services/*/main.go services/functions/*/main.go; do
    name=$(basename "${main%/main.go}")
    # Every place that runs one of Weir's images runs the one that was built, under the name in the other registry.
    grep -Eq "image: registry\.example\.com/weir/[a-z_-]*_$name:[0-9a-f]{64}$" "$tmp/$profile.yaml" ||
      die "profile $profile: no pod runs the $name that Skaffold would build; the images are:
$(grep -E '^ *(- )?image:' "$tmp/$profile.yaml" | sort -u)"
  done
  if grep -En 'image: *"?(ko://|ghcr\.io/weir-dev/)' "$tmp/$profile.yaml" >&2; then
    die "profile $profile: these images are not the ones that Skaffold would build"
  fi
  grep -q '^kind: CustomResourceDefinition$' "$tmp/$profile.yaml" || die "profile $profile: the chart's custom resources are missing"
  grep -q '^kind: EventSourceMapping$' "$tmp/$profile.yaml" || die "profile $profile: the sample is missing"
done
echo "skaffold.yaml is $schema; skaffold $pinned renders its profiles"
