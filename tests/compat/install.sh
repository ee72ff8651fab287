#!/usr/bin/env bash
# Fetches the clients that are missing. Needs root for Debian's packages, and Maven, Java and Python 3.
set -euo pipefail
cd "$(dirname "$0")"
VENV=${TASKWIRE_COMPAT_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/taskwire-compat-venv}
if ! command -v kcat >/dev/null || ! command -v jq >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq kcat jq
fi
if ! "$VENV/bin/python" -c 'import kafka, aiokafka' 2>/dev/null; then
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install -q --disable-pip-version-check -r requirements.txt
fi
if ! "$VENV-schemathesis/bin/schemathesis" --version >/dev/null 2>&1; then
  python3 -m venv "$VENV-schemathesis"
  "$VENV-schemathesis/bin/pip" install -q --disable-pip-version-check -r schemathesis/requirements.txt
fi
java/setup.sh
