#!/usr/bin/env bash
# Installs what `make run` and `make test` need beside Go and git: the
# PostgreSQL server programs, psql, PgBouncer, and curl to post orders with;
# with --test also the C compiler that go test -race needs, a Chromium for
# what a browser has to show, and Node and Python for the examples.
# Says nothing when nothing is missing. It never creates or starts a system
# PostgreSQL cluster or a system PgBouncer: Weir runs private instances from
# the programs alone (internal/localdb, which looks for them in the same
# places).
set -euo pipefail

readonly GO_MAJOR=1 GO_MINOR=26

# What is put into the system while packages are installed carries the mark.
readonly MARK="Temporary, by Weir's hack/install-deps.sh"
readonly NO_CLUSTER=/etc/postgresql-common/createcluster.d/weir.conf
readonly NO_SERVICES=/usr/sbin/policy-rc.d
# Its lock serialises runs on this machine. A directory that is there and that
# everybody may open: a lock file of our own would belong to its first maker.
readonly LOCKED=/var/lib/dpkg

say() { printf 'install-deps: %s\n' "$*"; }
die() {
  printf 'install-deps: %s\n' "$*" >&2
  exit 1
}

# have_program NAME FOLDER...: NAME in PATH or in one of the folders.
have_program() {
  local name=$1 folder
  shift
  if command -v "$name" >/dev/null 2>&1; then
    return 0
  fi
  for folder in "$@"; do
    if [[ -x "$folder/$name" ]]; then
      return 0
    fi
  done
  return 1
}

# An unmatched pattern must vanish, not stay as a literal path with a star.
shopt -s nullglob
postgres_folders() {
  printf '%s\n' /usr/lib/postgresql/*/bin \
    /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
    /usr/pgsql-*/bin
}

# compiles: Go's C compiler is there, with the C library's headers.
compiles() {
  local cc
  if [[ $(uname -s) == Darwin ]] && ! xcode-select -p >/dev/null 2>&1; then
    return 1 # /usr/bin/clang is there all the same, and would open a dialog
  fi
  # Words, not one name: CC may be "ccache gcc". Asked outside the module, as in check_go.
  read -ra cc < <(cd / && go env CC) || return 1
  command -v "${cc[0]-}" >/dev/null 2>&1 && "${cc[@]}" -E -x c - >/dev/null 2>&1 <<<'#include <stdlib.h>'
}

# have_browser: internal/app's browser test looks for the same names.
have_browser() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if have_program "$name"; then
      return 0
    fi
  done
  [[ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" || -x /Applications/Chromium.app/Contents/MacOS/Chromium ]]
}

# Prints the missing parts, one a line: server, client, pgbouncer, curl, and
# compiler, browser, node and python for the tests.
missing_parts() {
  local folders=() folder
  while IFS= read -r folder; do
    if [[ -n "$folder" ]]; then
      folders+=("$folder")
    fi
  done < <(postgres_folders)
  # ${folders[@]+…}: bash 3.2, which macOS ships, calls an empty array unbound.
  if ! have_program postgres ${folders[@]+"${folders[@]}"} ||
    ! have_program initdb ${folders[@]+"${folders[@]}"}; then
    echo server
  fi
  if ! have_program psql ${folders[@]+"${folders[@]}"}; then
    echo client
  fi
  if ! have_program pgbouncer /usr/sbin /opt/homebrew/bin /opt/homebrew/opt/pgbouncer/bin \
    /usr/local/bin /usr/local/opt/pgbouncer/bin; then
    echo pgbouncer
  fi
  if ! have_program curl; then
    echo curl
  fi
  if ((for_tests)) && ! compiles; then
    echo compiler
  fi
  if ((for_tests)) && ! have_browser; then
    echo browser
  fi
  if ((for_tests)) && ! have_program node; then
    echo node
  fi
  if ((for_tests)) && ! have_program python3; then
    echo python
  fi
}

check_go() {
  local version major minor
  if ! command -v go >/dev/null 2>&1; then
    die "Go is not in PATH; install Go $GO_MAJOR.$GO_MINOR or newer from https://go.dev/dl/"
  fi
  # Asked outside the module: inside, an old go would fetch go.mod's toolchain
  # or fail with its own words.
  version=$(cd / && go env GOVERSION)
  if [[ ! "$version" =~ go([0-9]+)\.([0-9]+) ]]; then
    say "cannot read the Go version from '$version'; going on"
    return
  fi
  major=${BASH_REMATCH[1]}
  minor=${BASH_REMATCH[2]}
  if ((major < GO_MAJOR || (major == GO_MAJOR && minor < GO_MINOR))); then
    die "Go $GO_MAJOR.$GO_MINOR or newer is needed, this is $version; see https://go.dev/dl/"
  fi
}

undo=()
clean_up() {
  local file
  for file in ${undo[@]+"${undo[@]}"}; do
    as_root rm -f -- "$file"
  done
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

sudo=()
as_root() { ${sudo[@]+"${sudo[@]}"} "$@"; }

# become_root makes as_root work, or fails. Where nobody can answer, nothing asks.
become_root() {
  if [[ $(id -u) -eq 0 ]]; then
    return 0
  fi
  command -v sudo >/dev/null 2>&1 || return 1
  if [[ -n "${CI:-}" || ! -t 0 ]]; then
    sudo=(sudo -n)
  else
    sudo=(sudo)
  fi
  "${sudo[@]}" true
}

# leftovers prints our temporary files. Under the lock: those of a run that was
# killed. A policy-rc.d that stayed would keep every service from starting.
leftovers() {
  local file
  for file in "$NO_CLUSTER" "$NO_SERVICES"; do
    if grep -qsF -- "$MARK" "$file"; then
      echo "$file"
    fi
  done
}

# lock takes the lock until this process and what it has started are gone: an
# apt-get that goes on after this was killed still needs the files above.
lock() {
  exec 9<"$LOCKED"
  if ! flock --nonblock 9; then
    say "waiting for another install-deps to end"
    flock --timeout 1800 9 || die "another install-deps has not ended for half an hour"
  fi
}

remove_leftovers() {
  local files=() file
  while IFS= read -r file; do
    files+=("$file")
  done < <(leftovers)
  if ((${#files[@]} == 0)); then
    return
  fi
  if become_root; then
    say "removing what a run that was killed left behind: ${files[*]}"
    as_root rm -f -- "${files[@]}"
  else
    say "a run that was killed left something behind; run as root: rm ${files[*]}"
  fi
}

# write_temporary FILE MODE: stdin into FILE, removed again at the end.
write_temporary() {
  undo+=("$1")
  as_root mkdir -p "$(dirname "$1")"
  as_root tee "$1" >/dev/null
  as_root chmod "$2" "$1"
}

install_debian() {
  local packages=() part
  for part in "$@"; do
    case $part in
    server) packages+=(postgresql) ;;
    client) packages+=(postgresql-client) ;;
    pgbouncer) packages+=(pgbouncer) ;;
    curl) packages+=(curl) ;;
    compiler) packages+=(gcc libc6-dev) ;; # gcc only recommends the headers
    browser) packages+=(chromium) ;;
    node) packages+=(nodejs) ;;
    python) packages+=(python3) ;;
    esac
  done
  say "missing: $*; installing ${packages[*]} with apt-get"
  if ! become_root; then
    die "not root, and sudo is not there, or would have to ask for a password, or refused; run as root:" \
      "apt-get install --no-install-recommends ${packages[*]}"
  fi

  # postgresql's install script makes a cluster and starts it, pgbouncer's
  # starts its service; both belong to the system and neither is wanted.
  if [[ ! -e "$NO_CLUSTER" ]]; then
    write_temporary "$NO_CLUSTER" 0644 <<CONF
