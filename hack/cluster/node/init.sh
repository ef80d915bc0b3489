#!/usr/bin/env bash
# The first process of the cluster's namespaces: lays out mounts, network and cgroups, starts every part, and waits.
# If one part ends it says so in $STATE/failed and stays, so that the logs and the others can be looked at.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/cluster/lib/settings.sh
. "$here/../lib/settings.sh"
# shellcheck source=hack/cluster/lib/report.sh
. "$here/../lib/report.sh"
# shellcheck source=hack/cluster/lib/prerequisites.sh
. "$here/../lib/prerequisites.sh"
# shellcheck source=hack/cluster/node/config.sh
. "$here/config.sh"

# private_folder PATH NAME: what goes to PATH goes to the state folder.
private_folder() {
  mkdir -p "$1" "$STATE/$2"
  mount --bind "$STATE/$2" "$1"
}

mounts() {
  mount --make-rprivate /
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock
  private_folder /var/lib/cni cni
  private_folder /var/lib/kubelet kubelet
  private_folder /var/log/containers podlinks
  # Images in memory: they are imported five times as fast as to a disk.
  mkdir -p "$STATE/containerd" "$STATE/volumes" "$STATE/podlogs" "$STATE/volume-plugins"
  mount -t tmpfs -o mode=711 tmpfs "$STATE/containerd"
  # Names are the cluster's for all that runs in here; others are refused at once instead of timing out.
  printf 'nameserver %s\nsearch svc.cluster.local cluster.local\noptions ndots:3 timeout:1\n' "$DNS_IP" >"$STATE/resolv.conf"
  if [[ ! -e /etc/resolv.conf ]]; then # also where it is a link into /run
    mkdir -p "$(dirname "$(readlink -m /etc/resolv.conf)")"
    touch "$(readlink -m /etc/resolv.conf)"
  fi
  mount --bind "$STATE/resolv.conf" /etc/resolv.conf
}

# The node's address is on a veth pair with both ends in here: a kubelet takes no loopback address, and nothing leads out.
network() {
  hostname "$NODE"
  ip link set lo up
  ip link add node0 type veth peer name node0peer
  ip address add "$NODE_IP/24" dev node0
  ip link set node0 up
  ip link set node0peer up
  ip route add default via "$NODE_IP" dev node0 2>/dev/null || ip route add default dev node0
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # A pod's answer to another pod through a Service's address must pass kube-proxy's rules on the bridge.
  echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
}

# cgroups makes a folder of the cluster's own, so that nothing is left behind: in every hierarchy (v1) or in the one (v2).
cgroups() {
  local hierarchy controller
  if [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; then
    for controller in cpu cpuset memory pids io; do
      # Refused in a container whose processes sit in its root; then the kubelet says which controller it misses.
      echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
    mkdir -p "/sys/fs/cgroup/$CGROUP"
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    hierarchy=${hierarchy%/}
    [[ $(stat -fc %T "$hierarchy") == cgroupfs ]] || continue # v2 beside v1
    mkdir -p "$hierarchy/$CGROUP"
    if [[ -e $hierarchy/$CGROUP/cpuset.cpus ]]; then # empty in a new one, and nothing can run there
      cat "$hierarchy/cpuset.cpus" >"$hierarchy/$CGROUP/cpuset.cpus"
      cat "$hierarchy/cpuset.mems" >"$hierarchy/$CGROUP/cpuset.mems"
    fi
  done
}

declare -A parts=()
run() {
  local name=$1
  shift
  "$@" >"$LOGS/$name.log" 2>&1 &
  parts[$!]=$name
}

api_answers() { curl --silent --insecure --fail --output /dev/null --max-time 1 https://127.0.0.1:6443/readyz; }

start() {
  local pki=$STATE/pki
  run containerd containerd --config "$STATE/containerd.toml"
  run registry registry -listen 127.0.0.1:5000 -blobs "$STATE/registry" "base:v1=$IMAGES/base.tar" "hello:v1=$IMAGES/hello.tar"
  # No fsync: this etcd is not meant to survive the machine.
  run etcd etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  run kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$NODE_IP" --bind-address=0.0.0.0 --secure-port=6443 \
    --tls-cert-file="$pki/api.crt" --tls-private-key-file="$pki/api.key" --client-ca-file="$pki/ca.crt" \
    --token-auth-file="$pki/tokens.csv" --authorization-mode=RBAC --anonymous-auth=true \
    --service-cluster-ip-range="$SERVICE_CIDR" --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key" \
    --kubelet-preferred-address-types=InternalIP --endpoint-reconciler-type=lease --profiling=false
  wait_for 60 "the API server" kube-apiserver api_answers
  run kube-controller-manager kube-controller-manager --kubeconfig="$KUBECONFIG" --leader-elect=false --bind-address=127.0.0.1 \
    --service-account-private-key-file="$pki/service-accounts.key" --root-ca-file="$pki/ca.crt" --profiling=false
  run kube-scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --leader-elect=false --bind-address=127.0.0.1 --profiling=false
  run kubelet kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$KUBECONFIG" --hostname-override="$NODE" --node-ip="$NODE_IP"
  run kube-proxy kube-proxy --config="$STATE/kube-proxy.yaml"
  run provisioner provisioner -kubeconfig "$KUBECONFIG" -root "$STATE/volumes" -node "$NODE"
}

# Failures before the parts run are told the same way.
trap 'code=$?; if ((code)); then echo "node ended: code $code" >"$STATE/failed"; fi' EXIT

ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
mounts
network
cgroups
write_node_config
start

while true; do
  ended=
  code=0
  wait -n -p ended "${!parts[@]}" || code=$?
  [[ -n $ended ]] || break
  echo "${parts[$ended]} ended: code $code" | tee -a "$STATE/failed"
  unset "parts[$ended]"
done
