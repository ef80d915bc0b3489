# shellcheck shell=bash
# What the machine must have: root and its rights, a few kernel features, a few Debian packages.

readonly CNI_FOLDERS=(/usr/lib/cni /opt/cni/bin)

prerequisites() {
  check_root
  install_packages
  check_kernel
}

check_root() {
  local lacking=() capability bits
  [[ $(uname -s) == Linux ]] || die "this needs Linux; elsewhere use a kind cluster: hack/kind-up.sh"
  ((EUID == 0)) || die "this needs root: it makes namespaces, cgroups and mounts; run it as root, or use a kind cluster"
  bits=$((16#$(sed -n 's/^CapEff:\s*//p' /proc/self/status)))
  # The numbers are linux/capability.h's.
  for capability in 0:CAP_CHOWN 1:CAP_DAC_OVERRIDE 7:CAP_SETUID 12:CAP_NET_ADMIN 18:CAP_SYS_CHROOT 21:CAP_SYS_ADMIN 27:CAP_MKNOD; do
    if ! ((bits >> ${capability%%:*} & 1)); then
      lacking+=("${capability#*:}")
    fi
  done
  ((${#lacking[@]} == 0)) || die "root lacks ${lacking[*]} here; in a container, start it with --privileged"
}

cni_folder() {
  local folder
  for folder in "${CNI_FOLDERS[@]}"; do
    if [[ -x $folder/bridge && -x $folder/host-local ]]; then
      echo "$folder"
      return 0
    fi
  done
  return 1
}

# missing_packages asks for programs, not for packages: Docker's containerd.io will do as well.
missing_packages() {
  command -v containerd >/dev/null && command -v ctr >/dev/null || echo containerd
  command -v runc >/dev/null || echo runc
  cni_folder >/dev/null || echo containernetworking-plugins
  command -v nft >/dev/null || echo nftables
  command -v ip >/dev/null || echo iproute2
  command -v openssl >/dev/null || echo openssl
  command -v nsenter >/dev/null && command -v unshare >/dev/null && command -v setpriv >/dev/null || echo util-linux
  compgen -G '/usr/lib/*/libnss_wrapper.so' >/dev/null || echo libnss-wrapper
  [[ -e /usr/share/zoneinfo/UTC ]] || echo tzdata
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

install_packages() {
  local missing
  "$REPOSITORY/hack/install-deps.sh" # PostgreSQL, PgBouncer and curl
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    return
  fi
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian's names); install them and run this again"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update </dev/null || say "apt-get update failed; going on with the package lists that are there"
  apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]} == 0)) || die "still missing after the installation: ${missing[*]}"
}

check_kernel() {
  local lacking=() feature
  # Asked by doing it, in a namespace that is gone afterwards.
  unshare --net --mount --pid --ipc --uts --fork --mount-proc true 2>/dev/null || lacking+=("namespaces (net, mount, pid, ipc, uts)")
  unshare --net ip link add name veth0 type veth peer name veth1 2>/dev/null || lacking+=("veth devices")
  unshare --net ip link add name bridge0 type bridge 2>/dev/null || lacking+=("bridge devices")
  unshare --net nft add table ip weir 2>/dev/null || lacking+=("nftables")
  modprobe br_netfilter 2>/dev/null || true
  [[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]] || lacking+=("br_netfilter")
  modprobe overlay 2>/dev/null || true
  grep -qw overlay /proc/filesystems || lacking+=("overlayfs")
  case $(stat -fc %T /sys/fs/cgroup) in
  cgroup2fs)
    for feature in cpu cpuset memory pids; do
      grep -qw "$feature" /sys/fs/cgroup/cgroup.controllers || lacking+=("cgroup v2 controller $feature")
    done
    ;;
  *)
    for feature in cpu cpuset memory pids; do
      [[ -d /sys/fs/cgroup/$feature ]] || lacking+=("cgroup v1 controller $feature in /sys/fs/cgroup")
    done
    ;;
  esac
  if ((${#lacking[@]} > 0)); then
    for feature in "${lacking[@]}"; do
      say "the kernel lacks: $feature" >&2
    done
    die "a cluster cannot run here; use a machine that has these, or a kind cluster elsewhere (E2E_KUBECONFIG)"
  fi
}
