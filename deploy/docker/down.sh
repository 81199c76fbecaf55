#!/bin/sh
# Take an installation down, replicas included, which Compose knows nothing of: down.sh [PROJECT] [options of docker compose down]
# Without PROJECT it is the one that `docker compose` means here: COMPOSE_PROJECT_NAME of the environment, else of `.env`.
# With -v its data goes, too. Images stay, but those of models and environments with -v.
set -eu
cd "$(dirname "$0")/../.."
case ${1:-} in
  "" | -*)
    project=$(docker compose config | sed -n 's/^name: *//p' | tr -d \"\')
    # Never somebody else's because the name is not known.
    [ -n "$project" ] || { echo "docker compose does not say which project this is: name it, as in down.sh servery" >&2; exit 1; }
    ;;
  *)
    project=$1
    shift
    ;;
esac

docker compose -p "$project" down --timeout 30 "$@"
label="label=servery.installation=$project"
docker ps -aq --filter "$label" | xargs -r docker rm -f -v >/dev/null
docker network ls -q --filter "$label" | xargs -r docker network rm >/dev/null
case " $* " in
  *" -v "* | *" --volumes "*) docker images -q --filter "$label" | sort -u | xargs -r docker rmi -f >/dev/null ;;
esac
