"""Fitting: CatBoost with fixed parameters, one thread count, one seed; the same input gives the same bytes."""

from dataclasses import dataclass
from pathlib import Path

import catboost
import numpy
import pandas

from . import data, measure
from .errors import NothingToLearn, Problem
from .inputs import forget, missing_values, move

PARAMETERS = dict(
    iterations=60, depth=4, learning_rate=0.22, l2_leaf_reg=6.0, loss_function="Logloss", bootstrap_type="Bernoulli",
    subsample=0.8, rsm=0.3, model_shrink_rate=0.0, border_count=128, nan_mode="Min", leaf_estimation_iterations=2, thread_count=2,
    allow_writing_files=False, verbose=False,
)
CORRECTION = dict(iterations=100, depth=4, learning_rate=0.05)
# A model is the mean of so many, which differ by their seed: people's first requests are few, and one seed alone moves the
# threshold that they set by half a unit of log odds.
FITS = 3
FEWEST_PEOPLE, FEWEST_ROBOTS = 5, 5
PEOPLE_FOR_OWN_PERCENTILE = 100
REQUESTS_PER_STAGE = 24
FOLDS = 5
KEPT_ROBOTS = 0.97
PIECE_ROWS = 65_536


class Recipe:
    """How a model is made from a table of labelled rows: the same for the product, each fold and each measure."""

    def __init__(self, names, inputs, seed=1, base=None, **changed):
        self.names, self.inputs, self.seed, self.base, self.changed = names, inputs, seed, base, changed

    def fit(self, table):
        """A classifier; with `base`, the base model and its correction in one."""
        return self.fit_thinned(table.iloc[data.learned(table, REQUESTS_PER_STAGE)])

    def fit_thinned(self, rows):
        """`fit` on labelled rows that are thinned."""
        if rows["robot"].nunique() < 2:
            raise NothingToLearn("a part of the data has only robots or only people")
        # Of every seed alike.
        told = (rows[self.names].to_numpy(numpy.float32), rows["robot"].to_numpy(), data.weigh(rows),
                missing_values(rows, self.names, self.inputs.forgotten) if self.inputs.chance > 0 else {})
        if self.base is not None:
            return self.fit_once(*told, self.seed)
        fits = [self.fit_once(*told, self.seed + 1000 * number) for number in range(FITS)]
        return catboost.sum_models(fits, weights=[1.0 / FITS] * FITS)

    def fit_once(self, values, robots, weights, missing, seed):
        """One model: values (rows by inputs, float32), 1 where a robot's, weights, and what inputs are without a row."""
        if self.inputs.chance > 0:
            random = numpy.random.default_rng(seed)
            lost = forget(values, missing, self.names, self.inputs.chance, random)
            move(lost, values, robots == 1, self.names, self.inputs.neighbours, random)
            values, robots, weights = numpy.concatenate([values, lost]), numpy.tile(robots, 2), numpy.tile(weights, 2)
        # One row that knows nothing, of no weight: every input's file entry says what becomes of NaN, so that models of
        # different logs can be summed and a log that tells less is served.
        values = numpy.concatenate([values, numpy.full((1, values.shape[1]), numpy.nan, numpy.float32)])
        robots, weights = numpy.append(robots, 0.0), numpy.append(weights, 1e-9)
        frame = pandas.DataFrame(values, columns=self.names)
        parameters = {**PARAMETERS, **(CORRECTION if self.base is not None else {}),
                      "monotone_constraints": self.inputs.directions(self.names), **self.changed}
        baseline = None if self.base is None else raw(self.base, frame)
        pool = catboost.Pool(frame, robots.astype(int), weight=weights, baseline=baseline)
        model = catboost.CatBoostClassifier(**parameters, random_seed=seed)
        model.fit(pool)
        if self.base is not None:
            same_classes(self.base, model)
            model = catboost.sum_models([self.base, model], weights=[1.0, 1.0])
        return model

    def out_of_fold(self, table, folds, without=()):
        """Raw answers for each row by a model that saw nothing of the row's fold, a client being in one fold with all of its rows; and
        what the same models answer where a site does not have the inputs `without`: an array each."""
        answers, poorer = numpy.full(len(table), numpy.nan), numpy.full(len(table), numpy.nan)
        for places, model in self.left_out(table, folds):
            answers[places] = raw_of(model, table, self.names, places)
            poorer[places] = raw_of(model, table, self.names, places, without) if without else answers[places]
        return answers, poorer

    def left_out(self, table, folds):
        """For each fold its rows and a model that saw nothing of them; folds without which nothing can be learned are left out."""
        places = data.learned(table, REQUESTS_PER_STAGE)
        rows, outside = table.iloc[places], folds[places]
        for fold in numpy.unique(folds):
            try:
                model = self.fit_thinned(rows[outside != fold])
            except NothingToLearn:
                continue
            yield numpy.flatnonzero(folds == fold), model


