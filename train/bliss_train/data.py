"""Sites put together: rows with their labels, clients, stages and weights, ready to fit and to measure."""

from dataclasses import dataclass, field

import numpy
import pandas

from .errors import Problem
from .label import DECLARED, PERSON, ROBOTS, UNKNOWN, read_labels
from .rows import STAGES, clients_of, joined, read, stages, with_clients

DISGUISED = "disguised"
KINDS = [*ROBOTS, PERSON, UNKNOWN, DISGUISED]


@dataclass
class Site:
    """A log: its rows with labels, and the rows of its disguised copy that were disguised; both until `take`."""

    name: str
    group: str
    rows: pandas.DataFrame | None
    disguised: pandas.DataFrame | None = None
    facts: dict = field(default_factory=dict)

    def take(self):
        """All rows, in one or two parts: the disguised ones are the second. The site has them no more: they are large."""
        parts = [part for part in (self.rows, self.disguised) if part is not None]
        self.rows = self.disguised = None
        for place, (column, name) in enumerate((("site", self.name), ("group", self.group))):
            for part in parts:
                part.insert(place, column, pandas.Categorical.from_codes(numpy.zeros(len(part), numpy.int8), [name]))
        return parts


def load(name, rows_path, labels_path, disguised_path=None, group=None, columns=None):
    """Reads a site's files; the disguised rows are those whose line a declared crawler wrote."""
    rows, labels = read(rows_path, columns, ("ip", "user_agent")), read_labels(labels_path)
    facts = {
        "requests": len(rows), "from": float(rows["time"].iloc[0]), "to": float(rows["time"].iloc[-1]),
        "clients": len(labels), "labels": labels["label"].value_counts().to_dict(),
        "evidence": labels[labels["label"] != UNKNOWN].groupby(["label", "evidence"]).size().to_dict(),
        "conflicts": labels["conflicts"][labels["conflicts"] != ""].value_counts().to_dict(),
    }
    rows = with_clients(rows)
    unlabelled = labelled(rows, labels)
    if unlabelled is not None:
        raise Problem(f"{labels_path}: has no label for the client of line {rows['line'].iloc[unlabelled]} of {rows_path}; labels "
                      "and rows must come from the same export. Label again.")
    disguised = None
    if disguised_path:
        declared = rows.loc[rows["kind"] == DECLARED, ["line", "user_agent", "rule_weight"]].set_index("line")
        disguised = read(disguised_path, columns, ("ip", "user_agent"), numpy.sort(declared.index.to_numpy()))
        if len(disguised) == 0 and len(declared):
            raise Problem(f"{disguised_path}: has none of the {len(declared)} lines of declared crawlers in {rows_path}; it "
                          "must be the same log exported with --rewrite.")
        if (disguised["user_agent"].astype(object).to_numpy() == declared["user_agent"].reindex(disguised["line"]).astype(object).to_numpy()).any():
            raise Problem(f"{disguised_path}: crawlers keep their agents in it; export it with --rewrite and the file that "
                          "`bliss-train label --rewrite` wrote.")
        disguised = with_clients(disguised)
        disguised["client"] += rows["client"].max() + 1
        disguised["kind"] = pandas.Categorical.from_codes(numpy.full(len(disguised), KINDS.index(DISGUISED)), KINDS)
        disguised["rule_weight"] = declared["rule_weight"].reindex(disguised["line"]).to_numpy()
    return Site(name, group or name, rows, disguised, facts)


def labelled(rows, labels):
    """Gives rows with clients the kind and the weight of their client's label; returns the first row without one, or None."""
    told = labels.set_index(["ip", "user_agent"]).reindex(pandas.MultiIndex.from_frame(clients_of(rows)))
    client = rows["client"].to_numpy()
    kinds = numpy.array([KINDS.index(kind) if kind in KINDS else -1 for kind in told["label"]], numpy.int8)
    rows["kind"] = pandas.Categorical.from_codes(kinds[client], KINDS)
    rows["rule_weight"] = told["weight"].to_numpy(float)[client]
    without = numpy.flatnonzero(kinds[client] < 0)
    return int(without[0]) if len(without) else None


def together(sites):
    """One table of all sites, with `client` unique over all, `robot` (1, 0, NaN where unknown) and `stage`.

    It takes the rows out of the sites.
    """
    tables, first = [], 0
    for site in sites:
        parts = site.take()
        for part in parts:
            part["client"] += first
        first = int(max(part["client"].max() for part in parts if len(part))) + 1
        tables += parts
    table = joined(tables)
    del tables, parts, part
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


def learned(table, most=24):
    """The places of the rows that a fit reads: labelled ones, thinned."""
    places = numpy.flatnonzero(table["robot"].notna().to_numpy())
    narrow = pandas.DataFrame({name: table[name].to_numpy()[places] for name in ("client", "stage")}, index=places)
    return thinned(narrow, most).index.to_numpy()


def weigh(table, power=0.5, balance=True):
    """Weights of labelled rows.

    A client has one weight (its rule's) in each stage of evidence, shared by its requests there. A site's clients together
    weigh the root of their number (`power`). Within each stage robots and people weigh the same, if there are both.
    """
    requests = table.groupby(["client", "stage"])["stage"].transform("size").to_numpy()
    weights = table["rule_weight"].to_numpy(float) / requests
    clients = table.groupby("site", observed=True)["client"].nunique()
    weights *= table["site"].map((clients.astype(float) ** (power - 1)).to_dict()).to_numpy(float)
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
