"""Fitting: weights, threshold, bytes, leaks, corrections, what is refused."""

import json

import numpy
import pandas
import pytest

from bliss_train import data, inputs, measure
from helpers import SMALL, files, labels_of, load, real_data, run, site



@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    return [site(folder, "shop", seed=1), site(folder, "blog", seed=2, people=25), site(folder, "trap", seed=3, people=0, label=("--honeypot", "a trap"))]


def test_the_score_is_the_products():
    assert measure.score([-50.0, 0.0, 50.0]).tolist() == [99.0, 50.0, 1.0]
    p = numpy.linspace(0.001, 0.999, 999)
    assert (measure.score(numpy.log(p / (1 - p))) == numpy.floor(1 + 98 * (1 - p) + 0.5)).mean() > 0.99


def test_auc_counts_ties_half():
    assert measure.auc([1, 2], [3, 4]) == 1.0 and measure.auc([3], [3]) == 0.5 and measure.auc([5], [1]) == 0.0
    assert numpy.isnan(measure.auc([], [1]))


def test_the_upper_bound_is_clopper_and_pearsons():
    assert measure.upper_bound(0, 100) == pytest.approx(1 - 0.05 ** 0.01)
    assert measure.upper_bound(5, 5) == 1.0 and numpy.isnan(measure.upper_bound(0, 0))


def test_the_shift_holds_the_share_of_people():
    random = numpy.random.default_rng(1)
    clients = numpy.repeat(numpy.arange(400), 5)
    raw = random.normal(0, 3, 400)[clients] + random.normal(0, 1, 2000)
    shift = measure.shift_for(raw, clients, 0.02)

    def below(added):
        return (numpy.bincount(clients, measure.score(raw + added)) / 5 < 30).mean()
    assert below(shift) <= 0.02 < below(shift + 0.5)


def test_the_shift_is_kinder_where_robots_lie_far_below():
    robots = [(numpy.full(50, 9.0), numpy.arange(50)), (numpy.full(50, 7.0), numpy.arange(50))]
    shift = measure.kindest(3.0, robots, 0.98)
    assert -6.2 < shift < -6.0, "the nearer kind of robots still scores below 30"
    assert measure.kindest(3.0, [(numpy.full(5, -2.1), numpy.arange(5))], 0.98) == pytest.approx(3.0, abs=0.01)
    assert (measure.score([7.0 + shift]) < 30).all()


def test_weights_are_equal_by_client_stage_and_side(sites):
    table = data.together([data.load(f"s{n}", *files(one)) for n, one in enumerate(sites)])
    table = table[table["robot"].notna()]
    table["weight"] = data.weigh(table)
    sums = table.groupby(["stage", "robot"])["weight"].sum().unstack()
    for stage in sums.index:
        if sums.loc[stage].notna().all():
            assert sums.loc[stage, 0.0] == pytest.approx(sums.loc[stage, 1.0])
    clients = table[(table["site"] == "s0") & (table["robot"] == 0)].groupby(["stage", "client"])["weight"].sum()
    for stage, part in clients.groupby(level=0):
        assert part.max() == pytest.approx(part.min()), f"stage {stage}"


def test_thinning_keeps_the_first_request_and_few_clients_whole():
    table = pandas.DataFrame({"client": [1] * 100 + [2] * 5, "stage": [3] * 105, "at": list(range(100)) + list(range(5))})
    kept = data.thinned(table, 10)
    assert (kept["client"] == 2).sum() == 5 and (kept["client"] == 1).sum() == 10 and kept["at"].iloc[0] == 0


def test_the_folder_is_complete_and_the_fixture_right(fitted):
    assert {path.name for path in fitted.iterdir()} == {"model.cbm", "fixture.jsonl", "inputs.txt", "figures.json", "policy.toml", "card.md", "report.html"}
    model = load(fitted / "model.cbm")
    names = (fitted / "inputs.txt").read_text().split()
    assert model.feature_names_ == names
    rows = [json.loads(line) for line in (fitted / "fixture.jsonl").read_text().splitlines()]
    assert len(rows) == 200 and all(value is None for value in rows[0]["inputs"].values())
    values = pandas.DataFrame([row["inputs"] for row in rows], columns=names).astype("float32")
    assert model.predict(values, prediction_type="RawFormulaVal").tolist() == [row["raw"] for row in rows]
    assert measure.score([row["raw"] for row in rows]).tolist() == [row["score"] for row in rows]
    assert min(row["score"] for row in rows) < 30 < max(row["score"] for row in rows)


def test_no_fixture_row_is_a_request(fitted, sites):
    names = (fitted / "inputs.txt").read_text().split()
    real = {tuple(row) for one in sites for row in pandas.read_parquet(files(one)[0])[names].fillna(-7).round(4).to_numpy().tolist()}
    made = [tuple(round(-7 if v is None else v, 4) for v in json.loads(line)["inputs"].values()) for line in (fitted / "fixture.jsonl").open()]
    assert not real & set(made)


