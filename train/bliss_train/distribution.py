"""The distribution of a model's inputs and scores over the requests that it was trained on.

It travels in the model's file (`bliss.distribution` of its metadata), and the daemon compares it with what workers see. It is
of requests as they came, each counting once, unlike the rows that are fitted, which are labelled, thinned and weighed; disguised
copies are left out. A value is in bin n if it exceeds n of the borders; NaN has a bin of its own.
"""

import json

import numpy

from . import measure
from .data import DISGUISED
from .model import raw_of

VERSION = 1
MOST_INPUTS = 128
BINS = 10
SCORE_BORDERS = [10, 20, 30, 40, 50, 60, 70, 80, 90]


def borders_of(values):
    """Borders of about ten bins with as many values each; of few values, one bin for each. Values without NaN."""
    values = numpy.asarray(values, numpy.float32)
    unique = numpy.unique(values[numpy.isfinite(values)])
    if len(unique) == 0:
        return []
    if len(unique) > BINS:
        quantiles = numpy.quantile(values, numpy.arange(1, BINS) / BINS, method="inverted_cdf")
        # The smallest value is often "none": it has a bin of its own where a tenth has it anyway.
        unique = numpy.unique(numpy.append(quantiles[numpy.isfinite(quantiles)], unique[-1]))
    # Above the largest there is nothing.
    return [float(border) for border in unique[:-1]]


def bins_of(values, borders):
    """The share of the values in each bin, and of NaN."""
    values = numpy.asarray(values, numpy.float32)
    missing = numpy.isnan(values)
    places = numpy.searchsorted(numpy.asarray(borders, numpy.float32), values[~missing], side="left")
    counts = numpy.bincount(places, minlength=len(borders) + 1)
    return [round(float(count) / len(values), 6) for count in counts], round(float(missing.mean()), 6)


def of(model, rows, places=None, optional=()):
    """The distribution of a model over rows (all, or those at `places`), as the file has it."""
    places = numpy.arange(len(rows)) if places is None else places
    names = list(model.feature_names_)
    # What matters most first: workers may have no room for all.
    ranked = sorted(zip(model.get_feature_importance(), names), key=lambda pair: (-pair[0], pair[1]))
    inputs = []
    for weight, name in ranked[:MOST_INPUTS]:
        # Not of what is optional: that a site does not have it is no drift.
        if weight > 0 and name not in optional:
            values = rows[name].to_numpy(numpy.float32)[places]
            borders = borders_of(values[~numpy.isnan(values)])
            shares, missing = bins_of(values, borders)
            inputs.append({"name": name, "borders": borders, "shares": shares, "missing": missing})
    scores, _ = bins_of(measure.score(raw_of(model, rows, names, places)), SCORE_BORDERS)
    return {"version": VERSION, "requests": len(places), "score": {"borders": SCORE_BORDERS, "shares": scores}, "inputs": inputs}


def entry(model, table, optional=()):
    """The text of the metadata, from the requests of all sites."""
    return json.dumps(of(model, table, numpy.flatnonzero(table["kind"] != DISGUISED), optional), separators=(",", ":"))
