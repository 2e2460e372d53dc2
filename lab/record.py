#!/usr/bin/env python3
"""Records a run: record.py FOLDER, where FOLDER holds what lab/run wrote.

Writes lab/recorded/access.json.log.gz and lab/recorded/actors.csv, sorted by time, after checking that each line has the
documented fields and an actor.
"""

import csv
import gzip
import json
import pathlib
import sys

FIELDS = [
    "msec",
    "remote_addr",
    "request",
    "status",
    "host",
    "scheme",
    "http_referer",
    "http_user_agent",
    "http_accept",
    "http_accept_language",
    "http_accept_encoding",
    "http_sec_fetch_site",
    "http_sec_fetch_mode",
    "http_sec_fetch_dest",
    "http_sec_ch_ua",
    "http_sec_ch_ua_mobile",
    "http_sec_ch_ua_platform",
]


def check(lines, actors):
    """Raises where a line's fields or its label are not as documented."""
    known = {(a["ip"], a["user_agent"]) for a in actors}
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        if list(row) != FIELDS or not isinstance(row["msec"], float) or not isinstance(row["status"], int):
            raise ValueError(f"line {number}: expected the fields {FIELDS}, found {line[:200]}")
        if (row["remote_addr"], "*") not in known and (
            row["remote_addr"],
            row["http_user_agent"],
        ) not in known:
            raise ValueError(
                f"line {number}: nobody in actors.csv has {row['remote_addr']} and {row['http_user_agent']}"
            )


def main():
    folder, target = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).resolve().parent / "recorded"
    text = (folder / "actors.csv").read_text()
    actors = list(csv.DictReader(text.splitlines()))
    lines = (folder / "access.json.log").read_bytes().splitlines()
    check(lines, actors)
    lines.sort(key=lambda l: json.loads(l)["msec"])
    seen = {json.loads(l)["remote_addr"] for l in lines}
    target.mkdir(exist_ok=True)
    # The same log gives the same bytes: no name, no time.
    with open(target / "access.json.log.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        f.write(b"\n".join(lines) + b"\n")
    kept = [l for l in text.splitlines() if l.split(",")[0] in seen or l.startswith("ip,")]
    (target / "actors.csv").write_text("\n".join(kept) + "\n")
    print(
        f"{len(lines)} lines of {len(seen)} addresses, {(target / 'access.json.log.gz').stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