# $MARK.
create_main_cluster = false
CONF
  fi
  if [[ ! -e "$NO_SERVICES" ]]; then
    write_temporary "$NO_SERVICES" 0755 <<POLICY
#!/bin/sh
# $MARK: start no service on installation.
exit 101
POLICY
  fi

  say "apt-get update"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null ||
    say "apt-get update failed; going on with the package lists that are there"
  say "apt-get install ${packages[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
    apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends "${packages[@]}" </dev/null

  # The package enables its service for the next boot.
  if [[ " ${packages[*]} " == *" pgbouncer "* ]] && command -v systemctl >/dev/null 2>&1; then
    as_root systemctl --quiet disable pgbouncer.service >/dev/null 2>&1 ||
      say "could not disable the system's pgbouncer.service; to do so: systemctl disable pgbouncer"
  fi
}

install_macos() {
  local packages=() part
  if [[ " $* " == *" compiler "* ]]; then
    die "missing: a C compiler, which go test -race needs; run: xcode-select --install"
  fi
  if [[ " $* " == *" browser "* ]]; then
    die "missing: a browser for the tests; install Google Chrome, or run: brew install --cask chromium"
  fi
  if ! command -v brew >/dev/null 2>&1; then
    die "missing: $*. Install Homebrew (https://brew.sh), then: brew install postgresql@16 pgbouncer"
  fi
  for part in "$@"; do
    case $part in
    server | client)
      # One formula has both; brew does not mind it named once only.
      if [[ " ${packages[*]-} " != *" postgresql@16 "* ]]; then
        packages+=(postgresql@16)
      fi
      ;;
    pgbouncer) packages+=(pgbouncer) ;;
    curl) packages+=(curl) ;; # macOS has it
    node) packages+=(node) ;;
    python) packages+=(python) ;;
    esac
  done
  say "missing: $*; brew install ${packages[*]}"
  brew install "${packages[@]}"
}

missing=()
find_missing() {
  local part
  missing=()
  while IFS= read -r part; do
    missing+=("$part")
  done < <(missing_parts)
}

for_tests=0
main() {
  case "${1-}" in
  --test) for_tests=1 ;;
  ?*) die "usage: hack/install-deps.sh [--test]" ;;
  esac
  check_go
  find_missing
  if ((${#missing[@]} == 0)) && [[ -z "$(leftovers)" ]]; then
    return
  fi

  if [[ $(uname -s) == Darwin ]]; then
    install_macos "${missing[@]}"
  elif [[ -e /etc/debian_version ]] && command -v apt-get >/dev/null 2>&1; then
    lock
    remove_leftovers
    find_missing # another run may have installed it meanwhile
    if ((${#missing[@]} == 0)); then
      return
    fi
    install_debian "${missing[@]}"
  else
    die "missing: ${missing[*]-}. Only Debian, Ubuntu and macOS are installed for; on this system" \
      "install the PostgreSQL server (14 or newer: postgres, initdb), psql, PgBouncer, curl and, for the tests, a C compiler, Chromium, Node and Python yourself," \
      "with the programs in PATH, and run this again"
  fi

  find_missing
  if ((${#missing[@]} > 0)); then
    die "still missing after the installation: ${missing[*]} (the compiler is \`go env CC\`: $(cd / && go env CC))"
  fi
  say "done"
}

main "$@"
