#!/usr/bin/env bash
# A kind cluster with Knative Serving and Kourier as its ingress, to try Weir in. It may be run again: what
# is there is left or brought up to date. hack/kind-down.sh removes the cluster.
#
#   hack/kind-up.sh [NAME]     default: weir
#
# Pinned here: Knative Serving and Kourier; in deploy/k8s/kind/cluster.yaml: Kubernetes. Release v1.23 of
# Knative is the Go modules' v0.50 (test/deploy holds that to go.mod).
set -euo pipefail

readonly SERVING_VERSION=v1.23.0
readonly KOURIER_VERSION=v1.23.0
readonly KIND_VERSION=v0.33.0 # what the node's image was released with
readonly SERVING=https://github.com/knative/serving/releases/download/knative-$SERVING_VERSION
readonly KOURIER=https://github.com/knative-extensions/net-kourier/releases/download/knative-$KOURIER_VERSION
readonly WAIT=300s # for each of the steps below

cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${1:-weir}
context=kind-$name

say() { printf '==> %s\n' "$*"; }
die() {
  printf 'kind-up: %s\n' "$*" >&2
  exit 1
}
kube() { kubectl --context "$context" "$@"; }

# --- What must be there
command -v kind >/dev/null || die "kind is missing: go install sigs.k8s.io/kind@$KIND_VERSION, or see https://kind.sigs.k8s.io"
command -v kubectl >/dev/null || die "kubectl is missing: hack/tools/kube/install.sh puts it into bin/, which must be in PATH"
engine=
for candidate in "${KIND_EXPERIMENTAL_PROVIDER:-docker}" podman nerdctl; do
  if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
    engine=$candidate
    break
  fi
done
[[ -n "$engine" ]] || die "no container engine answers: start docker (or podman, or nerdctl), and see that you may use it: docker info"
export KIND_EXPERIMENTAL_PROVIDER=$engine
if [[ "$(kind version -q)" != "${KIND_VERSION#v}" ]]; then
  say "kind is $(kind version -q), not ${KIND_VERSION#v}: if the node doesn't start, use that one"
fi

# --- The cluster
if kind get clusters 2>/dev/null | grep -qxF -- "$name"; then
  say "The cluster $name is there"
else
  say "Creating the cluster $name"
  kind create cluster --name "$name" --config deploy/k8s/kind/cluster.yaml --wait "$WAIT"
fi
kube get --raw=/readyz >/dev/null || die "the cluster $name doesn't answer: hack/kind-down.sh $name, then this again"

# --- Knative Serving
# Server-side: the CRDs are too large for the annotation of a client-side apply.
apply() { kube apply --server-side --force-conflicts --filename "$1" >/dev/null; }

say "Knative Serving $SERVING_VERSION"
apply "$SERVING/serving-crds.yaml"
# Twice, as kubectl wait gives up at once on a definition that is too new to have any conditions.
established() { kube wait --for=condition=Established --timeout="$WAIT" crd --selector=knative.dev/crd-install=true >/dev/null; }
established 2>/dev/null || { sleep 2 && established; }
apply "$SERVING/serving-core.yaml"

say "Kourier $KOURIER_VERSION"
apply "$KOURIER/kourier.yaml"

# Kourier is the ingress. Images that were loaded into the node (kind load, skaffold) are in no registry, so
# Knative must not ask one for their digests.
kube patch configmap config-network --namespace knative-serving --type merge \
  --patch '{"data":{"ingress-class":"kourier.ingress.networking.knative.dev"}}' >/dev/null
kube patch configmap config-deployment --namespace knative-serving --type merge \
  --patch '{"data":{"registries-skipping-tag-resolving":"kind.local,ko.local,dev.local,ghcr.io"}}' >/dev/null

say "Waiting until all of it runs (at most $WAIT each)"
kube wait --for=condition=Available --timeout="$WAIT" deployment --all --namespace knative-serving >/dev/null
kube wait --for=condition=Available --timeout="$WAIT" deployment --all --namespace kourier-system >/dev/null

cat <<END

The cluster is ready: kubectl --context $context. Next, either, at every change of the sources:

  skaffold dev --kube-context $context

or once:

  make images
  for image in bin/images/*.tar; do kind load image-archive --name $name "\$image"; done
  helm --kube-context $context upgrade --install weir charts/weir --namespace weir-system --create-namespace \\
    --wait --values deploy/k8s/kind/values.yaml
  kubectl --context $context apply -k deploy/k8s/overlays/kind
  kubectl --context $context -n weir-system port-forward svc/weir-gateway 8080:80

Then:

  curl -i http://localhost:8080/orders -d '{"sku":"book","quantity":1}' -H 'Content-Type: application/json'
END
