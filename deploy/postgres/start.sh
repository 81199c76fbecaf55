#!/bin/sh
# Start Postgres of the compose file: with the password that was issued, and with TLS unless somebody chose to do without.
#
# SERVERY_POSTGRES_TLS is on or off. It is never off because something did not work: a build without TLS does not start with
# on, and clients that have it refuse a server without (docs/decisions/0029-postgres-over-tls.md).
set -eu
issued=/run/servery/credentials

case "${SERVERY_POSTGRES_TLS:-}" in
  on)
    # Asks the program, not the data: there may be none yet. -C is the one thing it does for root.
    library=$(postgres -C ssl_library -D /tmp --config-file=/dev/null -c log_min_messages=fatal)
    if [ -z "$library" ]; then
      echo "This build of Postgres ($(postgres --version)) cannot do TLS, and SERVERY_POSTGRES_TLS is on. Use an image whose" \
        "Postgres was built with OpenSSL, as the public one is, or set SERVERY_POSTGRES_TLS=off (in .env) to let everybody in the" \
        "network of the services read and change what goes to and from the database." >&2
      exit 1
    fi
    set -- "$@" -c ssl=on -c ssl_min_protocol_version=TLSv1.3 -c "ssl_cert_file=$issued/tls.pem" \
      -c "ssl_key_file=$issued/tls.pem" -c hba_file=/etc/servery/postgres/pg_hba.conf
    ;;
  off)
    echo "SERVERY_POSTGRES_TLS is off: passwords are safe, but everything else is sent in plain text." >&2
    ;;
  *)
    echo "SERVERY_POSTGRES_TLS is '${SERVERY_POSTGRES_TLS:-}': set it to on or off." >&2
    exit 1
    ;;
esac

# The image's own variable for a file is not read by every image of this name.
POSTGRES_PASSWORD=$(cat "$issued/env/POSTGRES_PASSWORD")
export POSTGRES_PASSWORD
exec docker-entrypoint.sh "$@"