def folds_of(table):
    """What is left out together: groups, or where fewer than two have people, fifths of the networks of clients."""
    if table["group"][table["robot"] == 0].nunique() >= 2:
        return table["group"].to_numpy(), "operator"
    from .rows import networks24

    address = table["ip"].astype("category").cat
    networks = pandas.Series(networks24(address.categories))
    folds = (pandas.util.hash_pandas_object(networks, index=False).to_numpy() % FOLDS).astype("U1")
    return folds[address.codes.to_numpy()], "network of the client"


@dataclass(frozen=True)
class Wanted:
    """The shares of people (out of fold) whose mean score, and whose first request's score, may be below 30."""

    all: float = 0.015
    first: float = 0.03


def shift_of(table, answers, wanted=Wanted()):
    """What is added to the log odds so that no more of people than is wanted score below 30."""
    people = (table["robot"] == 0).to_numpy() & ~numpy.isnan(answers)
    if not people.any():
        raise NothingToLearn("no people could be scored out of fold")
    clients, first = table["client"].to_numpy(), (table["seen"] == 1).to_numpy()
    most = measure.shift_for(answers[people], clients[people], wanted.all, first[people], wanted.first)
    # Kinder where it costs nothing: as far as each kind of robots keeps nearly all that are below 30 at the limit.
    kinds = table["kind"].to_numpy()
    robots = [(kinds == kind) & ~numpy.isnan(answers) for kind in sorted(set(kinds[(table["robot"] == 1).to_numpy()]))]
    robots = [(answers[mask], clients[mask]) for mask in robots if mask.any()]
    return measure.kindest(most, robots, KEPT_ROBOTS)


@dataclass(frozen=True)
class Shifts:
    """What is added to the log odds: where a site has the optional input, and where it does not (or there is none)."""

    told: float = 0.0
    without: float = 0.0

    def of(self, table, optional):
        """The shift of each row."""
        missing = table[optional[0]].isna().to_numpy() if optional else numpy.ones(len(table), bool)
        return numpy.where(missing, self.without, self.told)


def shifts_of(table, answers, poorer, optional, wanted=Wanted()):
    """The shifts for the answers as the rows are, and as they would be without the optional input. What is not told is more alike to
    a robot than what is told to be none, so that one shift for both would cost people or robots on one kind of site."""
    without = shift_of(table, poorer, wanted)
    if not optional:
        return Shifts(without, without)
    told = numpy.where(table[optional[0]].isna().to_numpy(), numpy.nan, answers)
    return Shifts(shift_of(table, told, wanted), without)


def shifted(model, shifts, names, optional):
    """The same model with its threshold, which travels in the file: a bias, and where the shifts differ one more tree, whose two leaves
    say what is added without the optional input."""
    add_bias(model, shifts.told)
    if not optional or shifts.told == shifts.without:
        return model
    place = names.index(optional[0])
    # Each input is NaN in some rows, as in every fit, and only the optional one tells the classes apart.
    values = numpy.zeros((4, len(names)), numpy.float32)
    values[[0, 1]] = numpy.nan
    values[:, place] = [numpy.nan, 0.0, numpy.nan, 0.0]
    frame = pandas.DataFrame(values, columns=names)
    tree = catboost.CatBoostClassifier(iterations=1, depth=1, boost_from_average=False, bootstrap_type="No", nan_mode="Min", random_seed=1,
                                       thread_count=1, allow_writing_files=False, verbose=False)
    tree.fit(catboost.Pool(frame, [1, 0, 1, 0]))
    missing = raw(tree, frame) > 0
    if tree.tree_count_ != 1 or missing.tolist() != [True, False, True, False]:
        raise Problem(f"expected CatBoost to split on {optional[0]!r} where nothing else differs; this version does not")
    leaves = tree.get_leaf_values()
    tree.set_leaf_values(numpy.where(leaves > 0, shifts.without - shifts.told, 0.0))
    tree.set_scale_and_bias(1.0, 0.0)
    same_classes(model, tree)
    return catboost.sum_models([model, tree], weights=[1.0, 1.0])