def test_the_same_seed_gives_the_same_bytes(fitted, sites, tmp_path):
    arguments = [word for one in sites for word in ("--site", one)]
    assert run("fit", *arguments, "--out", tmp_path / "again", *SMALL) == 0
    for path in fitted.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert run("fit", *arguments, "--out", tmp_path / "other", "--seed", 2, *SMALL) == 0
    assert (fitted / "model.cbm").read_bytes() != (tmp_path / "other" / "model.cbm").read_bytes()


def test_people_stand_above_robots(fitted):
    figures = json.loads((fitted / "figures.json").read_text())
    assert figures["all"]["declared"]["auc_worst"] > 0.9 and figures["all"]["people"]["below_30"] <= 0.02


def test_the_report_is_one_file_and_escapes_what_clients_wrote(sites, tmp_path):
    path = tmp_path / "evil"
    path.mkdir()
    spec = site(path, "evil", seed=9)
    for place in (0, 1, 2):
        frame = pandas.read_parquet(files(spec)[place])
        crawler = frame["user_agent"].str.contains("python") if place != 2 else frame["user_agent"].str.contains("never")
        frame.loc[crawler, "user_agent"] = "python-requests <script>alert(1)</script>"
        frame.to_parquet(files(spec)[place], index=False)
    rows = pandas.read_parquet(files(spec)[0])
    assert rows["user_agent"].str.contains("<script>").any()
    assert run("label", "--rows", files(spec)[0], "--out", files(spec)[1], "--networks", "none") == 0
    assert run("fit", "--site", spec, "--out", path / "out", *SMALL) == 0
    page = (path / "out" / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    for outside in ("src=", "href=", "url(", "@import"):
        assert outside not in page
    assert "prefers-color-scheme:dark" in page and "width=device-width" in page and page.count("<svg") >= 5
    assert run("fit", "--site", spec, "--out", path / "quiet", "--no-clients", *SMALL) == 0
    assert "&lt;script&gt;" not in (path / "quiet" / "report.html").read_text()


def test_a_planted_label_is_found(sites, tmp_path, capsys):
    specs = []
    for number, one in enumerate(sites):
        name, *paths = one.split(":")
        planted = []
        for place, path in enumerate(paths):
            frame = pandas.read_parquet(path)
            if place == 1:
                planted.append(path)
                continue
            labels = labels_of(one).set_index(["ip", "user_agent"])["label"]
            keys = pandas.MultiIndex.from_frame(frame[["ip", "user_agent"]])
            person = (labels.reindex(keys) == "person").to_numpy() & (place == 0)
            # Not in order, so that no straight line shows it: people 2, robots 1 and 3.
            frame["path.secret_7d"] = numpy.where(person, 2.0, 1.0 + 2 * (frame["line"] % 2)).astype("float32")
            frame.to_parquet(tmp_path / f"{number}.{place}.parquet", index=False)
            planted.append(tmp_path / f"{number}.{place}.parquet")
        specs += ["--site", ":".join([name, *map(str, planted)])]
    for command in (["fit", *specs, "--out", tmp_path / "out"], ["leak", *specs]):
        assert run(*command) == 4
        assert "path.secret_7d" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run("leak", *specs, "--allow-input", "path.secret_7d") == 0
    assert run("leak", *[word for one in sites for word in ("--site", one)]) == 0


@pytest.mark.parametrize("changed, found", [(dict(people=2), "people by the rules"), (dict(crawlers=0, scanners=1, floods=0), "that are robots")])
def test_without_people_or_robots_the_default_stays(fitted, tmp_path, capsys, changed, found):
    spec = site(tmp_path, disguise=False, **changed)
    assert run("fit", "--site", spec, "--out", tmp_path / "out", "--base", fitted / "model.cbm") == 3
    told = capsys.readouterr().err
    assert found in told and "keep the default model" in told and "model.cbm stays as it is" in told
    assert not (tmp_path / "out").exists()


def test_a_correction_is_one_file_that_holds_the_base(fitted, tmp_path):
    spec = site(tmp_path, "own", seed=7)
    assert run("fit", "--site", spec, "--out", tmp_path / "out", "--base", fitted / "model.cbm", *SMALL) == 0
    base, own = load(fitted / "model.cbm"), load(tmp_path / "out" / "model.cbm")
    assert own.feature_names_ == base.feature_names_ and own.tree_count_ > base.tree_count_
    for model in (base, own):
        metadata = dict(model.get_metadata().items())
        assert set(metadata) == {"class_params", "params", "bliss.trainer", "bliss.distribution"} and "Logloss" in metadata["params"]
        assert model.classes_.tolist() == [0, 1] and model.predict_proba([[0.0] * len(model.feature_names_)]).shape == (1, 2)
    values = pandas.read_parquet(files(spec)[0])[own.feature_names_]
    difference = own.predict(values, prediction_type="RawFormulaVal") - base.predict(values, prediction_type="RawFormulaVal")
    assert numpy.isfinite(difference).all() and numpy.abs(difference).max() > 0
    again = tmp_path / "again"
    assert run("fit", "--site", spec, "--out", again, "--base", fitted / "model.cbm", *SMALL) == 0
    assert (again / "model.cbm").read_bytes() == (tmp_path / "out" / "model.cbm").read_bytes()


def test_a_base_that_reads_something_else_is_refused(fitted, tmp_path, capsys):
    spec = site(tmp_path)
    for place in (0, 2):
        frame = pandas.read_parquet(files(spec)[place]).drop(columns="subnet.asset_share_h1d")
        frame.to_parquet(files(spec)[place], index=False)
    assert run("fit", "--site", spec, "--out", tmp_path / "out", "--base", fitted / "model.cbm") == 1
    assert "subnet.asset_share_h1d, which the rows do not have" in capsys.readouterr().err
    (tmp_path / "no.cbm").write_bytes(b"no model")
    assert run("fit", "--site", spec, "--out", tmp_path / "out", "--base", tmp_path / "no.cbm") == 1
    assert "expected a CatBoost model" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, words", [
    (["--site", "a:b"], "expected NAME:ROWS:LABELS"), (["--site", "a:x:y", "--site", "a:x:y"], "is there twice"),
    (["--site", "a:x:y", "--groups", "b=c"], "no --site is named b"), (["--site", "a:x:y"], "no such file"),
])
def test_wrong_arguments_are_told(tmp_path, capsys, arguments, words):
    assert run("fit", *arguments, "--out", tmp_path / "out") == 1
    assert words in capsys.readouterr().err


