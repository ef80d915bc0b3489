#!/bin/sh
# Starts PostgreSQL as the Docker official image does, for any uid but root.
#   POSTGRES_PASSWORD (needed), POSTGRES_USER (postgres), POSTGRES_DB (the user's name), each also as NAME_FILE;
#   POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD (scram-sha-256), PGDATA.
# /docker-entrypoint-initdb.d/*.sql run once, on the first start.
set -eu

say() { echo "entrypoint: $*"; }
die() {
  echo "entrypoint: $*" >&2
  exit 1
}

# setting NAME DEFAULT prints $NAME, or what the file $NAME_FILE holds, or the default.
setting() {
  eval "value=\${$1:-} file=\${$1_FILE:-}"
  # shellcheck disable=SC2154 # set by eval
  if [ -n "$file" ]; then
    value=$(cat "$file")
  fi
  printf '%s' "${value:-$2}"
}

# as_known_user CMD...: initdb wants to know the name of its uid.
as_known_user() {
  if id -un >/dev/null 2>&1; then
    "$@"
    return
  fi
  printf 'postgres:x:%s:%s::/:/sbin/nologin\n' "$(id -u)" "$(id -g)" >/dev/shm/passwd
  printf 'postgres:x:%s:\n' "$(id -g)" >/dev/shm/group
  LD_PRELOAD=/usr/lib/libnss_wrapper.so NSS_WRAPPER_PASSWD=/dev/shm/passwd NSS_WRAPPER_GROUP=/dev/shm/group "$@"
  rm -f /dev/shm/passwd /dev/shm/group
}

initialise() {
  password=$(setting POSTGRES_PASSWORD '')
  user=$(setting POSTGRES_USER postgres)
  database=$(setting POSTGRES_DB "$user")
  [ -n "$password" ] || die "POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) is not set"

  # The password by a pipe: it is never in a file or in the arguments.
  # shellcheck disable=SC2086 # several arguments
  printf '%s\n' "$password" | as_known_user initdb --pgdata="$PGDATA" --username="$user" --pwfile=/dev/stdin \
    --encoding=UTF8 ${POSTGRES_INITDB_ARGS:-}
  printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  printf "\nlisten_addresses = '*'\nunix_socket_directories = '/var/run/postgresql'\n" >>"$PGDATA/postgresql.conf"

  # A server for the first statements that nobody else can reach; /dev/shm can be written under a read-only root.
  pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses='' -c unix_socket_directories=/dev/shm" start
  if [ "$database" != postgres ]; then
    printf 'CREATE DATABASE :"database";\n' | sql postgres --set=database="$database"
  fi
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
    *.sql)
      say "running $script"
      sql "$database" --file="$script"
      ;;
    */\*) ;; # nothing there
    *) say "ignoring $script: only *.sql are run" ;;
    esac
  done
  pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop
}

# sql DATABASE ARGUMENT... on the first server.
sql() {
  to=$1
  shift
  psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=/dev/shm --username="$user" --dbname="$to" "$@"
}

case ${1:-} in
'' | -*) set -- postgres "$@" ;;
esac
if [ "$1" != postgres ]; then
  exec "$@"
fi
[ "$(id -u)" != 0 ] || die "PostgreSQL refuses to run as root; set securityContext.runAsUser, for example to 999"

export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
mkdir -p "$PGDATA" || die "uid $(id -u) cannot make PGDATA ($PGDATA); set securityContext.fsGroup to the volume's group"
# The kubelet's fsGroup opens the folder to the group at each start; PostgreSQL wants it closed.
chmod 0700 "$PGDATA" || die "PGDATA ($PGDATA) is not uid $(id -u)'s own; set it to a folder below the volume's root"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initialise
fi
if [ ! -w /var/run/postgresql ]; then
  say "no local sockets: mount an emptyDir at /var/run/postgresql to have them"
  shift
  set -- postgres -c unix_socket_directories= "$@"
fi
exec "$@"
