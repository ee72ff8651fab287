#!/usr/bin/env bash
cd "$(dirname "$0")"
. ../daemon.sh
cargo build -q --locked
daemon_start
"${CARGO_TARGET_DIR:-target}/debug/taskwire-compat-librdkafka"
TOKEN=$(token ada)
check "an event becomes a task" curl -fs --retry 20 --retry-delay 1 --retry-all-errors \
  -H "Authorization: Bearer $TOKEN" "$HTTP/api/tasks/rd-1" -o "$WORK/out.txt"
echo "librdkafka: passed"
