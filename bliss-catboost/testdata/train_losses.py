"""Trains tiny CatBoost models of many losses and kinds of classes, and writes them with CatBoost's own probabilities.

Usage: python3 train_losses.py FOLDER [SEED [golden]]     (needs the packages catboost and numpy)

With `golden` it makes the few models that testdata/losses holds.

For each model NAME: NAME.cbm, NAME.json (the JSON export), and in losses.json the loss, the classes as text, and as
hexadecimal digits little-endian rows of f32 and the probabilities of each class for each row (f64), or null where
CatBoost has none.
"""

import json
import os
import sys

import numpy
from catboost import CatBoost, CatBoostClassifier, Pool, sum_models

FOLDER = sys.argv[1]
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
GOLDEN = sys.argv[3:] == ["golden"]
KEPT = {"text", "reversed", "text_digits", "no_names", "cross_entropy", "focal", "three", "one_vs_all", "labels",
        "labels_named", "labels_cross_entropy", "rmse", "uncertainty", "summed", "no_loss"}
JSON_KEPT = {"text", "labels_named", "rmse"}
RANDOM = numpy.random.default_rng(SEED)
X = RANDOM.normal(size=(300, 2)).astype(numpy.float32)
Y = (X[:, 0] > 0).astype(int)
THREE = numpy.digitize(X[:, 0], [-0.5, 0.5])
LABELS = numpy.c_[Y, (X[:, 1] > 0).astype(int)]
THREE_LABELS = numpy.c_[LABELS, (X[:, 0] > X[:, 1]).astype(int)]
ROWS = RANDOM.normal(size=(12 if GOLDEN else 200, 2)).astype(numpy.float32)
NAMES = ["d.a", "d.b"]
manifest = {}


def fit(y, loss, trees=3, depth=1, group=None, **more):
    model = CatBoost(dict(loss_function=loss, iterations=trees, depth=depth, random_seed=SEED, verbose=0, thread_count=1,
                          allow_writing_files=False, **more))
    model.fit(Pool(X, y, feature_names=NAMES, group_id=group))
    return model


def save(name, model, loss, classes, probability=True):
    if GOLDEN and name not in KEPT:
        return
    path = os.path.join(FOLDER, name)
    model.save_model(path + ".cbm")
    if not GOLDEN or name in JSON_KEPT:
        model.save_model(path + ".json", format="json")
    rows = Pool(ROWS, feature_names=NAMES)
    found = None
    if probability:
        found = numpy.asarray(model.predict(rows, prediction_type="Probability", thread_count=1), dtype="<f8")
        found = found.reshape(len(ROWS), -1).tobytes().hex()
    manifest[name] = {"loss": loss.split(":")[0], "classes": classes,
                      "rows": ROWS.astype("<f4").tobytes().hex(), "probability": found}


os.makedirs(FOLDER, exist_ok=True)
save("numbers", fit(Y, "Logloss"), "Logloss", ["0", "1"])
save("text", fit(numpy.where(Y == 1, "bot", "human"), "Logloss"), "Logloss", ["bot", "human"])
save("text_digits", fit(Y.astype(str), "Logloss"), "Logloss", ["0", "1"])
save("reversed", fit(Y, "Logloss", class_names=[1, 0]), "Logloss", ["1", "0"])
save("booleans", fit(Y == 1, "Logloss"), "Logloss", ["false", "true"])
save("fractions", fit(Y.astype(float), "Logloss"), "Logloss", ["0", "1"])
save("other_numbers", fit(Y + 1, "Logloss"), "Logloss", ["1", "2"])
save("no_names", fit(X[:, 0], "Logloss", target_border=0.1), "Logloss", [])
save("cross_entropy", fit(Y * 0.9, "CrossEntropy"), "CrossEntropy", [])
save("focal", fit(Y, "Focal:focal_alpha=0.25;focal_gamma=2"), "Focal", ["0", "1"])
save("classifier", CatBoostClassifier(iterations=3, depth=2, verbose=0, allow_writing_files=False).fit(
    Pool(X, Y, feature_names=NAMES)), "Logloss", ["0", "1"])
save("two", fit(Y, "MultiClass"), "MultiClass", ["0", "1"])
save("three", fit(numpy.array(["bot", "crawler", "human"])[THREE], "MultiClass"), "MultiClass",
     ["bot", "crawler", "human"])
save("three_numbers", fit(THREE, "MultiClass"), "MultiClass", ["0", "1", "2"])
save("one_vs_all", fit(THREE, "MultiClassOneVsAll"), "MultiClassOneVsAll", ["0", "1", "2"])
save("one_vs_all_two", fit(Y, "MultiClassOneVsAll"), "MultiClassOneVsAll", ["0", "1"])
save("labels", fit(LABELS, "MultiLogloss"), "MultiLogloss", ["0", "1"])
save("labels_named", fit(THREE_LABELS, "MultiLogloss", class_names=["fast", "bot", "new"]), "MultiLogloss",
     ["fast", "bot", "new"])
save("labels_cross_entropy", fit(THREE_LABELS * 0.9, "MultiCrossEntropy"), "MultiCrossEntropy", ["0", "1", "2"])
for name, loss in {
    "rmse": "RMSE", "mae": "MAE", "quantile": "Quantile:alpha=0.9", "multi_quantile": "MultiQuantile:alpha=0.1,0.9",
    "log_lin_quantile": "LogLinQuantile:alpha=0.9", "poisson": "Poisson", "tweedie": "Tweedie:variance_power=1.5",
    "huber": "Huber:delta=1", "expectile": "Expectile:alpha=0.9", "lq": "Lq:q=3", "mape": "MAPE",
    "log_cosh": "LogCosh", "uncertainty": "RMSEWithUncertainty",
}.items():
    save(name, fit(Y.astype(float), loss), loss, [], probability=False)
save("multi_rmse", fit(LABELS.astype(float), "MultiRMSE"), "MultiRMSE", [], probability=False)
for name, loss in {"yeti_rank": "YetiRank", "query_rmse": "QueryRMSE", "query_soft_max": "QuerySoftMax",
                   "pair_logit": "PairLogit"}.items():
    save(name, fit(Y, loss, group=numpy.arange(len(X)) // 10), loss, [], probability=False)
save("one_label", fit(Y.reshape(-1, 1), "MultiLogloss", class_names=["bot"]), "MultiLogloss", ["bot"])
save("summed", sum_models([fit(Y, "Logloss"), fit(Y, "Logloss", trees=2)]), "Logloss", ["0", "1"])
no_loss = fit(Y, "Logloss")
no_loss.get_metadata()["params"] = ""
save("no_loss", no_loss, "", ["0", "1"], probability=False)
with open(os.path.join(FOLDER, "losses.json"), "w") as file:
    json.dump(manifest, file, indent=1)
    file.write("\n")
