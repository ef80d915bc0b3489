# shellcheck shell=bash disable=SC2034 # others use them
# Names, folders and addresses, for every script here.

HACK_CLUSTER=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
REPOSITORY=$(cd "$HACK_CLUSTER/../.." && pwd -P)
readonly HACK_CLUSTER REPOSITORY

# Everything that this makes is below one folder; two clusters are two such folders.
WEIR_CLUSTER_DIR=${WEIR_CLUSTER_DIR:-$REPOSITORY/.cluster}
mkdir -p "$WEIR_CLUSTER_DIR"
CLUSTER_DIR=$(cd "$WEIR_CLUSTER_DIR" && pwd -P)
readonly CLUSTER_DIR
export WEIR_CLUSTER_DIR=$CLUSTER_DIR # the scripts inside the namespaces find the same
readonly BIN=$CLUSTER_DIR/bin        # built once
readonly IMAGES=$CLUSTER_DIR/images  # built once
readonly KNATIVE_YAML=$CLUSTER_DIR/knative
readonly STATE=$CLUSTER_DIR/state # of one run: down removes it
readonly LOGS=$CLUSTER_DIR/logs   # of the last run: down leaves it

# The one thing that is seen outside the cluster's namespaces, so it is derived from the folder.
CGROUP=weir-$(printf '%s' "$CLUSTER_DIR" | sha256sum | cut -c1-10)
readonly CGROUP

# Addresses are in a network namespace that leads nowhere: they meet nobody's.
readonly NODE=node
readonly NODE_IP=10.250.0.1
readonly POD_CIDR=10.244.0.0/24
readonly SERVICE_CIDR=10.96.0.0/16
readonly API_SERVICE_IP=10.96.0.1
readonly DNS_IP=10.96.0.10 # also in manifests/coredns.yaml
readonly INGRESS_IP=10.96.0.81 # also in manifests/kingress.yaml
readonly REGISTRY=localhost:5000
readonly CONTAINERD=/run/containerd/containerd.sock # inside the mount namespace

export KUBECONFIG=$STATE/kubeconfig
PATH=$BIN:$REPOSITORY/bin:$PATH:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
# Helm's caches must not be the user's.
export PATH HELM_CACHE_HOME=$STATE/helm HELM_CONFIG_HOME=$STATE/helm HELM_DATA_HOME=$STATE/helm