def test_files_of_different_exports_are_refused(sites, tmp_path, capsys):
    shop, blog = files(sites[0]), files(sites[1])
    assert run("fit", "--site", f"a:{shop[0]}:{blog[1]}", "--out", tmp_path / "out") == 1
    assert "same export" in capsys.readouterr().err
    assert run("fit", "--site", f"a:{shop[0]}:{shop[1]}:{shop[0]}", "--out", tmp_path / "out") == 1
    assert "crawlers keep their agents" in capsys.readouterr().err


def test_evaluate_prints_the_table(sites, fitted, tmp_path, capsys):
    arguments = [word for one in sites for word in ("--site", one)]
    for how in (["--leave-one-group-out"], ["--model", fitted / "model.cbm"]):
        assert run("evaluate", *arguments, *how, "--json", tmp_path / "f.json") == 0
        out = capsys.readouterr().out
        assert "| declared |" in out and "| disguised |" in out and "| shop |" in out
        assert set(json.loads((tmp_path / "f.json").read_text())["sites"]) == {"shop", "blog", "trap"}
    for base in ("none", fitted / "model.cbm"):
        assert run("evaluate", "--site", sites[0], "--later", 0.3, "--base", base, "--networks", "none") == 0
        assert "The last 30 %" in capsys.readouterr().out


def test_real_log_its_later_part(tmp_path, capsys):
    import prototype_features as prototype

    log = real_data() / "access.log"
    rows, labels, rewrite, disguised = (tmp_path / name for name in ("r.parquet", "l.parquet", "w.csv", "d.parquet"))
    prototype.features(log).to_parquet(rows, index=False)
    assert run("label", "--rows", rows, "--out", labels, "--rewrite", rewrite) == 0
    prototype.features(log, prototype.read_rewrite(rewrite)).to_parquet(disguised, index=False)
    assert run("evaluate", "--site", f"log:{rows}:{labels}:{disguised}", "--later", 0.3, "--json", tmp_path / "f.json") == 0
    told = json.loads((tmp_path / "f.json").read_text())["sites"]["log"]["kinds"]
    assert told["declared"]["auc"] > 0.97 and told["disguised"]["auc"] > 0.9 and told["person"]["below_30"] < 0.05


def test_people_may_live_in_networks_of_robots():
    names = ["request.is_get", "subnet.a", "subnet16.b", "ip.c"]
    values = numpy.arange(400, dtype=numpy.float32).reshape(100, 4)
    robots = numpy.arange(100) % 2 == 0
    lost = values.copy()
    inputs.move(lost, values, robots, names, (0.5, frozenset(["subnet", "subnet16"])), numpy.random.default_rng(1))
    moved = (lost != values).any(axis=1)
    assert not moved[robots].any() and 10 < moved.sum() < 40
    assert (lost[:, [0, 3]] == values[:, [0, 3]]).all()
    # Both inputs are those of one robot.
    places = numpy.searchsorted(values[:, 1], lost[moved, 1])
    assert robots[places].all() and (values[places, 2] == lost[moved, 2]).all()
    again = values.copy()
    inputs.move(again, values, robots, names, (0.0, frozenset(["subnet"])), numpy.random.default_rng(1))
    assert (again == values).all()
