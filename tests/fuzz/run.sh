#!/usr/bin/env bash
# Fuzzes every target, some at a time, with libFuzzer on the stable toolchain (docs/adr/0011-proof.md).
#
#   tests/fuzz/run.sh [--seconds N] [--jobs N] [--target NAME]...   N seconds for each; default 60
#   tests/fuzz/run.sh --fixed ...                                   the same runs each time, from the saved corpus alone
#   tests/fuzz/run.sh --merge DIR NAME                              adds to a corpus what is new in DIR
#
# With --fixed a change is not failed by luck that has nothing to do with it: the seed and the number of runs are
# fixed, and what earlier runs have found is not used. The seconds are a bound only.
# What it finds is kept in tests/fuzz/artifacts/, and new inputs for the next run in tests/fuzz/target/found/.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${FUZZ_SECONDS:-60} jobs=$(nproc) targets=() merge= fixed=
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --fixed) fixed=1; shift ;;
    --target) targets+=("$2"); shift 2 ;;
    --merge) merge=$2; targets=("$3"); shift 3 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[ ${#targets[@]} -gt 0 ] || targets=($(ls corpus))

# The coverage that libFuzzer asks for, as cargo-fuzz sets it, but for its `--cfg fuzzing`, by which some
# crates are other code than in the daemon. With --target, build scripts are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cp ../../Cargo.lock Cargo.lock # what is fuzzed is what the daemon is built from
CARGO_TARGET_DIR=$PWD/target cargo build --quiet --release --target "$host"
fuzzer=$PWD/target/$host/release/taskwire-fuzz

if [ -n "$merge" ]; then
  mkdir -p "corpus/$targets"
  exec env FUZZ_TARGET="$targets" "$fuzzer" -merge=1 -max_len=16384 "corpus/$targets" "$merge"
fi

# Runs of each target with --fixed: well under a minute on one core; servers take more for each.
fixed_runs() {
  case $1 in
    http_body | socket) echo 40000 ;;
    *) echo 200000 ;;
  esac
}

fuzz() {
  local name=$1 log=target/found/$1.log found=target/found/$1 how=()
  if [ -n "$fixed" ]; then
    found=$(mktemp -d) how=(-seed=1 -runs="$(fixed_runs "$name")")
  fi
  mkdir -p "$found" target/found artifacts
  if FUZZ_TARGET=$name "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=25 \
    -max_len=16384 -artifact_prefix="artifacts/$name-" "${how[@]}" "$found" "corpus/$name" >"$log" 2>&1
  then
    echo "  ok  $name: $(sed -n 's/^Done \([0-9]* runs\).*/\1/p' "$log")," \
      "$(grep -o 'cov: [0-9]*' "$log" | tail -1)"
  else
    echo "  FAILED  $name; the input is in tests/fuzz/artifacts, try it again with:"
    echo "    FUZZ_TARGET=$name $fuzzer FILE"
    tail -40 "$log"
    return 1
  fi
}

running=0 failed=0
for name in "${targets[@]}"; do
  [ "$running" -lt "$jobs" ] || { wait -n || failed=$((failed + 1)); running=$((running - 1)); }
  fuzz "$name" &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
  wait -n || failed=$((failed + 1))
  running=$((running - 1))
done
echo "fuzz: $((${#targets[@]} - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
