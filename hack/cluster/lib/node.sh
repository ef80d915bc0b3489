# shellcheck shell=bash
# Starts the node, and puts images into it.

node() {
  # The state of a run that is over is worth nothing, and what is mounted there is gone with its namespace.
  rm -rf "$STATE"
  mkdir -p "$STATE" "$LOGS"
  rm -f "$LOGS"/*.log
  pki
  # 9 is the lock: it must not stay taken for as long as the cluster runs.
  setsid --fork "$HACK_CLUSTER/node/keeper.sh" >"$LOGS/node.log" 2>&1 </dev/null 9>&-
  wait_for 10 "the cluster's namespaces" node find_init
  wait_for 30 "containerd" containerd ctr_inside version
}

find_init() {
  local child
  alive "$STATE/keeper" || return 1
  child=$(child_of "$(pid_in "$STATE/keeper")") || return 1
  # Until it has become init.sh it is still unshare, outside of its mount namespace.
  tr '\0' ' ' <"/proc/$child/cmdline" | grep -q 'node/init.sh' || return 1
  identity "$child" >"$STATE/init"
}

ctr_inside() { inside ctr --address "$CONTAINERD" --namespace k8s.io "$@"; }

# load ARCHIVE…: docker or OCI archives into containerd.
load() {
  local archive
  for archive in "$@"; do
    [[ -r $archive ]] || die "cannot read $archive"
    # Through stdin: the archive may be in a folder that was mounted after the cluster's start.
    ctr_inside images import - <"$archive" || die "containerd did not take $archive"
  done
}

images() {
  local archives=() archive
  for archive in "$IMAGES"/*.tar; do
    if [[ $archive != */base.tar ]]; then # the registry has that one
      archives+=("$archive")
    fi
  done
  load "${archives[@]}" >"$LOGS/images.log" 2>&1 || {
    show_log images
    die "the cluster's own images could not be imported"
  }
}

node_ready() {
  inside kubectl get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True
}

node_is_ready() { wait_for 90 "the node to be Ready" kubelet node_ready; }
