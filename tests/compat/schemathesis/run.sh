#!/usr/bin/env bash
# schemathesis against the running daemon by its own description, with all checks.
# run.sh [SECONDS [SEED]]: how long, default 60; the seed of an earlier run, which is printed.
SECONDS_MAX=${1:-60} SEED=${2:-$RANDOM}
cd "$(dirname "$0")"
. ../daemon.sh
daemon_start
TOKEN=$("$TASKWIRE" token --user schemathesis --admin)
export TOKEN
echo "  seed $SEED"
check "schemathesis, with all checks" "$VENV-schemathesis/bin/schemathesis" run "$HTTP/openapi.json" \
  --checks all --seed "$SEED" --max-time "$SECONDS_MAX" --no-color
echo "schemathesis: passed"
