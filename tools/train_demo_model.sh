#!/usr/bin/env bash
# Trains the demo model anew: train_demo_model.sh [ACCESS_LOG]
#
# Exports, for each request of the log, the features that the library would have read at that moment, and trains
# CatBoost on them. Writes bliss-service/demo/demo.cbm and its card beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${1:-../shared/data/access.log}

rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
cargo build --locked --profile demo -p bliss-service
target/demo/bliss-service features --log "$log" --out "$rows/rows.csv"

tools/setup_python.sh
target/venv/bin/python tools/train_demo_model.py "$rows/rows.csv" bliss-service/demo
