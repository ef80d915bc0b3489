# shellcheck shell=bash
# Builds what a run needs, once: binaries, images, Knative's manifests. Nothing of it happens again until what it is
# made from changes.

readonly OWN_IMAGES=(pause hello coredns kingress)
readonly KNATIVE_IMAGES=(controller webhook autoscaler activator queue)
readonly KUBEBOX_NAMES=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)

build() {
  local inputs
  inputs=$(build_inputs)
  if [[ -e $CLUSTER_DIR/built && $(<"$CLUSTER_DIR/built") == "$inputs" ]]; then
    return
  fi
  rm -f "$CLUSTER_DIR/built"
  mkdir -p "$BIN" "$IMAGES" "$KNATIVE_YAML"
  # Build files in memory: hundreds of packages are written and read once. The name is this folder's own, so that
  # what a killed build left is removed by the next.
  export GOTMPDIR=$CLUSTER_DIR/tmp
  [[ ! -w /dev/shm ]] || GOTMPDIR=/dev/shm/$CGROUP
  rm -rf "$GOTMPDIR"
  mkdir -p "$GOTMPDIR"
  step "  binaries" build_binaries
  rm -rf "$GOTMPDIR"
  unset GOTMPDIR
  step "  images" build_images
  step "  knative" build_knative_manifests
  echo "$inputs" >"$CLUSTER_DIR/built"
}

# build_inputs prints one sum of all that the result depends on.
build_inputs() {
  {
    go version
    grep nats-server "$REPOSITORY/go.mod"
    dpkg-query -W 'postgresql-*' pgbouncer 2>/dev/null || true
    cd "$HACK_CLUSTER" || exit
    find cmd images go.mod go.sum lib/build.sh ../tools/kube -type f -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum | cut -d' ' -f1
}

build_binaries() {
  local version minor versions knative=() name
  # More memory for less collecting; nice, so that the machine stays usable for the quarter of an hour of a first build.
  export CGO_ENABLED=0 GOGC=${GOGC:-400}
  version=$(go -C "$HACK_CLUSTER" list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.}
  # Knative looks at the version of the API server: v0.0.0, without these, is too old for it.
  versions=(
    -X "k8s.io/component-base/version.gitVersion=$version"
    -X k8s.io/component-base/version.gitMajor=1
    -X "k8s.io/component-base/version.gitMinor=${minor%%.*}"
    -X k8s.io/component-base/version.gitTreeState=clean
    -X "k8s.io/client-go/pkg/version.gitVersion=$version"
  )
  for name in "${KNATIVE_IMAGES[@]}"; do
    knative+=("knative.dev/serving/cmd/$name")
  done
  nice go -C "$HACK_CLUSTER" build -buildvcs=false -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w ${versions[*]}" -o "$BIN/" \
    ./cmd/... "${knative[@]}"
  for name in "${KUBEBOX_NAMES[@]}"; do
    ln -sf kubebox "$BIN/$name"
  done
  nice "$REPOSITORY/hack/tools/kube/install.sh"
  # From the product's own module: the version that its tests run against.
  nice go -C "$REPOSITORY" build -buildvcs=false -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" -o "$BIN/" github.com/nats-io/nats-server/v2
}

build_images() {
  local name
  for name in "${OWN_IMAGES[@]}" "${KNATIVE_IMAGES[@]}"; do
    mkimage -ref "ko.local/$name:v1" -o "$IMAGES/$name.tar" static "$BIN/$name"
  done
  mkimage -ref ko.local/nats:v1 -o "$IMAGES/nats.tar" static "$BIN/nats-server"
  mkimage -ref ko.local/postgres:v1 -o "$IMAGES/postgres.tar" postgres "$HACK_CLUSTER/images/postgres/entrypoint.sh"
  mkimage -ref ko.local/pgbouncer:v1 -o "$IMAGES/pgbouncer.tar" pgbouncer
  mkimage -ref "$REGISTRY/base:v1" -o "$IMAGES/base.tar" base
}

# build_knative_manifests writes Knative's own YAML, from its modules, with the images built here.
build_knative_manifests() {
  local serving networking caching core
  serving=$(module_folder knative.dev/serving)
  networking=$(module_folder knative.dev/networking)
  caching=$(module_folder knative.dev/caching)
  core=$serving/config/core
  # A module's archive drops links: what is a link in serving comes from where it leads.
  documents "$core"/300-resources/*.yaml "$networking"/config/{ingress,serverlessservice,certificate,domain-claim}.yaml \
    "$caching"/config/image.yaml >"$KNATIVE_YAML/resources.yaml"
  documents "$core"/{100-namespace,200-serviceaccount}.yaml "$core"/200-roles/*.yaml "$core"/configmaps/*.yaml \
    "$networking"/config/config-network.yaml >"$KNATIVE_YAML/settings.yaml"
  documents "$core"/deployments/{controller,autoscaler,activator,webhook}.yaml "$core"/webhooks/*.yaml \
    "$core"/999-cache.yaml >"$KNATIVE_YAML/deployments.yaml"
}

module_folder() { GOFLAGS=-mod=mod go -C "$HACK_CLUSTER" list -m -f '{{.Dir}}' "$1"; }

documents() {
  local file
  for file in "$@"; do
    sed -E 's#ko://knative.dev/serving/cmd/([a-z-]+)#ko.local/\1:v1#g' "$file"
    printf '\n---\n'
  done
}
