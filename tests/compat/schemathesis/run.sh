#!/usr/bin/env bash
# schemathesis against the running daemon by its own description, with all checks.
# run.sh [SECONDS [SEED]]: how long, default 60; which requests, default always the same ones.
SECONDS_MAX=${1:-60} SEED=${2:-5710}
cd "$(dirname "$0")"
. ../daemon.sh
daemon_start
TOKEN=$("$TASKWIRE" token --user schemathesis --admin)
export TOKEN
# Dead letters, so that their routes have something to show.
printf 'not JSON\n{"type":"task_created"}\n\xff\n' | kcat -b "$BOOTSTRAP" -P -t task-events
echo "  seed $SEED"
check "schemathesis, with all checks" "$VENV-schemathesis/bin/schemathesis" run "$HTTP/openapi.json" \
  --checks all --seed "$SEED" --max-time "$SECONDS_MAX" --no-color
echo "schemathesis: passed"
