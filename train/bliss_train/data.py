"""Sites put together: rows with their labels, clients, stages and weights, ready to fit and to measure."""

from dataclasses import dataclass, field

import numpy
import pandas

from .errors import Problem
from .label import DECLARED, PERSON, ROBOTS, UNKNOWN, read_labels
from .rows import STAGES, read, stages, with_clients

DISGUISED = "disguised"
KEEP = ["line", "time", "ip", "user_agent", "path", "client", "seen", "kind", "rule_weight", "evidence", "conflicts"]


@dataclass
class Site:
    """A log: its rows with labels, and the rows of its disguised copy that were disguised."""

    name: str
    group: str
    rows: pandas.DataFrame
    disguised: pandas.DataFrame | None = None
    facts: dict = field(default_factory=dict)

    def table(self):
        """All rows of the site, disguised ones included, one kind each."""
        parts = [self.rows] if self.disguised is None else [self.rows, self.disguised]
        table = pandas.concat(parts, ignore_index=True)
        table.insert(0, "site", self.name)
        table.insert(1, "group", self.group)
        return table


def load(name, rows_path, labels_path, disguised_path=None, group=None, columns=None):
    """Reads a site's files; the disguised rows are those whose line a declared crawler wrote."""
    rows, labels = read(rows_path, columns), read_labels(labels_path)
    facts = {
        "requests": len(rows), "from": float(rows["time"].iloc[0]), "to": float(rows["time"].iloc[-1]),
        "clients": len(labels), "labels": labels["label"].value_counts().to_dict(),
        "evidence": labels[labels["label"] != UNKNOWN].groupby(["label", "evidence"]).size().to_dict(),
        "conflicts": labels["conflicts"][labels["conflicts"] != ""].value_counts().to_dict(),
    }
    rows = with_clients(rows)
    told = labels.set_index(["ip", "user_agent"])
    keys = pandas.MultiIndex.from_frame(rows[["ip", "user_agent"]])
    if not keys.isin(told.index).all():
        at = int(numpy.flatnonzero(~keys.isin(told.index))[0])
        raise Problem(f"{labels_path}: has no label for the client of line {rows['line'].iloc[at]} of {rows_path}; labels "
                      "and rows must come from the same export. Label again.")
    told = told.reindex(keys)
    rows["kind"] = told["label"].to_numpy()
    for name_here, there in (("rule_weight", "weight"), ("evidence", "evidence"), ("conflicts", "conflicts")):
        rows[name_here] = told[there].to_numpy()
    disguised = None
    if disguised_path:
        disguised = read(disguised_path, columns)
        declared = rows[rows["kind"] == DECLARED].set_index("line")
        disguised = disguised[disguised["line"].isin(declared.index)].copy()
        if len(disguised) == 0 and len(declared):
            raise Problem(f"{disguised_path}: has none of the {len(declared)} lines of declared crawlers in {rows_path}; it "
                          "must be the same log exported with --rewrite.")
        if (disguised["user_agent"].to_numpy() == declared["user_agent"].reindex(disguised["line"]).to_numpy()).any():
            raise Problem(f"{disguised_path}: crawlers keep their agents in it; export it with --rewrite and the file that "
                          "`bliss-train label --rewrite` wrote.")
        disguised = with_clients(disguised)
        disguised["client"] += rows["client"].max() + 1
        disguised["kind"] = DISGUISED
        disguised["rule_weight"] = declared["rule_weight"].reindex(disguised["line"]).to_numpy()
        disguised["evidence"], disguised["conflicts"] = "a declared crawler with a browser's agent", ""
    return Site(name, group or name, rows, disguised, facts)


def together(sites):
    """One table of all sites, with `client` unique over all, `robot` (1, 0, NaN where unknown) and `stage`."""
    tables, first = [], 0
    for site in sites:
        table = site.table()
        table["client"] += first
        first = int(table["client"].max()) + 1
        tables.append(table)
    table = pandas.concat(tables, ignore_index=True)
    robot = table["kind"].isin([*ROBOTS, DISGUISED])
    table["robot"] = numpy.where(robot, 1.0, numpy.where(table["kind"] == PERSON, 0.0, numpy.nan))
    table["stage"] = stages(table["seen"])
    return table


def thinned(table, most=24):
    """At most `most` requests of a client in a stage, evenly spaced: a scanner's ten thousandth request says no more."""
    place = table.groupby(["client", "stage"]).cumcount().to_numpy()
    size = table.groupby(["client", "stage"])["stage"].transform("size").to_numpy()
    kept = (place * most // numpy.maximum(size, 1)) != ((place - 1) * most // numpy.maximum(size, 1))
    return table[(size <= most) | kept | (place == 0)]


def weigh(table, power=0.5, balance=True):
    """Weights of labelled rows.

    A client has one weight (its rule's) in each stage of evidence, shared by its requests there. A site's clients together
    weigh the root of their number (`power`). Within each stage robots and people weigh the same, if there are both.
    """
    requests = table.groupby(["client", "stage"])["stage"].transform("size").to_numpy()
    weights = table["rule_weight"].to_numpy(float) / requests
    clients = table.groupby("site")["client"].nunique()
    weights *= table["site"].map(clients.astype(float) ** (power - 1)).to_numpy()
    robots = (table["robot"] == 1).to_numpy()
    stage = table["stage"].to_numpy()
    if balance:
        for number in range(len(STAGES)):
            here = stage == number
            sums = [weights[here & robots].sum(), weights[here & ~robots].sum()]
            if min(sums) > 0:
                for mask, total in ((robots, sums[0]), (~robots, sums[1])):
                    weights[here & mask] *= sum(sums) / 2 / total
    return weights * (len(weights) / weights.sum())
