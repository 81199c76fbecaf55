#!/bin/sh
# Take an installation down, replicas included, which Compose knows nothing of: down.sh [PROJECT] [options of docker compose down]
# With -v its data goes, too. Images stay, but those of models and environments with -v.
set -eu
cd "$(dirname "$0")/../.."
project=${1:-${COMPOSE_PROJECT_NAME:-servery}}
[ $# -gt 0 ] && shift

docker compose -p "$project" down --timeout 30 "$@"
label="label=servery.installation=$project"
docker ps -aq --filter "$label" | xargs -r docker rm -f -v >/dev/null
docker network ls -q --filter "$label" | xargs -r docker network rm >/dev/null
case " $* " in
  *" -v "* | *" --volumes "*) docker images -q --filter "$label" | sort -u | xargs -r docker rmi -f >/dev/null ;;
esac
