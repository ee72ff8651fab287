#!/usr/bin/env bash
# kcat as Debian ships it.
cd "$(dirname "$0")"
. ../daemon.sh
daemon_start
out=$WORK/out.txt

kcat -b "$BOOTSTRAP" -L >"$out"
check "metadata lists task-events" grep -q 'topic "task-events"' "$out"
for codec in none gzip snappy lz4 zstd; do
  seq 1 5000 | kcat -b "$BOOTSTRAP" -P -t "kcat-$codec" -z $codec -X enable.idempotence=true
  check "produce and consume 5,000 with $codec" \
    test "$(kcat -b "$BOOTSTRAP" -C -t "kcat-$codec" -o beginning -e -q | sort -n | uniq | wc -l)" = 5000
done
check "compressed batches stay compressed on disk" \
  test "$(stat -c %s "$WORK"/data/log/kcat-zstd-0/*.log)" -lt "$(stat -c %s "$WORK"/data/log/kcat-none-0/*.log)"
check "the last 3 records" test "$(kcat -b "$BOOTSTRAP" -C -t kcat-none -o -3 -e -q | tr '\n' ' ')" = "4998 4999 5000 "
check "offset by time" grep -q 'offset 0' <(kcat -b "$BOOTSTRAP" -Q -t kcat-none:0:1)
echo 'k1:v1' | kcat -b "$BOOTSTRAP" -P -t kcat-keys -K: -H trace=abc
check "key and header come back" \
  test "$(kcat -b "$BOOTSTRAP" -C -t kcat-keys -o beginning -e -q -f '%k %s %h\n')" = "k1 v1 trace=abc"
timeout 20 kcat -b "$BOOTSTRAP" -X auto.offset.reset=earliest -G kcat-group -c 5000 -q kcat-none >"$WORK/group.txt" 2>/dev/null
check "a consumer group reads all" test "$(sort -n "$WORK/group.txt" | uniq | wc -l)" = 5000

TOKEN=$(token grace)
id=kcat-$RANDOM
echo "{\"type\":\"task_created\",\"data\":{\"id\":\"$id\",\"title\":\"from kcat\",\"user_id\":\"grace\"}}" |
  kcat -b "$BOOTSTRAP" -P -t task-events
check "an event becomes a task" curl -fs --retry 20 --retry-delay 1 --retry-all-errors \
  -H "Authorization: Bearer $TOKEN" "$HTTP/api/tasks/$id" -o "$out"
echo 'not json' | kcat -b "$BOOTSTRAP" -P -t task-events
check "a bad record is a dead letter with its reason" grep -q 'taskwire-reason=invalid_json' \
  <(timeout 20 kcat -b "$BOOTSTRAP" -C -t task-events.dlq -o beginning -c 1 -q -f '%h\n')
echo "kcat: passed"
