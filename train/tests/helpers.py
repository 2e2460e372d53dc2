"""Files of a synthetic site, made as the product makes them, and the program called as a user calls it."""

import os
from pathlib import Path

import catboost
import pandas
import pytest

import prototype_features as prototype
import synthetic
from bliss_train.cli import main


# Fewer resamples than a user would take.
SMALL = ("--bootstrap", 5)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def load(path):
    model = catboost.CatBoostClassifier()
    model.load_model(str(path))
    return model


def site(folder, name="shop", disguise=True, label=(), **changed):
    """NAME:ROWS:LABELS[:DISGUISED] of a synthetic log."""
    folder = Path(folder)
    log = synthetic.write(folder / f"{name}.log", synthetic.log(**changed))
    rows, labels, rewrite, disguised = (folder / f"{name}.{kind}" for kind in ("rows.parquet", "labels.parquet", "rewrite.csv", "disguised.parquet"))
    prototype.features(log).to_parquet(rows, index=False)
    assert run("label", "--rows", rows, "--out", labels, "--rewrite", rewrite, "--networks", "none", *label) == 0
    if not disguise:
        return f"{name}:{rows}:{labels}"
    prototype.features(log, prototype.read_rewrite(rewrite)).to_parquet(disguised, index=False)
    return f"{name}:{rows}:{labels}:{disguised}"


def files(spec):
    return [Path(part) for part in spec.split(":")[1:]]


def labels_of(spec):
    return pandas.read_parquet(files(spec)[1])


def real_data():
    """The folder of real logs that BLISS_TEST_DATA names; the test reports itself skipped without it."""
    folder = os.environ.get("BLISS_TEST_DATA")
    if not folder or not Path(folder, "access.log").is_file():
        pytest.skip("SKIPPED: BLISS_TEST_DATA does not name a folder with access.log and sites/")
    return Path(folder)
