#!/usr/bin/env bash
# Trains the demo model again: train_demo_model.sh ACCESS_LOG
#
# Exports, for each request of the log, the features that the library would have read at that moment, and trains
# CatBoost on them. Writes models/demo.cbm and its card beside it.
set -euo pipefail
log=$(realpath -e "${1:?an access log: make model LOG=access.log}")
cd "$(dirname "$0")/.."

rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
cargo build --locked --profile demo -p bliss-service
target/demo/blissctl features --log "$log" --out "$rows/rows.csv"

tools/setup_python.sh
target/venv/bin/python tools/train_demo_model.py "$rows/rows.csv" models
