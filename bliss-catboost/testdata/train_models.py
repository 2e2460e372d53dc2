"""Trains small CatBoost models of many kinds and writes them with CatBoost's own answers.

Usage: python3 train_models.py FOLDER [SEED [small|shap]]     (needs the packages catboost and numpy)

With `small` it makes the few models, of a few trees each, that testdata/small holds; with `shap` those of testdata/shap.

For each model NAME: NAME.cbm, NAME.json (the JSON export), NAME.x.f32 and NAME.cat.tsv (rows), NAME.raw.f64
(RawFormulaVal), NAME.prob.f64 (probability: of class 1 for two classes, of every class for more), and
manifest.json. Rows hold NaN, infinities, -0.0, denormals and categories that were never seen in training.
"""

import json
import os
import sys

import numpy
from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor, Pool

FOLDER = sys.argv[1]
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
RANDOM = numpy.random.default_rng(SEED)
SMALL = sys.argv[3:] == ["small"]
SHAP = sys.argv[3:] == ["shap"]
TRAIN, ROWS = 3000, 64 if SMALL or SHAP else 400
manifest = {}

WORDS = ["", "a", "bc", "def", "wxyz", "12345", "12345678", "123456789", "0123456789abcdef", "0123456789abcdefg",
         "Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64) ", "Ünïcödé — ☃",
         "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like",
         "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like ",
         "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 Safari/537.36",
         "x" * 128, "y" * 129, "z" * 200]


def floats(rows, columns, extremes):
    x = RANDOM.normal(size=(rows, columns)).astype(numpy.float32)
    x[RANDOM.random(x.shape) < 0.03] = numpy.nan
    x[:, 0] = numpy.nan_to_num(x[:, 0])  # a column without NaN in training
    if columns > 2:
        x[:, 2] = numpy.round(x[:, 2])  # ties with borders
    if extremes:
        special = numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0, 0.0, 1e-45, -1e-45, 1e-39, 3.4028235e38,
                               -3.4028235e38], dtype=numpy.float32)
        mask = RANDOM.random(x.shape) < 0.1
        x[mask] = RANDOM.choice(special, size=int(mask.sum()))
    return x


def cats(rows, cardinalities, unseen):
    columns = []
    for many in cardinalities:
        numbers = RANDOM.integers(0, many, rows)
        column = [WORDS[n] if n < len(WORDS) else f"value-{n}" for n in numbers]
        if unseen:
            column = [f"never-{i}" if RANDOM.random() < 0.1 else c for i, c in enumerate(column)]
        columns.append(column)
    return [list(row) for row in zip(*columns)] if columns else [[] for _ in range(rows)]


def pool(x, c, y=None):
    data = [list(map(float, a)) + b for a, b in zip(x, c)] if c and c[0] else x
    width = x.shape[1]
    return Pool(data, y, cat_features=list(range(width, width + len(c[0]))) if c and c[0] else None)


def target(x, c, kind):
    z = numpy.nan_to_num(x[:, 0]) + numpy.nan_to_num(x[:, min(1, x.shape[1] - 1)]) * 0.5
    for column in range(len(c[0]) if c else 0):
        z = z + numpy.array([(hash((row[column], column)) % 7) / 3.0 - 1.0 for row in c])
    z = z + RANDOM.normal(size=len(z)) * 0.3
    if kind == "crossed":  # what only combinations of categories, and of categories with numbers, can tell
        signs = {}
        for row, number in zip(range(len(z)), numpy.nan_to_num(x[:, 0])):
            for key in (tuple(c[row][:2]), tuple(c[row][:3]), (c[row][1], c[row][2], number > 0)):
                z[row] += signs.setdefault(key, RANDOM.choice([-2.0, 2.0]))
    if kind in ("class", "crossed"):
        return (z > numpy.median(z)).astype(int)
    if kind == "classes":
        return numpy.digitize(z, numpy.quantile(z, [0.25, 0.5, 0.75]))
    if kind == "many":
        return numpy.stack([z, z * z, -z], axis=1)
    return z


