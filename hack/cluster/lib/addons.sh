# shellcheck shell=bash
# What a cluster has beside the node: DNS, storage, the registry, Knative Serving.

# apply FILE: server-side, as some resources are too large for the annotation of the other way.
apply() {
  inside kubectl apply --server-side --force-conflicts -f - <"$1" >>"$LOGS/apply.log" 2>&1 && return
  show_log apply
  die "kubectl apply failed for $1"
}

rolled_out() {
  local namespace=$1 what=$2
  inside kubectl -n "$namespace" rollout status "$what" --timeout=180s >>"$LOGS/rollout.log" 2>&1 && return
  inside kubectl -n "$namespace" get pods,events >&2 || true
  show_log kubelet
  die "$what in $namespace did not become ready"
}

registry_answers() { inside curl --silent --fail --max-time 2 "http://$REGISTRY/v2/base/manifests/v1"; }

# established: kubectl wait gives up at once on a definition that is too new to have any conditions.
established() { inside kubectl wait --for=condition=Established crd --all --timeout=5s >/dev/null 2>&1; }

# settings: all that runs no pod, so that it needs no image.
settings() {
  apply "$HACK_CLUSTER/manifests/storage.yaml"
  apply "$KNATIVE_YAML/resources.yaml"
  wait_for 60 "the custom resource definitions" apply established
  apply "$KNATIVE_YAML/settings.yaml"
  knative_setting config-network ingress-class kingress.ingress.networking.knative.dev
  knative_setting config-domain example.com ""
  # A tag of these is not looked up by Knative: only the node's containerd can reach them.
  knative_setting config-deployment registries-skipping-tag-resolving "ko.local,dev.local,kind.local,$REGISTRY"
  # A tenth of the usual times, so that tests see scaling without waiting minutes for it.
  knative_setting config-autoscaler scale-to-zero-grace-period 10s
  knative_setting config-autoscaler stable-window 10s
  knative_setting config-autoscaler scale-to-zero-pod-retention-period 0s
}

knative_setting() {
  inside kubectl -n knative-serving patch configmap "$1" --type merge --patch "{\"data\": {\"$2\": \"$3\"}}" >/dev/null
}

# rollout starts the pods, all at once, and waits for all.
rollout() {
  local deployment
  apply "$HACK_CLUSTER/manifests/coredns.yaml"
  apply "$HACK_CLUSTER/manifests/kingress.yaml"
  apply "$KNATIVE_YAML/deployments.yaml"
  wait_for 30 "the registry" registry registry_answers
  rolled_out kube-system deployment/coredns
  for deployment in controller webhook autoscaler activator kingress; do
    rolled_out knative-serving "deployment/$deployment"
  done
}
