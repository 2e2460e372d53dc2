#!/bin/sh
# RESEARCH: rows, labels and disguised rows of every log in a folder, with the prototype of the features.
# export_sites.sh FOLDER_WITH_LOGS OUT [LOCATION_DB]
set -eu
data=$1 out=$2 networks=${3:-none}
here=$(dirname "$0")
python=${PYTHON:-python3}
mkdir -p "$out"
for log in "$data"/access.log "$data"/sites/*.log.gz; do
  name=$(basename "${log%.log*}")
  [ "$name" = access ] && name=semicomplete.com
  honeypot=
  [ "$name" = basjes.nl-hackers ] && honeypot="its README says so of every line"
  "$python" "$here/prototype_features.py" --log "$log" --out "$out/$name.parquet"
  PYTHONPATH="$here/.." "$python" -m bliss_train label --rows "$out/$name.parquet" --out "$out/$name.labels.parquet" \
    --rewrite "$out/$name.rewrite.csv" --networks "$networks" ${honeypot:+--honeypot "$honeypot"}
  "$python" "$here/prototype_features.py" --log "$log" --rewrite "$out/$name.rewrite.csv" --out "$out/$name.disguised.parquet"
done