def train(name, columns=6, cardinalities=(), kind="class", after=None, weighted=False, **parameters):
    x, c = floats(TRAIN, columns, False), cats(TRAIN, cardinalities, False)
    y = target(x, c, kind)
    parameters = {"iterations": 40, "depth": 5, "random_seed": SEED, "thread_count": 2, "verbose": 0,
                  "allow_writing_files": False, **parameters}
    if kind in ("class", "classes", "crossed"):
        model = CatBoostClassifier(**parameters)
    else:
        if kind == "many":
            parameters["loss_function"] = "MultiRMSE"
        model = CatBoostRegressor(**parameters)
    rows = pool(x, c, y)
    if weighted:
        rows.set_weight(RANDOM.random(TRAIN) * 3)
    model.fit(rows)
    if after:
        model = after(model)
    save(name, model, columns, cardinalities, kind)


def save(name, model, columns, cardinalities, kind):
    x, c = floats(ROWS, columns, True), cats(ROWS, cardinalities, True)
    path = os.path.join(FOLDER, name)
    model.save_model(path + ".cbm")
    model.save_model(path + ".json", format="json")
    rows = pool(x, c)
    raw = numpy.asarray(model.predict(rows, prediction_type="RawFormulaVal", thread_count=1), dtype="<f8")
    dims = 1 if raw.ndim == 1 else raw.shape[1]
    raw.tofile(path + ".raw.f64")
    x.astype("<f4").tofile(path + ".x.f32")
    if cardinalities:
        with open(path + ".cat.tsv", "w") as file:
            file.writelines("\t".join(row) + "\n" for row in c)
    if kind in ("class", "classes", "crossed"):
        p = numpy.asarray(model.predict(rows, prediction_type="Probability", thread_count=1), dtype="<f8")
        (p[:, 1] if dims == 1 else p).astype("<f8").tofile(path + ".prob.f64")
    manifest[name] = {"rows": ROWS, "floats": columns, "cats": len(cardinalities), "dims": dims}
    print(name, dims, flush=True)


def scaled(scale, bias):
    def after(model):
        model.set_scale_and_bias(scale, bias)
        return model
    return after


os.makedirs(FOLDER, exist_ok=True)
if SMALL:
    train("small_nan_max", nan_mode="Max", iterations=4)
    train("small_lossguide_classes", kind="classes", grow_policy="Lossguide", max_leaves=12, iterations=3)
    train("small_depthwise_one_hot", cardinalities=(3, 20), one_hot_max_size=255, grow_policy="Depthwise",
          depth=4, iterations=4)
    train("small_ctr_deep", columns=3, cardinalities=(5, 8, 3), one_hot_max_size=3, max_ctr_complexity=4,
          iterations=8, depth=6)
    train("small_ctr_words", cardinalities=(len(WORDS), 12), one_hot_max_size=2, iterations=8)
    train("small_ctr_regression", kind="number", cardinalities=(6, 4), one_hot_max_size=2, iterations=8,
          simple_ctr=["Borders:TargetBorderCount=3", "Buckets:TargetBorderCount=2", "Counter"],
          combinations_ctr=["BinarizedTargetMeanValue", "Counter"])
elif SHAP:
    train("shap_crossed", kind="crossed", columns=2, cardinalities=(6, 5, 4), one_hot_max_size=4, max_ctr_complexity=3,
          iterations=12, depth=5)
    train("shap_lossguide", kind="number", grow_policy="Lossguide", max_leaves=4, iterations=8)
    train("shap_depthwise", kind="number", grow_policy="Depthwise", depth=2, iterations=6, weighted=True)
    train("shap_classes", kind="classes", depth=3, iterations=4)
