#!/usr/bin/env bash
cd "$(dirname "$0")"
. ../daemon.sh
daemon_start
TOKEN=$(token ada) "$VENV/bin/python" check.py
echo "aiokafka: passed"
