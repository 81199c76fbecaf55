#!/bin/sh
# Bring up a compute plane through the engine of its machine (docs/leaf-nodes.md): what was issued for its server, the server, and the
# worker's image. Run it first, after an upgrade, and when its certificate was replaced: what is there already is left as it is. The
# control plane's container `credentials` has to run.
set -eu
cd "$(dirname "$0")/../.."

# What the environment says, else `.env`, which Compose reads for the control plane: both sides have to mean the same.
setting() {
  value=$(printenv "$1") || value=$(sed -n "s/^$1=\([^#]*\).*/\1/p" .env 2>/dev/null | tail -n 1 | tr -d ' "'\')
  echo "${value:-$2}"
}
SERVERY_COMPUTE_PLANE_PORT=$(setting SERVERY_COMPUTE_PLANE_PORT 7422)
SERVERY_COMPUTE_PLANE_BIND=$(setting SERVERY_COMPUTE_PLANE_BIND 0.0.0.0)
SERVERY_COMPUTE_PLANE_PROJECT=$(setting SERVERY_COMPUTE_PLANE_PROJECT servery-compute-plane)
export SERVERY_COMPUTE_PLANE_PORT SERVERY_COMPUTE_PLANE_BIND SERVERY_COMPUTE_PLANE_PROJECT
project=$SERVERY_COMPUTE_PLANE_PROJECT
socket=$(setting SERVERY_COMPUTE_PLANE_ENGINE /run/servery/compute-plane)/engine.sock

[ -S "$socket" ] || { echo "There is no socket $socket: open the way to the engine over there first (docs/leaf-nodes.md)." >&2; exit 1; }
there() { docker -H "unix://$socket" "$@"; }
unpack() { there run --rm --interactive --network none --volume "$project:/to" --entrypoint tar nats:2.15.1-alpine -C /to -xf -; }

there volume create "$project" >/dev/null
docker compose exec -T credentials tar -C /credentials/compute-plane -cf - . | unpack
tar -C deploy/compute-plane --owner 0 --group 0 -cf - nats.conf | unpack
there compose --project-name "$project" --file deploy/compute-plane/docker-compose.yml up --detach --wait
# It may have run with what was there before.
there kill --signal HUP "$project-nats-1" >/dev/null
there compose build worker-image
