#!/usr/bin/env bash
# Makes the corpora anew from real clients' frames and from seeds.py, and keeps of them what covers
# something of its own. Needs the clients of tests/compat/install.sh.
. "$(dirname "$0")/../compat/daemon.sh"
HERE=$ROOT/tests/fuzz
cd "$HERE"
KAFKA_PORT=$(free_port) HTTP_PORT=$(free_port) proxy=$(free_port)
export BOOTSTRAP=127.0.0.1:$proxy HTTP=http://127.0.0.1:$HTTP_PORT
rm -rf target/seeds
mkfifo "$WORK/stop"
python3 seeds.py target/seeds "$proxy" "$KAFKA_PORT" <"$WORK/stop" >"$WORK/proxy" &
exec 9>"$WORK/stop"
"$TASKWIRE" serve --data-dir "$WORK/data" --http-listen "127.0.0.1:$HTTP_PORT" \
  --kafka-listen "127.0.0.1:$KAFKA_PORT" --kafka-advertise "$BOOTSTRAP" >>"$WORK/daemon.log" 2>&1 &
DAEMON_PID=$!
until grep -q ready "$WORK/proxy" && curl -fs "$HTTP/readyz" >/dev/null; do sleep 0.1; done

export TOKEN PYTHONPATH=$COMPAT PYTHONDONTWRITEBYTECODE=1
TOKEN=$(token ada)
"$VENV/bin/python" "$COMPAT/kafka-python/check.py" >/dev/null
"$VENV/bin/python" "$COMPAT/aiokafka/check.py" >/dev/null
for codec in none gzip snappy lz4 zstd; do
  seq 1 20 | kcat -b "$BOOTSTRAP" -P -t "kcat-$codec" -z $codec -X enable.idempotence=true
  kcat -b "$BOOTSTRAP" -C -t "kcat-$codec" -o beginning -e -q >/dev/null
done
kcat -b "$BOOTSTRAP" -X auto.offset.reset=earliest -G seeds -c 20 -q kcat-none >/dev/null
exec 9>&-
daemon_stop

for target in target/seeds/*; do
  name=$(basename "$target")
  rm -rf "corpus/$name"
  ./run.sh --merge "target/seeds/$name" "$name" >/dev/null 2>"$WORK/merge" || { tail "$WORK/merge"; exit 1; }
  echo "$name: $(ls "corpus/$name" | wc -l) inputs, $(du -sb "corpus/$name" | cut -f1) bytes"
done
