"""Writes CatBoost's own SHAP values for models that come with rows.

Usage: python3 shap_values.py FOLDER OUT [ROWS]     (needs the packages catboost and numpy)

For each model NAME of FOLDER/manifest.json: OUT/NAME.shap.f64, per row (the first ROWS of them), per output dimension the
value of each column (numbers, then categories) and the expected value. CatBoost refuses models with a scale, so that the scale
is taken away first; the bias stays.
"""

import json
import os
import sys

import numpy
from catboost import CatBoost, Pool

FOLDER, OUT = sys.argv[1], sys.argv[2]
ROWS = int(sys.argv[3]) if len(sys.argv) > 3 else None

with open(os.path.join(FOLDER, "manifest.json")) as file:
    manifest = json.load(file)
for name, case in manifest.items():
    path = os.path.join(FOLDER, name)
    model = CatBoost().load_model(path + ".cbm")
    scale, bias = model.get_scale_and_bias()
    if scale != 1:
        model.set_scale_and_bias(1, bias)
    rows = min(case["rows"], ROWS or case["rows"])
    x = numpy.fromfile(path + ".x.f32", "<f4").reshape(case["rows"], case["floats"])[:rows]
    if case["cats"]:
        with open(path + ".cat.tsv", newline="\n") as file:
            words = [line.rstrip("\n").split("\t") for line in file][:rows]
        data = [list(map(float, a)) + b for a, b in zip(x, words)]
        pool = Pool(data, cat_features=list(range(case["floats"], case["floats"] + case["cats"])))
    else:
        pool = Pool(x)
    shap = model.get_feature_importance(pool, type="ShapValues", thread_count=1)
    numpy.asarray(shap, dtype="<f8").tofile(os.path.join(OUT, name + ".shap.f64"))
