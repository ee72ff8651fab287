#!/usr/bin/env bash
# Apache Kafka's own command-line tools, unchanged, against the daemon.
cd "$(dirname "$0")"
. ../daemon.sh
. ./env.sh
daemon_start
B="--bootstrap-server $BOOTSTRAP"
out=$WORK/out.txt

tool broker-api-versions $B >"$out" 2>&1
check "broker-api-versions lists Produce" grep -q 'Produce(0)' "$out"

tool topics $B --create --topic orders --partitions 3 --config retention.ms=86400000 >"$out" 2>&1
check "topics --create" grep -q 'Created topic orders' "$out"
tool topics $B --list >"$out" 2>&1
check "topics --list" grep -qx orders "$out"
tool topics $B --describe --topic orders >"$out" 2>&1
check "topics --describe shows partitions" grep -q 'PartitionCount: 3' "$out"
check "topics --describe shows configs" grep -q 'retention.ms=86400000' "$out"
tool topics $B --alter --topic orders --partitions 4 >"$out" 2>&1
tool topics $B --describe --topic orders >"$out" 2>&1
check "topics --alter adds a partition" grep -q 'PartitionCount: 4' "$out"
tool configs $B --alter --entity-type topics --entity-name orders --add-config max.message.bytes=200000 >"$out" 2>&1
tool configs $B --describe --entity-type topics --entity-name orders >"$out" 2>&1
check "configs --alter and --describe" grep -q 'max.message.bytes=200000' "$out"

seq 1 2000 | tool producer $B --topic orders >"$out" 2>&1
tool consumer $B --topic orders --from-beginning --max-messages 2000 --timeout-ms 20000 \
  --group readers >"$WORK/read.txt" 2>"$out"
check "console producer and consumer: 2,000 records, each once" \
  test "$(sort -n "$WORK/read.txt" | uniq | wc -l)" = 2000
tool consumer-groups $B --describe --group readers >"$out" 2>&1
check "consumer-groups --describe shows no lag" \
  test "$(awk '$2 == "orders" { sum += $6 } END { print sum + 0 }' "$out")" = 0
tool consumer-groups $B --list >"$out" 2>&1
check "consumer-groups --list has readers and taskwire" \
  test "$(grep -cxE 'readers|taskwire' "$out")" = 2
tool consumer-groups $B --reset-offsets --group readers --topic orders --to-earliest --execute >"$out" 2>&1
tool consumer $B --topic orders --group readers --max-messages 2000 --timeout-ms 20000 >"$WORK/again.txt" 2>"$out"
check "a group reset to the start reads all again" test "$(wc -l <"$WORK/again.txt")" = 2000
tool consumer-groups $B --delete --group readers >"$out" 2>&1
check "consumer-groups --delete" grep -q 'successful' "$out"

for codec in none gzip snappy lz4 zstd; do
  tool producer-perf --topic "perf-$codec" --num-records 20000 --record-size 200 --throughput -1 \
    --producer-props "bootstrap.servers=$BOOTSTRAP" compression.type=$codec acks=all >"$out" 2>&1
  check "producer-perf $codec" grep -q '20000 records sent' "$out"
  tool consumer-perf $B --topic "perf-$codec" --num-records 20000 --timeout 20000 >"$out" 2>&1
  check "consumer-perf $codec reads all" grep -q ', 20000, ' "$out"
done
tool get-offsets $B --topic perf-none >"$out" 2>&1
check "get-offsets" grep -qx 'perf-none:0:20000' "$out"

timeout 60 bash -c ". ./env.sh; tool verifiable-producer $B --topic verified --max-messages 1000" >"$out" 2>&1
check "verifiable producer: 1,000 acknowledged" grep -q '"acked":1000' "$out"

id=java-$RANDOM
echo "{\"type\":\"task_created\",\"data\":{\"id\":\"$id\",\"title\":\"from the console producer\",\"user_id\":\"ada\"}}" |
  tool producer $B --topic task-events >"$out" 2>&1
TOKEN=$(token ada)
check "an event becomes a task" curl -fs --retry 20 --retry-delay 1 --retry-all-errors \
  -H "Authorization: Bearer $TOKEN" "$HTTP/api/tasks/$id" -o "$out"
tool consumer-groups $B --describe --group taskwire >"$out" 2>&1
check "apply shows as group taskwire without lag" \
  awk '$2 == "task-events" { seen = 1; lag += $6 } END { exit !(seen && lag == 0) }' "$out"

daemon_stop -KILL
daemon_start
tool get-offsets $B --topic perf-none >"$out" 2>&1
check "all records are there after kill -9" grep -qx 'perf-none:0:20000' "$out"
daemon_stop
segment=$(find "$WORK/data/log/perf-lz4-0" -name '*.log' | sort | head -1)
tool dump-log --files "$segment" >"$out" 2>&1
check "Kafka's dump tool reads our segment" grep -q 'compresscodec: lz4' "$out"
echo "java: passed"
