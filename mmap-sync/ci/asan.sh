#!/usr/bin/env bash
# The tests under AddressSanitizer, on nightly. Files that cannot be mapped, guards beyond their mapping, and use of
# unmapped memory show up here.
set -euo pipefail
cd "$(dirname "$0")/../.."
export RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_leaks=0:handle_segv=1"
exec cargo +nightly test -p mmap-sync --target x86_64-unknown-linux-gnu --target-dir target/asan --lib --tests "$@"
