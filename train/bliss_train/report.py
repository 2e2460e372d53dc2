"""report.html: one file, figures as inline SVG, light and dark, readable on a phone."""

import html
import re
from datetime import datetime, timezone

import numpy
import pandas

from . import __version__, evaluate, measure
from .data import DISGUISED
from .fitting import thresholds
from .label import DECLARED, HONEYPOT, LISTED, PERSON, SCANNER, UNKNOWN
from .rows import STAGE_NAMES, clients_of, networks24, text

ORDER = (PERSON, UNKNOWN, DECLARED, DISGUISED, SCANNER, HONEYPOT, LISTED)
WORDS = {
    PERSON: "people", UNKNOWN: "unknown", DECLARED: "declared crawlers", DISGUISED: "disguised crawlers",
    SCANNER: "scanners", HONEYPOT: "honeypot", LISTED: "named by you",
}
COLOURS = {PERSON: "--people", UNKNOWN: "--unknown", DECLARED: "--r1", DISGUISED: "--r2", SCANNER: "--r3", HONEYPOT: "--r4", LISTED: "--r5"}
STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#d7dce1;--card:#f5f7f9;--people:#1a7f4b;--unknown:#8a949e;
--r1:#c2410c;--r2:#b4318f;--r3:#b42318;--r4:#6d3fc4;--r5:#7a5a00;--accent:#1c5fb8}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--ink:#e7ebee;--soft:#9ba6b0;--line:#333a41;--card:#1c2126;--people:#4cc38a;
--unknown:#7d8892;--r1:#ff8f5a;--r2:#f07fd0;--r3:#ff7a6e;--r4:#b59bff;--r5:#e0bd4f;--accent:#78b0ff}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1rem}h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .3rem}
p{margin:.4rem 0}.soft{color:var(--soft)}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;min-width:100%}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right}td{white-space:nowrap}td:nth-child(2){white-space:normal}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:11px system-ui,sans-serif}.grid{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(17rem,1fr))}figure{max-width:36rem;margin:.5rem 0;background:var(--card);border-radius:.5rem;padding:.6rem}
figcaption{font-size:.9rem;color:var(--soft)}code{font-size:.85em;overflow-wrap:anywhere}.key span{display:inline-block;margin-right:.9rem}
.key i{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.3rem}
"""


def escape(value):
    return html.escape(str(value), quote=True)


def table(head, rows, numbers=()):
    """A table; columns in `numbers` are right-aligned. Cells are escaped."""
    def line(cells, tag):
        return "<tr>" + "".join(
            f'<{tag}{" class=n" if place in numbers else ""}>{escape(cell)}</{tag}>' for place, cell in enumerate(cells)
        ) + "</tr>"
    return f'<div class=scroll><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def figure(svg, caption):
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def legend(kinds):
    return '<p class="key soft">' + "".join(
        f'<span><i style="background:var({COLOURS[kind]})"></i>{escape(WORDS[kind])}</span>' for kind in kinds) + "</p>"


# ------------------------------------------------------------------------------------------------ figures
def distribution(scores, kind):
    """A histogram of clients' scores in bins of five."""
    counts, _ = numpy.histogram(scores, bins=numpy.arange(0, 105, 5))
    top = max(counts.max(), 1)
    bars = "".join(
        f'<rect x="{10 + 15 * place}" y="{70 - 60 * count / top:.1f}" width="13" height="{60 * count / top:.1f}" '
        f'fill="var({COLOURS[kind]})"><title>scores {5 * place} to {5 * place + 4}: {count} clients</title></rect>'
        for place, count in enumerate(counts)
    )
    ticks = "".join(f'<text x="{10 + 3 * at}" y="84" text-anchor="middle">{at}</text>' for at in (1, 30, 50, 70, 99))
    return (f'<svg viewBox="0 0 320 90" role="img" aria-label="scores of {escape(WORDS[kind])}">{bars}'
            f'<line x1="100" x2="100" y1="6" y2="70" stroke="var(--soft)" stroke-dasharray="3 3"/>'
            f'<line x1="10" x2="310" y1="70" y2="70" stroke="var(--line)"/>{ticks}</svg>')


GRID = numpy.concatenate([[0.0], numpy.logspace(-3, 0, 40)])


def roc(robots, people):
    """Share of robots below the threshold at which each share of GRID of people is below."""
    cuts = numpy.quantile(people, GRID, method="lower")
    ordered = numpy.sort(robots)
    below = numpy.searchsorted(ordered, cuts, side="left") / len(ordered)
    below[-1] = 1.0
    return below


