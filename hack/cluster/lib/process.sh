# shellcheck shell=bash
# The processes of a run. All of them are in one PID namespace, below the process in $STATE/keeper: when that one is
# killed, the kernel ends all the others. A process is known by its id, its start time and the machine's boot, so that
# an old file never names a stranger.

# identity PID prints "PID START BOOT"; it fails if there is no such process.
identity() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra fields <<<"${stat##*) }" # the name, in parentheses, may hold anything
  [[ ${fields[0]} != Z ]] || return 1
  printf '%s %s %s\n' "$1" "${fields[19]}" "$(cat /proc/sys/kernel/random/boot_id)"
}

# alive FILE: the process whose identity is in FILE still is that process.
alive() {
  local pid rest
  [[ -s $1 ]] || return 1
  read -r pid rest <"$1"
  [[ "$(identity "$pid")" == "$pid $rest" ]]
}

pid_in() {
  local pid rest
  read -r pid rest <"$1"
  echo "$pid"
}

# child_of PID prints its first child.
child_of() {
  local file stat fields
  for file in /proc/[0-9]*/stat; do
    stat=$(cat "$file" 2>/dev/null) || continue
    read -ra fields <<<"${stat##*) }"
    if [[ ${fields[1]} == "$1" ]]; then
      echo "${stat%% *}"
      return 0
    fi
  done
  return 1
}

running() { alive "$STATE/keeper" && alive "$STATE/init"; }
gone() { ! alive "$STATE/init"; }

# inside CMD…: run it in the cluster's namespaces, in the present folder. It is told to end if this one ends.
inside() {
  nsenter --target "$(pid_in "$STATE/init")" --net --mount --pid --ipc --uts --wdns="$PWD" -- \
    setpriv --pdeathsig TERM "$@"
}

# end_processes ends this state folder's run, if there is one, and nothing else.
end_processes() {
  local file
  for file in "$STATE/keeper" "$STATE/init"; do
    if alive "$file"; then
      kill -KILL "$(pid_in "$file")" 2>/dev/null || true
    fi
  done
  if [[ -s $STATE/init ]]; then
    rm -f "$STATE/failed"
    wait_for 30 "the processes to end" node gone
  fi
}

# cgroup_folders prints this cluster's folder in each hierarchy: several in cgroup v1, one in v2.
cgroup_folders() {
  local folder
  for folder in "/sys/fs/cgroup/$CGROUP" /sys/fs/cgroup/*/"$CGROUP"; do
    if [[ -d $folder ]]; then
      echo "$folder"
    fi
  done
}

cgroups_empty() {
  local folder
  for folder in $(cgroup_folders); do
    if find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null | grep -q .; then
      return 1
    fi
  done
}

remove_cgroups() {
  local folder
  wait_for 30 "the containers' processes to end" node cgroups_empty
  for folder in $(cgroup_folders); do
    find "$folder" -depth -type d -exec rmdir {} + || say "could not remove the cgroup $folder"
  done
}
