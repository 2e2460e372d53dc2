#!/usr/bin/env bash
# The fuzz target with plain cargo, where cargo-fuzz is not installed: ci/fuzz.sh [libFuzzer options].
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
export TMPDIR="${TMPDIR:-/dev/shm}"
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1"
export ASAN_OPTIONS="detect_leaks=0"
cargo +nightly build --target x86_64-unknown-linux-gnu --target-dir ../../target/fuzz
mkdir -p ../../target/fuzz/corpus
exec ../../target/fuzz/x86_64-unknown-linux-gnu/debug/damaged_files ../../target/fuzz/corpus "${@:--max_total_time=60}"
