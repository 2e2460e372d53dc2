#!/usr/bin/env python3
"""Scores by actor.

    lab/report.py scores.csv actors.csv [--log access.json.log] [--below 30] [--json]

`scores.csv` is what `blissctl score` writes: line,time,ip,score,status,probability. A client is an address (and an agent,
where people and robots share an address: then the log tells them apart by line). Printed for each actor: the score of a client's first request
(median, and the share of clients below), the median of all, and the share of requests below after a client's fifth.
"""

import argparse
import collections
import csv
import gzip
import json
import statistics


def open_text(path):
    return (
        gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape")
        if str(path).endswith(".gz")
        else open(path, encoding="utf-8", errors="surrogateescape", newline="")
    )


def read_actors(path):
    """The actors by (address, agent), and the addresses that more than one agent shares."""
    owners, actors, agents = {}, {}, collections.defaultdict(set)
    with open_text(path) as f:
        for row in csv.DictReader(f):
            owners.setdefault((row["ip"], row["user_agent"]), row["actor"])
            agents[row["ip"]].add(row["user_agent"])
            actors.setdefault(row["actor"], row)
    return owners, actors, {ip for ip, found in agents.items() if found != {"*"}}


def agents_by_line(path):
    with open_text(path) as f:
        return {number: json.loads(line)["http_user_agent"] for number, line in enumerate(f, 1)}


def read_scores(path, owners, shared, agents):
    """Scores in the order of the lines, by actor and client."""
    clients, unknown, unscored = collections.defaultdict(lambda: collections.defaultdict(list)), 0, 0
    with open_text(path) as f:
        rows = sorted(csv.DictReader(f), key=lambda r: int(r["line"]))
    for row in rows:
        agent = agents.get(int(row["line"]), "") if row["ip"] in shared else "*"
        actor = owners.get((row["ip"], agent)) or owners.get((row["ip"], "*"))
        if actor is None:
            unknown += 1
        elif row["score"] in ("", "NaN", "nan"):
            unscored += 1
        else:
            clients[actor][(row["ip"], agent)].append(float(row["score"]))
    return clients, unknown, unscored


def figures(clients, below):
    """What is printed for a set of clients, each a list of scores in order."""
    first = [c[0] for c in clients]
    everything = [s for c in clients for s in c]
    after = [s for c in clients for s in c[5:]]
    share = lambda values: sum(v < below for v in values) / len(values) if values else None
    return {
        "clients": len(clients),
        "requests": len(everything),
        "first": statistics.median(first),
        "first_below": share(first),
        "median": statistics.median(everything),
        "below": share(everything),
        "after_five": len(after),
        "after_five_below": share(after),
        "clients_after_five_below": share([statistics.fmean(c[5:]) for c in clients if len(c) > 5]),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores")
    parser.add_argument("actors")
    parser.add_argument("--log", help="the log that was scored, to tell clients behind one address apart")
    parser.add_argument("--below", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    owners, actors, shared = read_actors(options.actors)
    clients, unknown, unscored = read_scores(
        options.scores, owners, shared, agents_by_line(options.log) if options.log else {}
    )
    if not options.log and shared:
        print(
            f"without --log, the people and robots behind {', '.join(sorted(shared))} cannot be told apart; their lines are left out"
        )

    rows = []
    for name, who in actors.items():
        if clients[name]:
            rows.append(
                {"actor": name, "kind": who["kind"], "is_robot": int(who["is_robot"])}
                | figures(list(clients[name].values()), options.below)
            )
    groups = [
        ("people", lambda w: w["is_robot"] == "0"),
        ("robots", lambda w: w["is_robot"] == "1"),
        ("robots that claim a browser", lambda w: w["is_robot"] == "1" and w["claims_browser"] == "1"),
    ]
    groups += [
        (f"kind: {kind}", lambda w, kind=kind: w["kind"] == kind)
        for kind in dict.fromkeys(w["kind"] for w in actors.values())
    ]
    for title, chosen in groups:
        members = [c for name, who in actors.items() if chosen(who) for c in clients[name].values()]
        if members:
            rows.append({"actor": title, "kind": "", "is_robot": ""} | figures(members, options.below))
    if options.json:
        print(json.dumps({"rows": rows, "unknown": unknown, "unscored": unscored}))
        return
    percent = lambda v: "-" if v is None else f"{100 * v:.0f} %"
    low = f"<{options.below:g}"
    print(
        f"{'actor':32} {'kind':14} {'clients':>7} {'requests':>8} {'first':>6} {'first ' + low:>9} {'median':>6} {'all ' + low:>7} {'after 5 ' + low:>11}"
    )
    for row in rows:
        print(
            f"{row['actor']:32} {row['kind']:14} {row['clients']:7} {row['requests']:8} {row['first']:6.0f} {percent(row['first_below']):>9} {row['median']:6.0f} {percent(row['below']):>7} {percent(row['after_five_below']):>11}"
        )
    if unknown or unscored:
        print(f"{unknown} lines of nobody in the list of actors, {unscored} without a score")


if __name__ == "__main__":
    main()
