#!/usr/bin/env bash
# Runs every client; prints `N passed, N failed` at the end.
set -uo pipefail
cd "$(dirname "$0")"
passed=0 failed=0
for folder in ${*:-librdkafka kcat kafka-python aiokafka java schemathesis}; do
  start=$SECONDS
  echo "== $folder"
  if timeout 600 "$folder/run.sh"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  echo "== $folder took $((SECONDS - start)) s"
done
echo "clients: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
