#!/usr/bin/env bash
# schemathesis against the running daemon by its own description, with all checks. TASKWIRE_SECONDS: how long
# (default 60); TASKWIRE_SEED: run an earlier run again.
cd "$(dirname "$0")"
. ../daemon.sh
SCHEMATHESIS=${TASKWIRE_SCHEMATHESIS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/taskwire-schemathesis-venv}
SEED=${TASKWIRE_SEED:-$RANDOM}
daemon_start
TOKEN=$("$TASKWIRE" token --user schemathesis --admin)
export TOKEN
echo "  seed $SEED"
check "schemathesis, with all checks" "$SCHEMATHESIS/bin/schemathesis" run "$HTTP/openapi.json" \
  --checks all --seed "$SEED" --max-time "${TASKWIRE_SECONDS:-60}" --no-color
echo "schemathesis: passed"
