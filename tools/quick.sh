#!/usr/bin/env bash
# Format, lints and unit tests of what changed, for use while one works: quick.sh [COMMIT].
#
# What changed: since the merge base with COMMIT (default: main, or HEAD where there is no main), new files included.
# Packages that changed are linted together with those that depend on them, and their unit tests run.
# Integration tests, and unit tests of dependants, are for `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
against=${1:-main}
base=$(git merge-base "$against" HEAD 2>/dev/null || git rev-parse HEAD)
files=$( (git diff --name-only "$base"; git ls-files --others --exclude-standard) | sort -u)

changed=() linted=()
for manifest in */Cargo.toml; do
    folder=${manifest%/*}
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -n 1)
    if grep -qE "^(Cargo\.(toml|lock)|rust-toolchain\.toml|$folder/.*)$" <<<"$files"; then
        changed+=("$name")
        # The package itself comes first; `(/path)` marks those of the workspace.
        mapfile -t -O ${#linted[@]} linted < <("$cargo" tree --locked --workspace --edges all --prefix none \
            --invert "path+file://$PWD/$folder" --format '{p}' | sed -n "s|^\([^ ]*\) v[^ ]* (\(proc-macro) (\)\?$PWD.*|\1|p" | sort -u)
    fi
done

"$cargo" fmt --all --check
[ ${#changed[@]} -eq 0 ] || {
    mapfile -t linted < <(printf '%s\n' "${linted[@]}" | sort -u)
    echo "changed: ${changed[*]}; linted: ${linted[*]}" >&2
    "$cargo" clippy --locked "${linted[@]/#/--package=}" --all-targets -- -D warnings
    "$cargo" test --locked "${changed[@]/#/--package=}" --lib --bins
}
# Promises, documents and links: whatever changed.
"$cargo" test --locked --package repository