def add_bias(model, shift):
    """The same model with `shift` added to its log odds: it travels in the file."""
    scale, bias = model.get_scale_and_bias()
    model.set_scale_and_bias(scale, float(bias) + float(shift))


def raw_of(model, table, names, places=None, without=()):
    """The raw answers for rows of a table (all, or those at `places`), by pieces: no second copy of all inputs is made. The inputs
    `without` are NaN."""
    rows = len(table) if places is None else len(places)
    answers = numpy.empty(rows)
    for begin in range(0, rows, PIECE_ROWS):
        here = slice(begin, min(begin + PIECE_ROWS, rows))
        piece = table.iloc[here if places is None else places[here]]
        piece = piece[names]
        answers[here] = raw(model, piece.assign(**dict.fromkeys(without, numpy.float32("nan"))) if without else piece)
    return answers


def raw(model, values):
    """The sum of leaves and bias: the log odds of a robot."""
    return numpy.asarray(model.predict(values, prediction_type="RawFormulaVal", thread_count=2), float).reshape(len(values))


def load_base(path, names):
    """A base model, whose inputs the rows must have."""
    if not Path(path).is_file():
        raise Problem(f"{path}: the base model does not exist. Give `--base none` to fit without one.")
    model = catboost.CatBoostClassifier()
    try:
        model.load_model(str(path))
    except catboost.CatBoostError as error:
        raise Problem(f"{path}: expected a CatBoost model (.cbm): {error}") from error
    if model.get_cat_feature_indices():
        raise Problem(f"{path}: expected a model of numbers only; this one has categorical inputs and cannot be corrected.")
    missing = [name for name in model.feature_names_ if name not in names]
    if missing:
        raise Problem(
            f"{path}: the base model reads {', '.join(missing[:8])}, which the rows do not have. Export the log with the "
            "configuration that the base model was made for, or give `--base none`."
        )
    return model


def check_enough(table):
    """Refuses logs without people or robots."""
    counts = table.groupby("robot")["client"].nunique()
    people, robots = int(counts.get(0.0, 0)), int(counts.get(1.0, 0))
    if people < FEWEST_PEOPLE or robots < FEWEST_ROBOTS:
        raise NothingToLearn(
            f"Found {people} clients that are people by the rules and {robots} that are robots; expected at least "
            f"{FEWEST_PEOPLE} and {FEWEST_ROBOTS}. Nothing is fitted: keep the default model. A longer log helps, or "
            "[[people]] rules that name what only people do (an order, a login)."
        )
    return people, robots


def same_classes(base, model):
    """Gives a correction the base's words for the classes: CatBoost sums only models whose words are equal."""
    told, mine = dict(base.get_metadata().items()).get("class_params"), model.get_metadata()
    if told is not None:
        mine["class_params"] = told
    elif "class_params" in list(mine.keys()):
        del mine["class_params"]


# What a reader must know of the answer: a sum of models names no loss and no classes by itself.
METADATA = {
    "class_params": '{"class_label_type":"Integer","class_names":[0,1],"class_to_label":[0,1],"classes_count":0}',
    "params": '{"flat_params":{"loss_function":"Logloss"},"loss_function":{"params":{},"type":"Logloss"}}',
}


def save(model, path, facts):
    """Writes the model; what would differ between two runs (time, GUID, settings of the process) is not in it."""
    metadata = model.get_metadata()
    for key in list(metadata.keys()):
        del metadata[key]
    for key, value in METADATA.items():
        metadata[key] = value
    for key, value in sorted(facts.items()):
        metadata[f"bliss.{key}"] = str(value)
    model.save_model(str(path))
