#!/usr/bin/env bash
# The tests under AddressSanitizer, on nightly Rust (tools/nightly.sh): it finds reads beyond a mapping and uses of
# what was unmapped. The processes that the kill tests start are instrumented too, so there are fewer kills.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/nightly.sh
export RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_leaks=0" MMAP_SYNC_KILLS="${MMAP_SYNC_KILLS:-50}"
exec cargo "+$nightly" test -p mmap-sync --target x86_64-unknown-linux-gnu --target-dir target/asan --lib --tests "$@"
