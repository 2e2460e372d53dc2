"""The distribution that travels with a model."""

import json

import catboost
import numpy
import pytest

from bliss_train import data, distribution
from helpers import files, run, site


def test_bins_hold_a_tenth_each_and_nan_apart():
    values = numpy.append(numpy.arange(1000), [numpy.nan] * 250).astype(numpy.float32)
    borders = distribution.borders_of(values[:1000])
    shares, missing = distribution.bins_of(values, borders)
    assert len(borders) == 9 and missing == 0.2
    assert shares == pytest.approx([0.08] * 10, abs=0.001)
    assert sum(shares) + missing == pytest.approx(1)


def test_few_values_have_a_bin_each_and_a_value_equal_to_a_border_is_below_it():
    values = [0, 0, 0, 1, 5, 5]
    borders = distribution.borders_of(values)
    assert borders == [0, 1]
    assert distribution.bins_of(values, borders)[0] == pytest.approx([0.5, 1 / 6, 1 / 3], abs=1e-5)
    assert distribution.borders_of([7, 7]) == [] and distribution.borders_of([]) == []
    assert distribution.bins_of([7, 7], []) == ([1.0], 0.0)
    assert distribution.bins_of([numpy.nan], []) == ([0.0], 1.0)


def test_a_heavy_value_makes_fewer_bins():
    values = numpy.append(numpy.zeros(900), numpy.arange(1, 101))
    borders = distribution.borders_of(values)
    assert borders == [0]
    assert distribution.bins_of(values, borders)[0] == [0.9, 0.1]


def test_it_is_in_the_file_and_is_of_requests(tmp_path):
    shop = site(tmp_path, "shop", seed=1)
    out = tmp_path / "out"
    assert run("fit", "--site", shop, "--out", out, "--bootstrap", 5) == 0
    model = catboost.CatBoostClassifier()
    model.load_model(str(out / "model.cbm"))
    told = json.loads(dict(model.get_metadata().items())["bliss.distribution"])
    rows = data.load("shop", *files(shop)).rows
    assert told["version"] == 1 and told["requests"] == len(rows)
    for bins in [told["score"], *told["inputs"]]:
        assert len(bins["borders"]) <= 14 and bins["borders"] == sorted(set(bins["borders"]))
        assert len(bins["shares"]) == len(bins["borders"]) + 1
        assert sum(bins["shares"]) + bins.get("missing", 0) == pytest.approx(1, abs=1e-3)
    weights = dict(zip(model.feature_names_, model.get_feature_importance()))
    order = [weights[bins["name"]] for bins in told["inputs"]]
    assert order == sorted(order, reverse=True) and min(order) > 0
