"""Fitting: CatBoost with fixed parameters, one thread count, one seed; the same input gives the same bytes."""

import catboost
import numpy

PARAMETERS = dict(
    iterations=200, depth=6, learning_rate=0.08, l2_leaf_reg=6.0, loss_function="Logloss", bootstrap_type="Bernoulli",
    subsample=0.8, rsm=1.0, border_count=128, nan_mode="Min", leaf_estimation_iterations=2, thread_count=2,
    allow_writing_files=False, verbose=False,
)


def fit(values, robots, weights, seed=1, baseline=None, **changed):
    """A classifier for `robots` (1 or 0) from `values`, a data frame of float32 columns."""
    pool = catboost.Pool(values, robots, weight=weights, baseline=baseline)
    model = catboost.CatBoostClassifier(**{**PARAMETERS, **changed}, random_seed=seed)
    model.fit(pool)
    return model


def raw(model, values):
    return numpy.asarray(model.predict(values, prediction_type="RawFormulaVal", thread_count=2), float)
