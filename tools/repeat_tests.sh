#!/usr/bin/env bash
# Runs the tests again and again while all processors are busy: repeat_tests.sh [TIMES [ARGUMENT...]]
#
# Finds tests that depend on how fast the machine is, or on where in a second they run. TIMES is 10 unless given; ARGUMENTs
# go to `cargo test --locked` and are `--workspace` unless given. Beside each run there is a busy loop per processor. What a
# failed run said stays in target/repeat_tests/. Ends with 1 if any run failed, after all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
times=${1:-10}
[[ "$times" =~ ^[1-9][0-9]*$ ]] || { echo "usage: repeat_tests.sh [TIMES [ARGUMENT...]]; TIMES is a number from 1, found: $times" >&2; exit 2; }
shift || true
arguments=("$@")
[ ${#arguments[@]} -gt 0 ] || arguments=(--workspace)

# Built first, so that what is repeated is the tests.
"$cargo" test --locked "${arguments[@]}" --no-run

logs=target/repeat_tests
rm -rf "$logs"
mkdir -p "$logs"
busy=()
stop() {
    for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done
}
trap stop EXIT
for _ in $(seq "$(nproc)"); do
    (while :; do :; done) &
    busy+=($!)
done

failed=0
for run in $(seq "$times"); do
    log=$logs/run-$run.log
    started=$SECONDS
    # All tests, also after one has failed.
    if "$cargo" test --locked --no-fail-fast "${arguments[@]}" >"$log" 2>&1; then
        rm "$log"
        echo "run $run of $times: passed in $((SECONDS - started)) s"
    else
        failed=$((failed + 1))
        echo "run $run of $times: failed in $((SECONDS - started)) s; see $log"
        grep -E '^test .*FAILED$|^error' "$log" | sort -u | sed 's/^/    /' || true
    fi
done
echo "$failed of $times runs failed"
[ "$failed" -eq 0 ]