def bands(robots, people, samples, random):
    """Curve, and the band that 90 % of samples of clients lie in; AUC and its interval."""
    curve, area = roc(robots, people), measure.auc(robots, people)
    curves, areas = [], []
    for _ in range(samples):
        r, p = robots[random.integers(len(robots), size=len(robots))], people[random.integers(len(people), size=len(people))]
        curves.append(roc(r, p))
        areas.append(measure.auc(r, p))
    if not curves:
        return curve, curve, curve, area, (area, area)
    low, high = numpy.quantile(curves, [0.05, 0.95], axis=0)
    return curve, low, high, area, tuple(numpy.quantile(areas, [0.05, 0.95]))


def roc_figure(curve, low, high):
    """The curve with people's share on a logarithmic axis, where it is decided."""
    x = 40 + 260 * (numpy.log10(numpy.maximum(GRID, 1e-3)) + 3) / 3

    def points(values):
        return [f"{a:.1f},{110 - 100 * b:.1f}" for a, b in zip(x, values)]
    ticks = "".join(f'<text x="{40 + 260 * (numpy.log10(at) + 3) / 3:.0f}" y="124" text-anchor="middle">{label}</text>'
                    for at, label in ((0.001, "0.1 %"), (0.01, "1 %"), (0.1, "10 %"), (1, "100 %")))
    ticks = ticks.replace('x="300" y="124" text-anchor="middle"', 'x="306" y="124" text-anchor="end"')
    ticks += "".join(f'<text x="36" y="{114 - 100 * at:.0f}" text-anchor="end">{at:.0%}</text>'
                     f'<line x1="40" x2="300" y1="{110 - 100 * at:.0f}" y2="{110 - 100 * at:.0f}" stroke="var(--line)"/>' for at in (0, .5, 1))
    return (f'<svg viewBox="0 0 310 130" role="img" aria-label="ROC curve">{ticks}'
            f'<polygon points="{" ".join(points(low) + points(high)[::-1])}" fill="var(--accent)" opacity=".2"/>'
            f'<polyline points="{" ".join(points(curve))}" fill="none" stroke="var(--accent)" stroke-width="2"/></svg>')


def stages_figure(rows):
    """Share below 30 by number of requests seen; one line for each kind."""
    kinds = [kind for kind in ORDER if (rows["kind"] == kind).any()]
    lines = ""
    for kind in kinds:
        part = rows[rows["kind"] == kind]
        points = [(60 + 80 * stage, 110 - 100 * (part["score"][part["stage"] == stage] < measure.PEOPLE_BELOW).mean())
                  for stage in range(len(STAGE_NAMES)) if (part["stage"] == stage).any()]
        lines += f'<polyline points="{" ".join(f"{x},{y:.1f}" for x, y in points)}" fill="none" stroke="var({COLOURS[kind]})" stroke-width="2"/>'
        lines += "".join(f'<circle cx="{x}" cy="{y:.1f}" r="3" fill="var({COLOURS[kind]})"><title>{WORDS[kind]}: {110 - y:.0f} %</title></circle>'
                         for x, y in points)
    ticks = "".join(f'<text x="{60 + 80 * stage}" y="126" text-anchor="middle">{name}</text>' for stage, name in enumerate(STAGE_NAMES))
    ticks += "".join(f'<text x="36" y="{114 - at}" text-anchor="end">{at} %</text><line x1="40" x2="330" y1="{110 - at}" y2="{110 - at}" '
                     'stroke="var(--line)"/>' for at in (0, 50, 100))
    return f'<svg viewBox="0 0 340 132" role="img" aria-label="share below 30 by requests seen">{ticks}{lines}</svg>', kinds


def bars(pairs):
    """Horizontal bars of (name, share of the largest, text)."""
    lines = ""
    for place, (name, share, told) in enumerate(pairs):
        y = 18 * place
        lines += (f'<text x="0" y="{y + 12}">{escape(name)}</text><rect x="236" y="{y + 3}" width="{max(90 * share, 0.5):.1f}" height="11" '
                  f'fill="var(--accent)"/><text x="{240 + 90 * share:.1f}" y="{y + 12}">{escape(told)}</text>')
    return f'<svg viewBox="0 0 390 {18 * len(pairs) + 4}" role="img" aria-label="importances">{lines}</svg>'


