# Sourced by every run.sh: `daemon_start` and the addresses it sets; the daemon ends with the script.
# TASKWIRE names the binary; default: the debug build of this checkout.
set -euo pipefail
COMPAT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$COMPAT/../.." && pwd)
TASKWIRE=${TASKWIRE:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/taskwire}
VENV=${TASKWIRE_COMPAT_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/taskwire-compat-venv}
export TASKWIRE_JWT_SECRET=compat-secret-compat-secret-compat-secret
WORK=$(mktemp -d)
DAEMON_PID=

free_port() {
  python3 - <<'PY'
import random, socket
while True:
    port = random.randrange(15000, 32000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
PY
}

daemon_stop() {
  [ -n "$DAEMON_PID" ] || return 0
  kill "${1:--TERM}" "$DAEMON_PID" 2>/dev/null || true
  wait "$DAEMON_PID" 2>/dev/null || true
  DAEMON_PID=
}

# Starts, or starts again on the same ports and data.
daemon_start() {
  KAFKA_PORT=${KAFKA_PORT:-$(free_port)}
  HTTP_PORT=${HTTP_PORT:-$(free_port)}
  export BOOTSTRAP=127.0.0.1:$KAFKA_PORT HTTP=http://127.0.0.1:$HTTP_PORT
  "$TASKWIRE" serve --data-dir "$WORK/data" --http-listen "127.0.0.1:$HTTP_PORT" \
    --kafka-listen "$BOOTSTRAP" >>"$WORK/daemon.log" 2>&1 &
  DAEMON_PID=$!
  for _ in $(seq 100); do
    if curl -fs "$HTTP/readyz" >/dev/null 2>&1; then return 0; fi
    kill -0 "$DAEMON_PID" 2>/dev/null || break
    sleep 0.1
  done
  echo "the daemon did not become ready:" >&2
  tail -20 "$WORK/daemon.log" >&2
  exit 1
}

token() { "$TASKWIRE" token --user "$1"; }

finish() {
  status=$?
  daemon_stop
  if [ $status -ne 0 ]; then
    echo "$(basename "$PWD"): FAILED; the daemon's last words:" >&2
    tail -20 "$WORK/daemon.log" >&2 || true
  fi
  rm -rf "$WORK"
  exit $status
}
trap finish EXIT

# check NAME CONDITION...: runs the condition, says the name.
check() {
  local name=$1; shift
  if "$@"; then echo "  ok  $name"; else echo "  FAILED  $name" >&2; exit 1; fi
}
