#!/usr/bin/env bash
# Trains models/default.cbm: tools/train_default_model.sh DATA. DATA is a folder with `access.log` and `sites/*.log.gz`, logs of
# real sites that stay there; the traffic lab's recorded log is the project's own. The same logs give the same bytes.
# With EVALUATE=1 it prints what models made without one operator's sites say on those sites, and writes nothing.
# `lists.hosting` is of LIST, by default Debian's libloc-database; LIST=none makes the model without it.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?the folder with access.log and sites/}
out=${OUT:-models}
python=$PWD/${PYTHON:-target/venv/bin/python}
blissctl=${BLISSCTL:-target/demo/blissctl}
list=${LIST:-/usr/share/libloc-location/location.db}
lists=(--list "hosting=$list")
if [ "$list" = none ]; then
    lists=()
elif [ ! -f "$list" ]; then
    echo "SKIPPED: the input lists.hosting: $list is not there (Debian package libloc-database); the model will be another one" >&2
    lists=()
fi
# One operator's sites are one group: nothing made of one is measured on another.
groups=farmfreshsoftware.com=one,farmwork.app=one,heavymetalpedal.com=one,meatlabel.app=one,saunathinker.com=one
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
train() { PYTHONPATH=train "$python" -m bliss_train "$@"; }
sites=()
for log in "$data/access.log" "$data"/sites/*.log.gz; do
    name=$(basename "${log%.log*}")
    [ "$name" = access ] && name=semicomplete.com
    honeypot=()
    [ "$name" = basjes.nl-hackers ] && honeypot=(--honeypot "only addresses that asked for a form that no page links to")
    "$blissctl" features --log "$log" "${lists[@]}" --out "$rows/$name.parquet" 2>/dev/null
    train label --rows "$rows/$name.parquet" --out "$rows/$name.labels.parquet" --rewrite "$rows/rewrite.csv" "${honeypot[@]}"
    "$blissctl" features --log "$log" "${lists[@]}" --rewrite "$rows/rewrite.csv" --out "$rows/$name.disguised.parquet" 2>/dev/null
    sites+=(--site "$name:$rows/$name.parquet:$rows/$name.labels.parquet:$rows/$name.disguised.parquet")
done
# The lab's addresses are nobody's: no list says anything of them.
"$blissctl" features --log lab/recorded/access.json.log.gz --out "$rows/lab.parquet" 2>/dev/null
train label --rows "$rows/lab.parquet" --out "$rows/lab.labels.parquet" --actors lab/recorded/actors.csv
sites+=(--site "lab:$rows/lab.parquet:$rows/lab.labels.parquet")
if [ -n "${EVALUATE:-}" ]; then
    train evaluate "${sites[@]}" --groups "$groups" --leave-one-group-out
    exit
fi
train fit "${sites[@]}" --groups "$groups" --base none --no-clients --people-below 0.02 --people-first-below 0.045 --out "$rows/model"
cp "$rows/model/model.cbm" "$out/default.cbm"
cp "$rows/model/fixture.jsonl" "$out/default.fixture.jsonl"
cp "$rows/model/card.md" "$out/default.md"
