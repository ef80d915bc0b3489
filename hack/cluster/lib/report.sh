# shellcheck shell=bash
# What the scripts say: to the person, with the times of the steps.

say() { printf 'cluster: %s\n' "$*"; }
die() {
  printf 'cluster: %s\n' "$*" >&2
  exit 1
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# step NAME FUNCTION…: run it and say how long it took.
step() {
  local name=$1 start
  shift
  start=$(now_ms)
  "$@"
  printf 'cluster: %-10s %6d ms\n' "$name" $(($(now_ms) - start))
}

# show_log NAME: the end of a log, for a failure.
show_log() {
  local file=$LOGS/$1.log
  [[ -s $file ]] || return 0
  printf -- '--- the end of %s\n' "$file" >&2
  tail -n 15 "$file" | cut -c1-300 >&2
}

# wait_for SECONDS WHAT LOG CMD…: until CMD succeeds; if it doesn't, say what was waited for and show the log.
wait_for() {
  local seconds=$1 what=$2 log=$3 deadline
  shift 3
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if [[ -e $STATE/failed ]]; then
      cat "$STATE/failed" >&2
      show_log "$(sed -n 's/^\([a-z-]*\) ended.*/\1/p' "$STATE/failed")"
      die "a part of the cluster ended while waiting for $what"
    fi
    if ((SECONDS >= deadline)); then
      show_log "$log"
      die "waited $seconds s for $what, in vain; all logs: $LOGS"
    fi
    sleep 0.1
  done
}
