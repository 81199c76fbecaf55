#!/bin/sh
# Start a service: as user 10001, with the secrets that were issued for it.
#
# The controller and the builder start as root with nothing but the right to become somebody else: the group of the engine's socket
# differs between machines, and user 10001 has to be in it.
set -eu

if [ "$(id -u)" = 0 ] && [ "${SERVERY_SERVICE}" != credentials ]; then
  socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
  socket=${socket#unix://}
  groups=10001
  # One that leads to another machine (docs/leaf-nodes.md) may be opened a little later than this starts.
  tries=30
  while [ -n "${DOCKER_HOST:-}" ] && [ ! -S "$socket" ] && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 1
  done
  if [ -S "$socket" ]; then
    groups="$groups,$(stat -c %g "$socket")"
  else
    echo "There is no Docker socket at $socket: replicas and images cannot be made until it is mounted." >&2
  fi
  exec setpriv --reuid=10001 --regid=10001 --groups="$groups" --no-new-privs --inh-caps=-all "$0" "$@"
fi

# Each file is a variable: its name and its value. What was set from outside wins.
for file in /run/servery/credentials/env/*; do
  [ -f "$file" ] || continue
  name=${file##*/}
  eval "known=\${$name+yes}"
  [ -n "$known" ] || export "$name=$(cat "$file")"
done

# What lets a replica into NATS comes in variables and becomes files. Its model could read them: they open this replica's
# subjects and no others.
if [ -n "${SERVERY_REPLICA_NATS_CREDENTIALS:-}" ]; then
  umask 077
  mkdir -p /tmp/credentials
  printf '%s' "$SERVERY_REPLICA_NATS_CREDENTIALS" >/tmp/credentials/nats.creds
  printf '%s' "$SERVERY_REPLICA_CA" >/tmp/credentials/ca.crt
  printf '%s' "$SERVERY_REPLICA_CERTIFICATE" >/tmp/credentials/tls.pem
  export SERVERY_NATS_CREDENTIALS=/tmp/credentials/nats.creds SERVERY_NATS_TLS_CA=/tmp/credentials/ca.crt
  export SERVERY_NATS_TLS_CERT=/tmp/credentials/tls.pem SERVERY_NATS_TLS_KEY=/tmp/credentials/tls.pem
  unset SERVERY_REPLICA_NATS_CREDENTIALS SERVERY_REPLICA_CA SERVERY_REPLICA_CERTIFICATE
  umask 022
fi

if [ "${SERVERY_SERVICE}" = mlflow ]; then
  # What servery_common.postgres does for the services, libpq does for MLflow.
  case "${SERVERY_POSTGRES_TLS:-off}" in
    on) export PGSSLMODE=verify-full PGSSLROOTCERT="${SERVERY_POSTGRES_TLS_CA:?}" PGSSLMINPROTOCOLVERSION=TLSv1.3 ;;
    off) ;;
    *) echo "SERVERY_POSTGRES_TLS is '$SERVERY_POSTGRES_TLS': set it to on or off." >&2; exit 1 ;;
  esac
  exec mlflow server "$@"
fi
exec python -m "servery_${SERVERY_SERVICE}" "$@"