else:
    train("nan_min", nan_mode="Min")
    train("nan_max", nan_mode="Max")
    train("one_feature", columns=1, depth=3)
    train("depth9", depth=9, iterations=10)
    train("depth13", depth=13, iterations=4)
    train("wide_300", columns=300, iterations=150, depth=6)
    train("wide_700", columns=700, iterations=150, depth=6)
    train("many_borders", columns=3, border_count=2000, iterations=300, depth=6)
    train("lossguide", grow_policy="Lossguide", max_leaves=40, depth=10)
    train("depthwise", grow_policy="Depthwise", depth=7)
    train("depthwise_shallow", kind="number", grow_policy="Depthwise", depth=2)
    train("stumps_classes", kind="classes", grow_policy="Lossguide", max_leaves=2)
    train("weighted", cardinalities=(30, 9), one_hot_max_size=2, weighted=True)
    train("lossguide_classes", kind="classes", grow_policy="Lossguide", max_leaves=20)
    train("depthwise_wide", columns=300, grow_policy="Depthwise", depth=6, iterations=60)
    train("classes", kind="classes", loss_function="MultiClass")
    train("classes_one_vs_all", kind="classes", loss_function="MultiClassOneVsAll")
    train("classes_deep", kind="classes", loss_function="MultiClass", depth=10, iterations=6)
    train("classes_scaled", kind="classes", loss_function="MultiClass", after=scaled(0.75, [0.5, -0.25, 0.0, 1.0]))
    train("classes_scale", kind="classes", loss_function="MultiClass", after=scaled(-3.0, [0.0, 0.0, 0.0, 0.0]))
    train("regression", kind="number", after=scaled(1.0, 0.125))
    train("regression_scale", kind="number", after=scaled(-2.5, 0.0))
    train("targets", kind="many")
    train("one_hot", cardinalities=(3, 20), one_hot_max_size=255)
    train("one_hot_many", cardinalities=(200, 250), one_hot_max_size=255, iterations=150, depth=7)
    train("one_hot_depthwise", cardinalities=(3, 20), one_hot_max_size=255, grow_policy="Depthwise")
    train("ctr_words", cardinalities=(len(WORDS), 40), one_hot_max_size=2)
    train("ctr_deep", columns=3, cardinalities=(5, 8, 30, 3), one_hot_max_size=3, max_ctr_complexity=4, iterations=120, depth=6)
    train("ctr_crossed", kind="crossed", cardinalities=(6, 5, 4), one_hot_max_size=4, max_ctr_complexity=3)
    train("ctr_crossed_lossguide", kind="crossed", cardinalities=(6, 5, 4), one_hot_max_size=4, grow_policy="Lossguide", max_leaves=12)
    train("ctr_classes", kind="classes", cardinalities=(30, 9), one_hot_max_size=2, max_ctr_complexity=3)
    train("ctr_regression", kind="number", cardinalities=(30, 9, 4), one_hot_max_size=2,
          simple_ctr=["Borders:TargetBorderCount=4", "Buckets:TargetBorderCount=3", "Counter"],
          combinations_ctr=["Borders:TargetBorderCount=2", "Buckets:TargetBorderCount=3", "Counter"])
    train("ctr_means", cardinalities=(40, 12), one_hot_max_size=2,
          simple_ctr=["BinarizedTargetMeanValue:TargetBorderCount=1", "Counter"],
          combinations_ctr=["BinarizedTargetMeanValue", "Counter"], max_ctr_complexity=3)
    train("ctr_lossguide", cardinalities=(40, 12), one_hot_max_size=2, grow_policy="Lossguide", max_leaves=30)
    train("ctr_counter_full", cardinalities=(400, 12), one_hot_max_size=2, counter_calc_method="Full",
          simple_ctr=["Counter:Prior=0.3", "Borders:Prior=0.7"], ctr_target_border_count=1)
with open(os.path.join(FOLDER, "manifest.json"), "w") as file:
    json.dump(manifest, file, indent=1)
