#!/usr/bin/env bash
# Runs test/e2e against a cluster: the throw-away one of hack/cluster, which it starts and ends (E2E_KEEP=1 leaves it
# up), or an existing one.
#
#   hack/e2e.sh [flags of the test binary, such as -test.run TestCluster/Install]
#   E2E_KUBECONFIG=~/.kube/config E2E_IMAGES=registry.example.com/weir hack/e2e.sh
#
# For an existing cluster the images are pushed to E2E_IMAGES, from where it must be able to pull; it must have
# Knative Serving and be one that may be filled and emptied: namespace weir-system and some objects in default.
# E2E_NATS_REPLICAS=3 installs a cluster of NATS, for what of the tests doesn't stop it:
#   E2E_NATS_REPLICAS=3 hack/e2e.sh -test.run 'TestCluster/(Install|ScaleFromZero|Disruptions)'
# Skaffold is tried with E2E_REGISTRY only, a registry to push to without credentials.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Another one each time: nodes keep what they have pulled.
tag=${E2E_TAG:-e2e-$(date +%s)}
mains=(./test/e2e/loader ./test/e2e/slowwriter)
# The version after this one, for the rolling update.
next=(--tag "$tag-next" --tags weirnext --services gateway,dispatcher --out bin/images-next)
flags=(-test.v -test.timeout=55m "$@")

hack/tools/kube/install.sh
hack/tools/prometheus/install.sh
hack/tools/exporters/install.sh
go build -o bin/weir ./cmd/weir
go test -c -o bin/e2e.test ./test/e2e

if [[ -n "${E2E_KUBECONFIG:-}" ]]; then
  E2E_KUBECONFIG=$(realpath "$E2E_KUBECONFIG")
  export E2E_KUBECONFIG
  : "${E2E_IMAGES:?say where the images are pushed to and pulled from, such as registry.example.com/weir}"
  go run ./hack/images --repo "$E2E_IMAGES" --tag "$tag" --push "${mains[@]}"
  go run ./hack/images --repo "$E2E_IMAGES" --push "${next[@]}"
  cd test/e2e
  exec env E2E_IMAGES="$E2E_IMAGES" E2E_TAG="$tag" "$root/bin/e2e.test" "${flags[@]}"
fi

# failures repeats what the tests that failed have logged: it stands far above their names.
failures() {
  [[ ! -f bin/e2e.log ]] || awk '
    /^=== (RUN|NAME|CONT) / { name = $3 }
    /_test\.go:[0-9]+: / { logged[name] = logged[name] $0 "\n" }
    $1 == "---" && $2 == "FAIL:" && $3 in logged { printf "%s failed, and had logged:\n%s", $3, logged[$3] }' bin/e2e.log >&2
}

cluster=hack/cluster/cluster.sh
finish() {
  local code=$?
  if ((code != 0)); then
    "$cluster" logs >bin/e2e-cluster.log 2>&1 || true
    failures
    echo "e2e: failed; the ends of the cluster's logs are in bin/e2e-cluster.log" >&2
  fi
  [[ -n "${E2E_KEEP:-}" ]] || "$cluster" down
}
rm -f bin/e2e.log
trap finish EXIT
"$cluster" up
# With the flags of the cluster's own build, whose packages are there now.
CGO_ENABLED=0 go -C hack/cluster test -trimpath -gcflags=all=-dwarf=false -count=1 ./cmd/kingress ./policy
go run ./hack/images --repo ko.local/weir --tag "$tag" "${mains[@]}"
go run ./hack/images --repo ko.local/weir "${next[@]}"
archives=("$root"/bin/images-next/*.tar)
for name in pgbouncer_exporter prometheus-nats-exporter; do
  "$cluster" run mkimage -ref "ko.local/$name:v1" -o "$root/bin/images/$name.tar" static "$root/bin/$name"
  archives+=("$root/bin/images/$name.tar")
done
for main in services/*/main.go services/functions/*/main.go "${mains[@]}"; do
  archives+=("$root/bin/images/$(basename "${main%/main.go}").tar")
done
"$cluster" load "${archives[@]}"
# Skaffold deploys what the files say; the images of others that they name are these here.
hack/tools/skaffold/install.sh
named() { sed -n "s|^ *image: *\\($1:[^ ]*\\)$|\\1|p" "$2"; }
alias_image() {
  "$cluster" run ctr --address /run/containerd/containerd.sock --namespace k8s.io images tag --force "$1" "$2" >/dev/null
}
alias_image ko.local/nats:v1 "$(named '[^ ]*/nats' charts/weir/values.yaml)"
alias_image ko.local/pgbouncer:v1 "$(named '[^ ]*/pgbouncer' charts/weir/values.yaml)"
alias_image ko.local/postgres:v1 "docker.io/library/$(named postgres deploy/k8s/postgres/statefulset.yaml)"
# Inside, E2E_KUBECONFIG is the cluster's own.
# shellcheck disable=SC2016
"$cluster" run bash -c 'cd "$1/test/e2e" && shift && E2E_KUBECONFIG=$KUBECONFIG exec "$@"' e2e "$root" \
  env E2E_IMAGES=ko.local/weir E2E_TAG="$tag" E2E_NATS_IMAGE=ko.local/nats:v1 E2E_POSTGRES_IMAGE=ko.local/postgres:v1 \
  E2E_PGBOUNCER_IMAGE=ko.local/pgbouncer:v1 E2E_PGBOUNCER_EXPORTER_IMAGE=ko.local/pgbouncer_exporter:v1 \
  E2E_NATS_EXPORTER_IMAGE=ko.local/prometheus-nats-exporter:v1 E2E_ON_NODE=1 E2E_REGISTRY=localhost:5000 E2E_BASE_IMAGE=localhost:5000/base:v1 "$root/bin/e2e.test" "${flags[@]}" |
  tee bin/e2e.log
