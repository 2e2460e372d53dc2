#!/usr/bin/env bash
# The protocol in all interleavings that loom finds, and its broken variants, which must be caught. About a minute.
set -euo pipefail
cd "$(dirname "$0")/../.."
RUSTFLAGS="--cfg loom" exec cargo test -p mmap-sync --target-dir target/loom --release --lib "$@"
