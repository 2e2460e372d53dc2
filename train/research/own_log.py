"""RESEARCH: ways to join a default model and one's own log, measured on the last 30 % of the log's time.

own_log.py FOLDER SITE: the default is fitted on all other sites of the folder (files as export_sites.sh writes them).
"""
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
import pandas
from bliss_train import data, evaluate, label, later, model
from bliss_train.inputs import Inputs
from bliss_train.rows import read
from bliss_train.rules import Rules
from search import FIVE

folder, own = Path(sys.argv[1]), sys.argv[2]
database = sys.argv[3] if len(sys.argv) > 3 else None
inputs, rules = Inputs(), Rules()
paths = sorted(folder.glob("*.labels.parquet"))
names = inputs.of_files([folder / (p.name[:-15] + ".parquet") for p in paths])
from bliss_train.hosting import Hosting
hosting = Hosting(database, rules.hosting["names"]) if database else None


def load(name):
    return data.load(name, folder / f"{name}.parquet", folder / f"{name}.labels.parquet", folder / f"{name}.disguised.parquet",
                     "wtf" if name in FIVE else name, names)


others = data.together([load(p.name[:-15]) for p in paths if p.name[:-15] != own])
recipe = model.Recipe(names, inputs)
folds, _ = model.folds_of(others)
default = recipe.fit(others)
model.add_bias(default, model.shift_of(others, recipe.out_of_fold(others, folds)[0]))

whole = load(own)
# Labels need all texts and no inputs.
rows = read(folder / f"{own}.parquet", [])
split = rows["time"].iloc[0] + 0.7 * (rows["time"].iloc[-1] - rows["time"].iloc[0])
labels = label.label(rows[rows["time"] < split].reset_index(drop=True), rules, hosting)
before = later.with_labels(own, own, whole.rows[whole.rows["time"] < split].reset_index(drop=True), labels)
before.disguised = whole.disguised[whole.disguised["time"] < split].reset_index(drop=True)
train = data.together([before])
test = data.together([whole])
test = test[test["time"] >= split].reset_index(drop=True)
folds, _ = model.folds_of(train)


def line(name, answers):
    f = evaluate.figures(test, answers)
    k = f["sites"][own]["kinds"]
    cell = lambda kind: f"{k[kind]['auc']:.3f} {100 * k[kind]['below_30']:.0f} %" if kind in k else "-"
    p = k["person"]
    print(f"{name:44s} declared {cell('declared')} disguised {cell('disguised')} scanner {cell('scanner')} first {f['all']['auc_first']:.3f} "
          f"people {100 * p['below_30']:.1f} / {100 * p['first_below_30']:.1f} % of {p['clients']} unknown {100 * k['unknown']['below_30']:.0f}", flush=True)


x = test[names]
line("default alone", model.raw(default, x))
base_oof = model.raw(default, train[names])
line("default, own people's percentile", model.raw(default, x) + model.shift_of(train, base_oof))
own_oof, own_model = recipe.out_of_fold(train, folds)[0], recipe.fit(train)
line("own rows alone", model.raw(own_model, x) + model.shift_of(train, own_oof))
mixed_oof = (own_oof + base_oof) / 2
line("mean of both (log odds)", (model.raw(own_model, x) + model.raw(default, x)) / 2 + model.shift_of(train, mixed_oof))
for trees, depth, rate in ((50, 3, 0.05), (100, 4, 0.03), (100, 4, 0.05), (200, 4, 0.08)):
    r = model.Recipe(names, inputs, base=default, iterations=trees, depth=depth, learning_rate=rate)
    oof = r.out_of_fold(train, folds)[0]
    line(f"correction {trees} trees depth {depth} rate {rate}", model.raw(r.fit(train), x) + model.shift_of(train, oof))
both = pandas.concat([others.assign(client=others["client"] + 10 ** 6), train], ignore_index=True)
pooled = recipe.fit(both)
line("rows of all sites together (upper bound)", model.raw(pooled, x) + model.shift_of(train, own_oof))
