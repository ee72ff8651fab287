#!/usr/bin/env bash
cd "$(dirname "$0")"
. ../daemon.sh
daemon_start
export TOKEN PYTHONPATH=$COMPAT PYTHONDONTWRITEBYTECODE=1
TOKEN=$(token ada)
python() { "$VENV/bin/python" "$@"; }
send() {
  python -c 'import sys, kafka; p = kafka.KafkaProducer(bootstrap_servers=sys.argv[1], acks="all")
for topic in sys.argv[3:]: p.send(topic, sys.argv[2].encode()).get(10)' "$BOOTSTRAP" "$@"
}
until_there() {
  for _ in $(seq 300); do [ -e "$1" ] && return 0; sleep 0.1; done
  echo "  FAILED  no $1" >&2; exit 1
}

python check.py

# The daemon is killed under two members that die with it and two that live on; one of each is static.
topics="die-dynamic die-static live-dynamic live-static"
send before $topics
for kind in dynamic static; do
  "$VENV/bin/python" back.py join "die-$kind" $kind "$WORK" & dying="${dying-} $!"
  "$VENV/bin/python" back.py stay "live-$kind" $kind "$WORK" & living="${living-} $!"
done
for kind in dynamic static; do
  until_there "$WORK/die-$kind-join"
  until_there "$WORK/live-$kind-stay"
done
kill -KILL $dying
daemon_stop -KILL
daemon_start
send after $topics
touch "$WORK/back"
for kind in dynamic static; do python back.py again "die-$kind" $kind "$WORK"; done
for pid in $living; do wait "$pid"; done
echo "kafka-python: passed"