# ------------------------------------------------------------------------------------------------ baselines and slices
MOBILE = re.compile(r"Mobile|Android|iPhone|iPad")


def most_a_minute(rows):
    """The most requests that each client made in one minute."""
    minute = (rows["time"] // 60).astype("int64")
    return rows.groupby(["client", minute]).size().groupby("client").max()


def baselines(rows, clients, people_share, named=None):
    """What a list of agents and a rate limit find, beside the model, at the same share of people, and `named`: by the name of
    another tool the (site, address) pairs that it names."""
    kinds = [kind for kind in ORDER if kind not in (PERSON, UNKNOWN) and (clients["kind"] == kind).any()]
    rate = most_a_minute(rows).reindex(clients.index)
    people = (clients["kind"] == PERSON).to_numpy()
    limit = float(numpy.quantile(rate[people], 1 - people_share, method="higher")) if people.any() else float("inf")
    told = {
        "this model, score below 30": clients["score"] < measure.PEOPLE_BELOW,
        "list of agents (which gave the label)": clients["kind"] == DECLARED,
        f"rate limit, over {limit:.0f} requests a minute": rate > limit,
    }
    owners = rows.groupby("client").agg(site=("site", "first"), ip=("ip", "first")).reindex(clients.index)
    pairs = list(zip(owners["site"], owners["ip"]))
    for tool, addresses in sorted((named or {}).items()):
        told[f"{tool} (names addresses)"] = pandas.Series([pair in addresses for pair in pairs], index=clients.index)
    return kinds, [[name, evaluate.percent(found[people].mean() if people.any() else None),
                    *(evaluate.percent(found[(clients["kind"] == kind).to_numpy()].mean()) for kind in kinds)] for name, found in told.items()]


def slices(rows, clients):
    """People and robots by what may be treated unfairly: phones, new clients, networks with many addresses."""
    frame = clients_of(rows).rename(columns={"user_agent": "agent"})
    mobile = frame["agent"].map({agent: bool(MOBILE.search(text(agent))) for agent in frame["agent"].unique()}).astype(bool)
    shared = frame["ip"].map(frame[frame.index.isin(clients.index)].groupby("ip").size()) > 1
    network = pandas.Series(networks24(frame["ip"]), index=frame.index)
    neighbours = network.map(frame["ip"].groupby(network).nunique())
    told = [("phones and tablets", mobile), ("other devices", ~mobile), ("seen once", clients["requests"] == 1),
            ("seen eleven times and more", clients["requests"] > 10), ("several agents behind the address", shared),
            ("alone in its network (/24, /48)", neighbours == 1), ("networks with ten addresses and more", neighbours >= 10),
            ("IPv6", frame["ip"].str.contains(":"))]
    out = []
    for name, mask in told:
        mask = mask.reindex(clients.index).fillna(False).to_numpy(bool)
        people, robots = clients[mask & (clients["kind"] == PERSON)], clients[mask & ~clients["kind"].isin([PERSON, UNKNOWN])]
        below = int((people["score"] < measure.PEOPLE_BELOW).sum())
        out.append([name, len(people), evaluate.percent(below / len(people)) if len(people) else "–",
                    evaluate.percent(measure.upper_bound(below, len(people))), len(robots),
                    evaluate.percent((robots["score"] < measure.PEOPLE_BELOW).mean()) if len(robots) else "–"])
    return out


def day(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def report(fitted, facts):
    """The whole page."""
    names_clients = facts.get("name_clients", True)
    table_rows = fitted.table
    known = ~numpy.isnan(fitted.answers)
    rows = table_rows.loc[known, ["site", "client", "kind", "time", "ip", "user_agent", "seen", "stage"]].copy()
    rows["score"] = measure.score(fitted.answers[known])
    clients = measure.by_client(table_rows[known], fitted.answers[known])
    random = numpy.random.default_rng(facts["seed"])
    page = [f"<h1>What the model is worth</h1><p class=soft>Made by bliss-train {__version__}, seed {facts['seed']}. Every score here is "
            f"of a model that did not see the client's {escape(fitted.folds)}. 1 is a robot, 99 a person; a client counts by the mean of its "
            "requests' scores.</p>"]
    every = fitted.figures["all"]
    people = every["people"]
    parts = ", ".join(f"{evaluate.percent(every[kind]['below_30_median'])} of {WORDS[kind]}" for kind in evaluate.KINDS if every[kind]["sites"])
    page.append(f"<p><b>In short:</b> below a score of 30 are {evaluate.percent(people['below_30'])} of {people['clients']} people (with "
                f"95 % certainty at most {evaluate.percent(people['below_30_upper'])}; at their first request "
                f"{evaluate.percent(people['first_below_30'])}), and {parts} (medians over sites).</p>")

    page.append("<h2>Data</h2><p>Each log with its clients (an address with an agent) by label. Labels come from rules, not from anybody's "
                "work; who fits none is unknown and taught the model nothing.</p>")
    kinds = [kind for kind in ORDER if (clients["kind"] == kind).any()]
    page.append(table(["site", "group", "from", "to", "requests", *(WORDS[kind] for kind in kinds)], [
        [site.name, site.group, day(site.facts["from"]), day(site.facts["to"]), f"{site.facts['requests']:,}",
         *(int(((clients["site"] == site.name) & (clients["kind"] == kind)).sum()) for kind in kinds)] for site in facts["sites"]
    ], range(4, 5 + len(kinds))))
    evidence, conflicts, total, unknown = {}, {}, 0, 0
    for site in facts["sites"]:
        total += site.facts["clients"]
        unknown += site.facts["labels"].get(UNKNOWN, 0)
        for key, count in site.facts["evidence"].items():
            evidence[key] = evidence.get(key, 0) + count
        for key, count in site.facts["conflicts"].items():
            conflicts[key] = conflicts.get(key, 0) + count
    page.append(f"<h2>Labels</h2><p>{total - unknown} of {total} clients have a label; {unknown} ({evaluate.percent(unknown / max(total, 1))}) are "
                "unknown. What gave the label:</p>")
    page.append(table(["label", "because", "clients"], [[WORDS.get(kind, kind), why, count] for (kind, why), count in
                                                        sorted(evidence.items(), key=lambda item: -item[1])], [2]))
    if conflicts:
        page.append("<p>Conflicts: another rule would have said otherwise. Many of one kind mean that a rule does not fit this site.</p>")
        page.append(table(["the other rule", "clients"], sorted(conflicts.items(), key=lambda item: -item[1])[:12], [1]))
    circle = facts["inputs"].evidence(list(fitted.model.feature_names_))
    page.append(f"<p class=soft>Evidence that gave labels is an input too ({', '.join(f'<code>{escape(name)}</code>' for name in circle)}): that circle "
                "flatters the figures by two to five points of AUC.</p>")

    page.append("<h2>Scores by label</h2><p>How clients' scores lie. People should stand right, robots left of the dashed line at 30; two heaps of "
                "unknown clients mean that the model parts them, one heap in the middle that it does not know.</p><div class=grid>")
    for kind in kinds:
        scores = clients["score"][clients["kind"] == kind]
        page.append(figure(distribution(scores, kind), f"{WORDS[kind]}: {len(scores)} clients, "
                                                       f"{evaluate.percent((scores < measure.PEOPLE_BELOW).mean())} below 30"))
    page.append("</div>")

    page.append("<h2>Curves by site</h2><p>For each share of people that one would stop (from left to right, 0.1 to 100 %), the share of robots that is "
                "stopped with them. The band covers 90 % of bootstrap samples (clients drawn again at random): a wide band means few people.</p><div class=grid>")
    for site in facts["sites"]:
        here = clients[clients["site"] == site.name]
        persons = here["raw"][here["kind"] == PERSON].to_numpy()
        robots = here["raw"][~here["kind"].isin([PERSON, UNKNOWN])].to_numpy()
        if len(persons) < 5 or len(robots) < 5:
            continue
        curve, low, high, area, (area_low, area_high) = bands(-robots, -persons, facts["bootstrap"], random)
        page.append(figure(roc_figure(curve, low, high), f"{site.name}: {len(robots)} robots, {len(persons)} people, AUC {area:.3f} "
                                                         f"({area_low:.3f} to {area_high:.3f})"))
    page.append("</div>")
    page.append("<p class=soft>Sites with fewer than five people or five robots have no curve.</p>")

    page.append("<h2>Who would be stopped below which score</h2><p>The upper bound is what the share of people is with 95 % certainty at most: with few "
                "people it stays high however good the model is.</p>")
    page.append(table(["score below", "people", "share", "at most", "robots", "unknown"], [
        [row["below"], f"{row['people']} of {row['of']}", evaluate.percent(row["people"] / row["of"] if row["of"] else None),
         evaluate.percent(row["upper"]), evaluate.percent(row["robots"]), evaluate.percent(row["unknown"])] for row in thresholds(fitted)
    ], range(6)))

    svg, drawn = stages_figure(rows)
    page.append("<h2>By number of requests seen</h2><p>Share of requests below 30 at a client's first, second to third, fourth to tenth and later request. "
                "At the first nothing is known of the client but its agent, its network and the request itself.</p>")
    page.append(legend(drawn) + '<div style="max-width:34rem">' + figure(svg, "people should lie at the bottom, robots at the top, and further apart from left to right") + "</div>")

    page.append("<h2>Slices</h2><p>Who could be treated worse than others. A share that differs by more than its upper bounds allow is worth a look.</p>")
    page.append(table(["clients", "people", "below 30", "at most", "robots", "below 30"], slices(rows, clients), range(1, 6)))

    base_kinds, base_rows = baselines(rows, clients, facts["wanted"].all, facts.get("named"))
    page.append("<h2>Against what one has anyway</h2><p>Share of clients found by the model, by a list of robots' agents, and by a rate limit that stops "
                "the same share of people.</p>")
    page.append(table(["", WORDS[PERSON], *(WORDS[kind] for kind in base_kinds)], base_rows, range(1, 2 + len(base_kinds))))

    importances = sorted(zip(fitted.model.get_feature_importance(), fitted.model.feature_names_), reverse=True)
    used = [(name, weight) for weight, name in importances if weight > 0]
    page.append("<h2>Importances</h2><p>How much the model's answer changes with each input (CatBoost's figures, in percent of all), and how well the "
                "input alone parts robots from people where it was left out (0.5 is chance, in either direction; 1 would be a label that slipped in).</p>")
    top = used[0][1] if used else 1.0
    lowest = fitted.leaks.min(axis=1)
    page.append(figure(bars([(name, weight / top, f"{weight:.1f} · {lowest.get(name, float('nan')):.2f}") for name, weight in used[:26]]),
                       f"{len(used)} of {len(importances)} inputs are used"))
    if fitted.suspects:
        page.append(f"<p><b>Tell the label nearly alone, and are evidence or allowed by name:</b> "
                    f"{', '.join(f'<code>{escape(name)}</code>' for name in fitted.suspects)}.</p>")

    if names_clients:
        page += named(rows, clients)
    page.append("<h2>What stays undetected</h2><p>Browsers driven well, from networks where people live; a scraper that loads a page's assets with their "
                "referrers; and people at work in an application, who load few assets, can look like robots. The label knows only robots that give "
                "themselves away: the figures do not count those that never did.</p>")
    body = "\n".join(page)
    return (f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">'
            f"<title>bliss-train: report</title><style>{STYLE}</style><main>{body}</main></html>\n")


def named(rows, clients):
    """The largest clients of the last week that would be challenged, and those that the model is least sure of."""
    page = []
    first = clients_of(rows).rename(columns={"user_agent": "agent"})
    real = rows[rows["kind"] != DISGUISED]
    last = real.groupby("site", observed=True)["time"].transform("max")
    week = real[real["time"] > last - 7 * 86400]
    sizes = week[week["client"].isin(clients.index[clients["score"] < measure.PEOPLE_BELOW])].groupby("client").size()
    sizes = sizes.sort_values(ascending=False, kind="stable").head(15)

    def line(client, count):
        one = clients.loc[client]
        return [one["site"], first["ip"][client], text(first["agent"][client])[:90], count, f"{one['score']:.0f}", WORDS[one["kind"]]]
    head = ["site", "address", "agent", "requests", "score", "label"]
    page.append("<h2>Would have been challenged in each log's last week</h2><p>The largest clients with a mean score below 30. Do you know one of them? "
                "Then name it in a rule.</p>" + table(head, [line(client, int(count)) for client, count in sizes.items()], [3, 4]))
    unsure = clients[(clients["kind"] != DISGUISED)].assign(distance=(clients["raw"]).abs())
    unsure = unsure[(unsure["requests"] >= 5)].sort_values("distance", kind="stable").head(12)
    page.append("<h2>Least sure</h2><p>Clients with five requests and more whose mean answer lies nearest to even chances. A label for these teaches "
                "the model most.</p>" + table(head, [line(client, int(row["requests"])) for client, row in unsure.iterrows()], [3, 4]))
    return page
