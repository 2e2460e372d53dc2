"""The input `lists.hosting`, which not every site has: with a list and without one."""

import json

import numpy
import pandas
import pytest

from bliss_train import inputs, measure
from bliss_train.model import Shifts, raw, shifted
from helpers import SMALL, files, labels_of, load, run, site

NAME = "lists.hosting"


def with_list(spec, folder, has_list=True, seed=1):
    """The same site, its rows exported with a list in which robots are for the most part and people are not; or without one."""
    random = numpy.random.default_rng(seed)
    name, *paths = spec.split(":")
    labels = labels_of(spec).set_index(["ip", "user_agent"])["label"]
    hosted = {ip: bool(label != "person" and random.random() < 0.7) for (ip, _), label in labels.items()}
    new = [folder / f"{name}.{place}.{has_list}.parquet" for place in range(len(paths))]
    for place, path in enumerate(paths):
        frame = pandas.read_parquet(path)
        if place != 1:
            found = frame["ip"].map(hosted).fillna(False).astype("float32")
            frame[NAME] = found if has_list else numpy.float32("nan")
            if has_list:
                frame["lists.status"] = numpy.where(found > 0, "fresh", "missing")
        frame.to_parquet(new[place], index=False)
    return ":".join([name, *map(str, new)])


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    shop, blog = site(folder, "shop", seed=1), site(folder, "blog", seed=2, people=25)
    return [with_list(shop, folder), with_list(blog, folder), with_list(site(folder, "lab", seed=4), folder, has_list=False)]


def test_it_is_forgotten_as_nan_in_half_of_the_copies_and_people_move_with_it():
    names = ["request.is_get", "subnet.a", NAME]
    told = inputs.Inputs()
    table = pandas.DataFrame({name: numpy.tile([0.0, 1.0], 500).astype("float32") for name in names})
    table["subnet.status"], table["lists.status"] = "missing", "missing"
    table["subnet.a"] = numpy.float32(-1)
    missing = inputs.missing_values(table, names, told.forgotten)
    assert numpy.isnan(missing["lists"][0][1]), "an address in no network has 0, and what a site does not have is NaN"
    values = table[names].to_numpy("float32")
    lost = inputs.forget(values, missing, names, told.chance, numpy.random.default_rng(1))
    assert 450 < numpy.isnan(lost[:, 2]).sum() < 550 and not numpy.isnan(lost[:, :2]).any()
    # People are rows with 0, robots with 1: who moves is in a hoster's network then.
    robots = values[:, 2] == 1
    moved = values.copy()
    inputs.move(moved, values, robots, names, told.neighbours, numpy.random.default_rng(1))
    assert (moved[robots] == values[robots]).all() and 20 < (moved[~robots][:, 2] == 1).sum() < 90
    assert told.told(names, table) == [NAME] and told.told(names, table.assign(**{NAME: numpy.nan})) == []


@pytest.mark.parametrize("shifts", [Shifts(0.5, 0.5), Shifts(0.5, -1.25)])
def test_the_threshold_is_in_the_file_for_sites_with_and_without_it(fitted, tmp_path, shifts):
    model, names = load(fitted / "model.cbm"), (fitted / "inputs.txt").read_text().split()
    random = numpy.random.default_rng(1)
    rows = pandas.DataFrame(random.normal(size=(200, len(names))).astype("float32"), columns=names)
    rows[NAME] = random.choice([0.0, 1.0, numpy.nan], 200).astype("float32")
    rows[names[0]] = numpy.where(random.random(200) < 0.5, numpy.nan, 1.0).astype("float32")
    before = raw(model, rows)
    # As a file: sums of models are what readers get.
    other = shifted(model, shifts, names, [NAME])
    other.save_model(str(tmp_path / "m.cbm"))
    added = raw(load(tmp_path / "m.cbm"), rows) - before
    assert numpy.abs(added - numpy.where(rows[NAME].isna(), shifts.without, shifts.told)).max() < 1e-9
    assert numpy.abs(shifts.of(rows, [NAME]) - added).max() < 1e-9


def test_one_model_serves_sites_with_a_list_and_without(fitted, sites):
    names = (fitted / "inputs.txt").read_text().split()
    assert NAME in names
    model, people = load(fitted / "model.cbm"), []
    for one in sites:
        rows = pandas.read_parquet(files(one)[0])
        labels = labels_of(one).set_index(["ip", "user_agent"])["label"]
        rows = rows[(labels.reindex(pandas.MultiIndex.from_frame(rows[["ip", "user_agent"]])) == "person").to_numpy()]
        people.append(rows)
        without = measure.score(raw(model, rows[names].assign(**{NAME: numpy.float32("nan")})))
        assert (without >= 30).mean() > 0.9, one
    rows = pandas.concat(people, ignore_index=True)[names]
    told, hosted = (measure.score(raw(model, rows.assign(**{NAME: numpy.float32(value)}))) for value in (0, 1))
    assert hosted.mean() < told.mean(), "it is evidence"


def test_the_card_gives_both_figures_and_drift_knows_nothing_of_it(fitted):
    card = (fitted / "card.md").read_text()
    assert "## What it gives where a site has `lists.hosting`" in card and "## What it gives where a site has no `lists.hosting`" in card
    carried = dict(load(fitted / "model.cbm").get_metadata().items())["bliss.distribution"]
    assert NAME not in [one["name"] for one in json.loads(carried)["inputs"]]


def test_evaluate_prints_both(sites, capsys):
    assert run("evaluate", *[word for one in sites for word in ("--site", one)], "--leave-one-group-out") == 0
    out = capsys.readouterr().out
    assert out.count("| by clients |") == 2 and "where a site has no lists.hosting:" in out


def test_a_correction_of_a_log_without_a_list_keeps_the_input(fitted, tmp_path):
    own = with_list(site(tmp_path, "own", seed=7), tmp_path, has_list=False)
    assert run("fit", "--site", own, "--out", tmp_path / "out", "--base", fitted / "model.cbm", *SMALL) == 0
    model, names = load(tmp_path / "out" / "model.cbm"), (fitted / "inputs.txt").read_text().split()
    assert model.feature_names_ == names
    rows = pandas.read_parquet(files(own)[0])[names]
    assert numpy.isfinite(raw(model, rows)).all() and numpy.isfinite(raw(model, rows.assign(**{NAME: numpy.float32(1)}))).all()
    assert "has no `lists.hosting`" not in (tmp_path / "out" / "card.md").read_text()
