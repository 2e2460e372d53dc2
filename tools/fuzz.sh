#!/usr/bin/env bash
# One fuzz target with plain nightly Cargo (cargo-fuzz works as well): fuzz.sh FOLDER TARGET [libFuzzer options].
# Without options it runs for a minute. FOLDER is a crate with a folder `fuzz`. The nightly is chosen in tools/nightly.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/nightly.sh
folder=$1 target=$2
shift 2
built=$PWD/target/fuzz
corpus=$built/corpus/$target
mkdir -p "$corpus"
export TMPDIR="${TMPDIR:-/dev/shm}"
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1"
export ASAN_OPTIONS="detect_leaks=0"
cd "$folder/fuzz"
cargo "+$nightly" build --target x86_64-unknown-linux-gnu --target-dir "$built" --bin "$target"
exec "$built/x86_64-unknown-linux-gnu/debug/$target" "$corpus" "${@:--max_total_time=60}"
