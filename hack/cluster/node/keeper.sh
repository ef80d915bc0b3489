#!/usr/bin/env bash
# The one process of a run that is not in the cluster's namespaces. It writes down who it is before anything else, so
# that a run whose starter was killed is still found, and then becomes unshare: killed, it takes its child with it, and
# that one, being the first of its PID namespace, all others.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/cluster/lib/settings.sh
. "$here/../lib/settings.sh"
# shellcheck source=hack/cluster/lib/process.sh
. "$here/../lib/process.sh"

identity $$ >"$STATE/keeper"
exec unshare --net --mount --pid --ipc --uts --fork --kill-child --mount-proc -- "$here/init.sh"
