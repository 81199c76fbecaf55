#!/bin/bash
# As the public image's: makes the cluster at the first start, with the settings it is to run with.
set -eu
run=/var/run/postgresql
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" "$run"
  chown -R postgres "$PGDATA" "$run"
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb -D "$PGDATA" -U postgres -E UTF8 --auth-local=trust --auth-host=scram-sha-256 --pwfile=<(echo "$POSTGRES_PASSWORD")
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -w start -o "$(printf '%q ' "${@:2}" -c listen_addresses= -c "unix_socket_directories=$run")"
  for file in /docker-entrypoint-initdb.d/*.sql; do
    psql -h "$run" -U postgres -v ON_ERROR_STOP=1 --no-psqlrc -f "$file"
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c "unix_socket_directories=$run" "${@:2}"
