#!/bin/sh
# Healthy is a service whose event loop has turned within the last 15 s and that has said it can take work.
set -eu
if [ "${SERVERY_SERVICE}" = mlflow ]; then
  exec python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=2)"
fi
age=$(($(date +%s) - $(stat -c %Y "${SERVERY_HEALTH_FILE}")))
[ "$age" -lt 15 ] || { echo "not alive for $age s"; exit 1; }
