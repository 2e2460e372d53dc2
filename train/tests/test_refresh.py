"""A newer model beside the active one."""

import json

import numpy
import pandas
import pytest

from bliss_train import newer
from helpers import run, site

FITTED = ("--bootstrap", 5)


def table(kinds):
    """Three requests of each client."""
    clients = numpy.repeat(numpy.arange(len(kinds)), 3)
    return pandas.DataFrame({"client": clients, "site": "own", "group": "own", "kind": numpy.repeat(kinds, 3), "seen": numpy.tile([1, 2, 3], len(kinds))})


def test_the_figures_are_of_clients_and_of_requests():
    kinds = ["person"] * 4 + ["declared"] * 4
    active = numpy.repeat([-3.0] * 4 + [3.0] * 4, 3)
    better = active.copy()
    told = newer.compare(table(kinds), active, better)
    assert told["same_side"] == 1 and told["mean_difference"] == 0 and newer.worse(told) == []
    assert told["active"]["auc"] == 1 and told["active"]["people_below_30"] == 0
    better[:3] = 3.0
    told = newer.compare(table(kinds), active, better)
    assert told["same_side"] == pytest.approx(1 - 3 / 24) and told["newer"]["people_below_30"] == 0.25
    reasons = newer.worse(told)
    assert len(reasons) == 2 and "25.0 % of 4 people" in reasons[0], reasons
    assert newer.worse(newer.compare(table(kinds), better, active)) == [], "the other way round it is better"


def test_without_people_nothing_is_worse():
    told = newer.compare(table(["declared"] * 3), numpy.zeros(9), numpy.ones(9))
    assert newer.worse(told) == []


def test_a_newer_model_is_compared_on_what_it_did_not_see(tmp_path, capsys):
    own = site(tmp_path, "own", seed=11, people=80, crawlers=40, scanners=16)
    assert run("fit", "--site", own, "--out", tmp_path / "active", *FITTED) == 0
    capsys.readouterr()
    told = tmp_path / "refresh.json"
    arguments = ("compare", "--site", own, "--later", 0.3, "--networks", "none", "--json", told, "--active")
    assert run(*arguments, tmp_path / "active" / "model.cbm") in (0, 5)
    said = capsys.readouterr().out
    assert said.startswith("The last 30 % of the time (") and "| person below 30, of " in said
    figures = json.loads(told.read_text())
    assert figures["newer"]["people"] == figures["active"]["people"] > 0 and 0 <= figures["same_side"] <= 1
    assert run(*arguments, tmp_path / "nowhere.cbm") == 1


def test_a_worse_one_ends_with_5(tmp_path, capsys, monkeypatch):
    own = site(tmp_path, "own", seed=11)
    assert run("fit", "--site", own, "--out", tmp_path / "active", *FITTED) == 0
    monkeypatch.setattr(newer, "worse", lambda told: ["it is"])
    code = run("compare", "--site", own, "--later", 0.3, "--networks", "none", "--active", tmp_path / "active" / "model.cbm")
    assert code == 5 and "The newer model is worse: it is. The active model stays." in capsys.readouterr().err
