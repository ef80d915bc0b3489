#!/usr/bin/env bash
# Removes the cluster of hack/kind-up.sh with all that is in it: hack/kind-down.sh [NAME]
set -euo pipefail

command -v kind >/dev/null || {
  echo "kind-down: kind is missing, so there is no cluster of its making" >&2
  exit 1
}
kind delete cluster --name "${1:-weir}"
