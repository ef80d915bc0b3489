#!/usr/bin/env bash
# A throw-away Kubernetes with Knative Serving, on one machine, without a registry. README.md says more.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for part in settings report process prerequisites build pki node addons; do
  # shellcheck source=/dev/null
  . "$here/lib/$part.sh"
done

usage() {
  cat <<USAGE
usage: hack/cluster/cluster.sh VERB
  up             install what is missing, build, start; if it is up and healthy, say so
  down           end it; what was built stays, for the next up
  build          only build
  load FILE...   import images (docker or OCI archives) into the cluster
  run CMD...     run a command inside the cluster's network, with KUBECONFIG, kubectl and helm
  status         is it up, since when, how much memory, which pods
  logs [PART]    the end of every log, or the whole log of a part
  test           test the cluster itself
State and results are in \$WEIR_CLUSTER_DIR ($CLUSTER_DIR).
USAGE
}

# lock: one at a time may change a state folder. It is let go when this process ends, however it ends.
lock() {
  exec 9>"$CLUSTER_DIR/lock"
  if ! flock --nonblock 9; then
    say "waiting for another cluster.sh to end"
    flock --timeout 1800 9 || die "another cluster.sh has not ended for half an hour"
  fi
}

need_running() { running || die "it is not up; to start it: hack/cluster/cluster.sh up"; }

healthy() { [[ -e $STATE/complete && ! -e $STATE/failed ]] && running && node_ready; }

up() {
  local start importing
  start=$(now_ms)
  check_root
  lock
  if healthy; then
    say "it is up and healthy; KUBECONFIG=$KUBECONFIG"
    return
  fi
  step prerequisites prerequisites
  step build build
  end_run # what a run that died, or was killed half way, has left
  step node node
  # While the images go in, the API server starts and gets its settings. A pod before its image would be retried late.
  images 9>&- &
  importing=$!
  step ready node_is_ready
  step settings settings
  step images wait "$importing"
  step rollout rollout
  touch "$STATE/complete"
  say "up after $(($(now_ms) - start)) ms; run something in it: hack/cluster/cluster.sh run kubectl get pods -A"
}

end_run() {
  end_processes
  remove_cgroups
  rm -rf "$STATE"
}

down() {
  check_root
  lock
  step down end_run
}

status() {
  if ! running; then
    say "down"
    return 1
  fi
  say "up since $(ps -o lstart= -p "$(pid_in "$STATE/init")"); $(memory)"
  [[ -e $STATE/complete ]] || say "but its start is not complete"
  [[ ! -e $STATE/failed ]] || cat "$STATE/failed"
  say "KUBECONFIG=$KUBECONFIG"
  inside kubectl get pods --all-namespaces
}

# memory of all its processes (shared pages counted once) and of the images, which are in a tmpfs.
memory() {
  # shellcheck disable=SC2016 # for the shell inside
  inside bash -c '
    processes=$(cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk "/^Pss:/ {sum += \$2} END {printf \"%d\", sum / 1024}")
    images=$(df --output=used --block-size=M "$0" | tail -n 1)
    echo "processes $processes MiB, images ${images//[^0-9]/} MiB in memory"' "$STATE/containerd"
}

logs() {
  local file
  if (($# > 0)); then
    [[ -e $LOGS/$1.log ]] || die "no log of $1; there are: $(cd "$LOGS" && echo *.log)"
    cat "$LOGS/$1.log"
    return
  fi
  for file in "$LOGS"/*.log; do
    printf '==> %s\n' "$file"
    tail -n 15 "$file" | cut -c1-300
  done
}

verb=${1:-help}
(($# == 0)) || shift
case $verb in
up) up ;;
down) down ;;
build)
  check_root
  lock
  step prerequisites prerequisites
  step build build
  ;;
load)
  (($# > 0)) || die "load what? name the archives"
  need_running
  load "$@"
  ;;
run)
  (($# > 0)) || die "run what? name a command"
  need_running
  inside "$@"
  ;;
status) status ;;
logs) logs "$@" ;;
test)
  need_running
  "$here/test.sh"
  ;;
help | -h | --help) usage ;;
*)
  usage >&2
  exit 2
  ;;
esac
