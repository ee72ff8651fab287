#!/usr/bin/env bash
cd "$(dirname "$0")"
. ../daemon.sh
daemon_start
TOKEN=$(token ada) PYTHONPATH=$COMPAT PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" check.py
echo "kafka-python: passed"
