"""Finds inputs that tell the label by themselves.

A label that slipped into an input makes every figure look right. For each input alone: its values in 32 bins, each bin's
share of robots learned on other groups (or other networks), and the AUC of that by client on the group left out. An
input with nearly 1 in every group is no behaviour.
"""

import numpy
import pandas

from . import data, measure

NEARLY_ONE = 0.99
BINS = 32


def single_aucs(table, names, folds):
    """AUC of each input alone, out of fold, by clients: a frame of inputs by folds that have people and robots."""
    labelled = table["robot"].notna().to_numpy()
    rows = table.loc[labelled, ["client", "site", "stage", "robot", "rule_weight"]]
    folds = numpy.asarray(folds)[labelled]
    weights = data.weigh(rows)
    robots = rows["robot"].to_numpy()
    client = rows["client"].to_numpy()
    found = {}
    for name in names:
        values = table[name].to_numpy()[labelled].astype(float)
        told = numpy.unique(numpy.quantile(values[~numpy.isnan(values)], numpy.linspace(0, 1, BINS)[1:-1])) \
            if (~numpy.isnan(values)).any() else numpy.array([])
        bins = numpy.where(numpy.isnan(values), len(told) + 1, numpy.searchsorted(told, values, side="left"))
        aucs = {}
        for fold in numpy.unique(folds):
            inside = folds == fold
            if len(numpy.unique(robots[inside])) < 2 or len(numpy.unique(robots[~inside])) < 2:
                continue
            size = len(told) + 2
            bots = numpy.bincount(bins[~inside], weights[~inside] * robots[~inside], minlength=size) + 1e-3
            every = numpy.bincount(bins[~inside], weights[~inside], minlength=size) + 2e-3
            share = (bots / every)[bins[inside]]
            means = pandas.DataFrame({"client": client[inside], "share": share, "robot": robots[inside]}).groupby("client").mean()
            aucs[fold] = measure.auc(-means["share"][means["robot"] == 1], -means["share"][means["robot"] == 0])
        found[name] = aucs
    return pandas.DataFrame(found).T


def suspects(aucs, nearly_one=NEARLY_ONE):
    """Inputs whose AUC alone is nearly 1 in every fold: {input: lowest AUC}."""
    lowest = aucs.min(axis=1)
    return {name: float(value) for name, value in lowest.items() if value >= nearly_one}
