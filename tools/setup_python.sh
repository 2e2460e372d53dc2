#!/usr/bin/env bash
# Makes target/venv with the Python packages that tests and training use. Where that cannot be done it says so and goes
# on; the tests that need them report themselves as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/venv
requirements=train/requirements.txt
cmp -s "$requirements" "$venv/requirements.txt" && exit 0
mkdir -p target
if python3 -m venv "$venv" && "$venv/bin/pip" install --quiet -r "$requirements" 'pytest<10'; then
    cp "$requirements" "$venv/requirements.txt"
else
    echo "cannot install the packages of $requirements into $venv; going on without" >&2
fi
