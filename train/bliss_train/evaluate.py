"""The acceptance table: by clients, against people, on what the model has not seen."""

import numpy

from . import measure
from .errors import Problem
from .label import DECLARED, HONEYPOT, LISTED, PERSON, SCANNER, UNKNOWN
from .data import DISGUISED
from .model import folds_of, raw_of, shifted, shifts_of

KINDS = (DECLARED, DISGUISED, SCANNER)
FEWEST_ROBOTS = 5
PEOPLE_OF_A_SITE = 60
FEWEST_PEOPLE = 10


def leave_one_group_out(table, recipe, wanted, say=lambda words: None, without=()):
    """Raw answers, shift included, for each row by a model and a shift made without the row's group; and what the same models answer
    where a site does not have the inputs `without`: an array each."""
    groups = table["group"].unique()
    if len(groups) < 2:
        raise Problem("--leave-one-group-out needs sites of two operators at least; found one. Give more --site, or "
                      "--later 0.3 to test on the last part of one log.")
    answers, poorer = numpy.full(len(table), numpy.nan), numpy.full(len(table), numpy.nan)
    for group in groups:
        say(f"without {group}")
        rest = table[table["group"] != group].reset_index(drop=True)
        folds, _ = folds_of(rest)
        shifts = shifts_of(rest, *recipe.out_of_fold(rest, folds, without), without, wanted)
        model = shifted(recipe.fit(rest), shifts, recipe.names, without)
        inside = numpy.flatnonzero((table["group"] == group).to_numpy())
        answers[inside] = raw_of(model, table, recipe.names, inside)
        poorer[inside] = raw_of(model, table, recipe.names, inside, without)
    return answers, poorer


def figures(table, answers):
    """Figures of each site and their medians: a dictionary that can be printed and written as JSON."""
    answers = numpy.asarray(answers, float)
    known = ~numpy.isnan(answers)
    clients = measure.by_client(table[known], answers[known])
    sites = {name: site_figures(part) for name, part in clients.groupby("site", sort=True)}
    return {"sites": sites, "all": summary(sites, clients)}


def site_figures(clients):
    people = clients[clients["kind"] == PERSON]
    told = {"clients": len(clients), "kinds": {}}
    for kind in (DECLARED, DISGUISED, SCANNER, HONEYPOT, LISTED, PERSON, UNKNOWN):
        part = clients[clients["kind"] == kind]
        if len(part) == 0:
            continue
        one = {
            "clients": len(part), "mean_score": float(part["score"].mean()),
            "below_30": float((part["score"] < measure.PEOPLE_BELOW).mean()),
        }
        first = part["first"].dropna()
        if len(first):
            one["first_below_30"] = float((first < measure.PEOPLE_BELOW).mean())
        if kind not in (PERSON, UNKNOWN) and len(people):
            one["auc"] = measure.auc(part["score"], people["score"])
            one["auc_first"] = measure.auc(first, people["first"].dropna())
        if kind == PERSON:
            below = int((part["score"] < measure.PEOPLE_BELOW).sum())
            one["below_30_upper"] = measure.upper_bound(below, len(part))
            one["first_below_30_upper"] = measure.upper_bound(int((first < measure.PEOPLE_BELOW).sum()), len(first))
        told["kinds"][kind] = one
    robots = clients[~clients["kind"].isin([PERSON, UNKNOWN])]
    told["auc_first"] = measure.auc(robots["first"].dropna(), people["first"].dropna())
    return told


def summary(sites, clients):
    """Medians and worst over sites that have enough of both; shares of people over all and by site."""
    told = {}
    for kind in KINDS:
        parts = {name: site["kinds"][kind] for name, site in sites.items()
                 if kind in site["kinds"] and site["kinds"][kind]["clients"] >= FEWEST_ROBOTS}
        aucs = [part["auc"] for name, part in parts.items()
                if sites[name]["kinds"].get(PERSON, {"clients": 0})["clients"] >= FEWEST_PEOPLE]
        below = [part["below_30"] for part in parts.values()]
        told[kind] = {
            "auc_median": float(numpy.median(aucs)) if aucs else float("nan"), "auc_worst": min(aucs, default=float("nan")),
            "below_30_median": float(numpy.median(below)) if below else float("nan"),
            "below_30_worst": min(below, default=float("nan")), "sites": len(parts), "sites_with_people": len(aucs),
        }
    people = clients[clients["kind"] == PERSON]
    robots = clients[~clients["kind"].isin([PERSON, UNKNOWN])]
    told["auc_first"] = measure.auc(robots["first"].dropna(), people["first"].dropna())
    below = int((people["score"] < measure.PEOPLE_BELOW).sum())
    told["people"] = {
        "clients": len(people), "below_30": float((people["score"] < measure.PEOPLE_BELOW).mean()) if len(people) else float("nan"),
        "below_30_upper": measure.upper_bound(below, len(people)),
        "first_below_30": float((people["first"].dropna() < measure.PEOPLE_BELOW).mean()) if len(people) else float("nan"),
    }
    return told


def percent(value):
    return "–" if value is None or value != value else f"{100 * value:.1f} %"


def number(value):
    return "–" if value is None or value != value else f"{value:.3f}"


def as_text(told, title):
    """The table of the acceptance, and a line for each site."""
    every = told["all"]
    lines = [title, "", "| by clients | AUC against people, median / worst | below 30, median / worst | sites |", "|---|---|---|---|"]
    for kind in KINDS:
        one = every[kind]
        lines.append(f"| {kind} | {number(one['auc_median'])} / {number(one['auc_worst'])} | "
                     f"{percent(one['below_30_median'])} / {percent(one['below_30_worst'])} | "
                     f"{one['sites']}, {one['sites_with_people']} with people |")
    people = every["people"]
    lines += [
        f"| people | first requests of all robots against theirs: {number(every['auc_first'])} | "
        f"{percent(people['below_30'])} (at most {percent(people['below_30_upper'])}), first requests "
        f"{percent(people['first_below_30'])} | {people['clients']} clients |", "",
        "| site | people below 30, all / first | declared | disguised | scanners | listed, honeypot | unknown |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, site in told["sites"].items():
        kinds = site["kinds"]

        def cell(kind):
            one = kinds.get(kind)
            if one is None:
                return "–"
            auc = f"{number(one['auc'])}, " if "auc" in one else ""
            return f"{auc}{percent(one['below_30'])} of {one['clients']}"

        person = kinds.get(PERSON)
        who = "–" if person is None else \
            f"{percent(person['below_30'])} / {percent(person.get('first_below_30'))} of {person['clients']}"
        robots = " · ".join(cell(kind) for kind in (LISTED, HONEYPOT) if kind in kinds) or "–"
        lines.append(f"| {name} | {who} | {cell(DECLARED)} | {cell(DISGUISED)} | {cell(SCANNER)} | {robots} | {cell(UNKNOWN)} |")
    lines += ["", f"AUC where a site has {FEWEST_PEOPLE} people and {FEWEST_ROBOTS} such robots; a client counts by the mean "
                  f"score of its requests. A site's share of people means little under {PEOPLE_OF_A_SITE} of them."]
    return "\n".join(lines)
