#!/usr/bin/env bash
# Tests the cluster that is up: Knative scales from zero and keeps its limit, a volume outlives its pod, what kubectl
# forwards and executes arrives, pods end as they should, and what is pushed to the registry runs. It works in a
# namespace of its own, which is gone afterwards. Every check is printed; the exit code is 1 if one failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for part in settings report process node; do
  # shellcheck source=/dev/null
  . "$here/lib/$part.sh"
done

readonly SPACE=weir-cluster-test
passed=0
failed=0
check() {
  local what=$1
  shift
  if "$@"; then
    printf 'ok    %s\n' "$what"
    passed=$((passed + 1))
  else
    printf 'FAIL  %s: %s\n' "$what" "$*"
    failed=$((failed + 1))
  fi
}
kube() { inside kubectl --namespace "$SPACE" "$@"; }

work=$(mktemp -d)
forward=
clean_up() {
  [[ -z $forward ]] || kill "$forward" 2>/dev/null || true
  inside kubectl delete namespace "$SPACE" --ignore-not-found --wait=false >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

# --- Knative

# get PATH FILE: prints the status; the answer is in the file.
get() {
  inside curl --silent --max-time 60 --output "$2" --write-out '%{http_code}' \
    --header "Host: hello.$SPACE.example.com" "http://$INGRESS_IP/$1"
}

# live_pods prints the names of the function's pods that are not on their way out: queue-proxy takes 30 s to leave.
live_pods() {
  kube get pods --selector serving.knative.dev/service=hello \
    --output go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}'
}
no_live_pods() { [[ -z $(live_pods) ]]; }

test_knative() {
  local start most=0 now load
  kube apply --filename - <"$here/manifests/test/function.yaml" >/dev/null
  if ! kube wait --for=condition=Ready kservice/hello --timeout=120s >/dev/null; then
    kube describe kservice,pods >"$LOGS/test.log" 2>&1
    show_log test
    die "the function did not become ready; what was seen of it: $LOGS/test.log"
  fi
  wait_for 120 "the function to scale to zero" node no_live_pods
  start=$(now_ms)
  check "an answer from zero pods" test "$(get '' "$work/first")" = 200
  say "a cold start took $(($(now_ms) - start)) ms"

  # 12 at a time, each held for half a second, one at a time in each pod, 3 pods at most: 20 s of work.
  inside curl --silent --max-time 120 --parallel --parallel-max 12 --header "Host: hello.$SPACE.example.com" \
    --output "$work/answer.#1" --write-out '%{http_code}\n' "http://$INGRESS_IP/?ms=500&n=[1-120]" >"$work/codes" 2>/dev/null &
  load=$!
  while kill -0 "$load" 2>/dev/null; do
    now=$(live_pods | wc -l)
    ((now <= most)) || most=$now
  done
  wait "$load" || true
  check "all of 120 calls under load are answered" test "$(grep -c '^200$' "$work/codes")" = 120
  check "max-scale 3 is reached and held" test "$most" = 3
  check "containerConcurrency 1 is held" test "$(grep -ho 'most=[0-9]*' "$work"/answer.* | sort -u)" = most=1
  check "a host that nobody has is refused" test \
    "$(inside curl --silent --output /dev/null --write-out '%{http_code}' --header 'Host: nobody.example.com' "http://$INGRESS_IP/")" = 404
}

# --- PostgreSQL behind PgBouncer, on a volume

query() { kube exec postgres-0 -- psql --no-psqlrc --quiet --tuples-only --no-align --username orders --command "$1"; }
# Through PgBouncer and the network, so with the password.
query_pooled() {
  kube exec postgres-0 -- sh -c "PGPASSWORD=secret psql --no-psqlrc --quiet --tuples-only --no-align \
    --host pgbouncer --port 6432 --username orders --command '$1'"
}
volume_folders() { find "$STATE/volumes" -mindepth 1 -maxdepth 1 | wc -l; }
volumes_back_to() { (($(volume_folders) == $1)); }

test_storage() {
  local before old
  before=$(volume_folders)
  kube apply --filename - <"$here/manifests/test/postgres.yaml" >/dev/null
  kube rollout status statefulset/postgres --timeout=120s >/dev/null
  kube rollout status deployment/pgbouncer --timeout=60s >/dev/null
  query "INSERT INTO kept VALUES (42)" >/dev/null
  check "PostgreSQL answers through PgBouncer" test "$(query_pooled 'SELECT n FROM kept')" = 42
  check "a wrong password is refused" refused
  check "PostgreSQL runs as the pod's uid" test "$(kube exec postgres-0 -- id -u)" = 1234
  old=$(kube get pod postgres-0 --output 'jsonpath={.metadata.uid}')
  kube logs postgres-0 --follow >"$work/postgres.log" 2>&1 &
  kube delete pod postgres-0 --wait=true >/dev/null
  kube rollout status statefulset/postgres --timeout=120s >/dev/null
  check "it is another pod" test "$(kube get pod postgres-0 --output 'jsonpath={.metadata.uid}')" != "$old"
  check "a volume outlives its pod" test "$(query 'SELECT n FROM kept')" = 42
  check "PostgreSQL was shut down the fast way" grep -q 'received fast shutdown request' "$work/postgres.log"
  kube delete statefulset/postgres --wait=true >/dev/null
  kube delete persistentvolumeclaim --all --wait=true >/dev/null
  wait_for 60 "the volume to be reclaimed" provisioner volumes_back_to "$before"
  check "a volume is removed with its claim" volumes_back_to "$before"
}

refused() {
  local said
  said=$(kube exec postgres-0 -- sh -c 'PGPASSWORD=wrong psql --host postgres --username orders' 2>&1 </dev/null) || true
  [[ $said == *"password authentication failed"* ]]
}

# --- kubectl's streams, and how pods end

forwarded() { inside curl --silent --fail --max-time 5 --output "$work/forwarded" http://127.0.0.1:18080/; }

test_pods() {
  local start took
  kube apply --filename - <"$here/manifests/test/plain.yaml" >/dev/null
  kube rollout status deployment/plain --timeout=60s >/dev/null
  inside kubectl --namespace "$SPACE" port-forward service/plain 18080:80 >"$LOGS/port-forward.log" 2>&1 &
  forward=$!
  wait_for 15 "the port-forward" port-forward forwarded
  check "a pod from the registry answers through a port-forward" grep -q '^pod=plain-' "$work/forwarded"
  kill "$forward" 2>/dev/null || true
  forward=

  kube logs deployment/plain --follow >"$work/plain.log" 2>&1 &
  start=$(now_ms)
  kube delete deployment/plain --cascade=foreground --wait=true >/dev/null
  took=$(($(now_ms) - start))
  check "preStop's sleep of 3 s came before the end (it took $took ms)" test "$took" -ge 3000
  check "the pod did not wait for its grace period of 30 s" test "$took" -lt 15000
  check "SIGTERM arrived and the program ended by itself" grep -q 'ended$' "$work/plain.log"
}

# --- NATS

test_nats() {
  kube run nats --image=ko.local/nats:v1 --restart=Never --port=4222 -- -p 4222 -js -sd /tmp >/dev/null
  check "the NATS image runs" kube wait --for=condition=Ready pod/nats --timeout=30s
}

main() {
  inside kubectl delete namespace "$SPACE" --ignore-not-found --timeout=120s >/dev/null
  inside kubectl create namespace "$SPACE" >/dev/null
  step storage test_storage
  step pods test_pods
  step nats test_nats
  step knative test_knative
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

main
