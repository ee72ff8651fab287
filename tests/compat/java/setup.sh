#!/usr/bin/env bash
# Fetches Apache Kafka's tools into the user's cache folder, once.
set -euo pipefail
cd "$(dirname "$0")"
. ./env.sh
[ -f "$LIBS/.complete" ] && exit 0
mkdir -p "$LIBS"
mvn -q -B -f pom.xml dependency:copy-dependencies -DoutputDirectory="$LIBS" -DincludeScope=runtime
touch "$LIBS/.complete"
