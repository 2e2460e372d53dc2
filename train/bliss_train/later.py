"""One's own log: fitted on its first part, measured on the last, where labels of the first part know nothing later."""

from . import data, label
from .model import PEOPLE_FOR_OWN_PERCENTILE, Recipe, check_enough, folds_of, raw_of, Shifts, shifted, shifts_of
from .rows import read, with_clients


def measured(part, names, inputs, rules, networks, hosting, share, base, seed, wanted, say=lambda words: None, columns=()):
    """The table of requests in the last `share` of the time, and the raw answers of a model fitted on those before; `columns`
    are in the table beside those that the model reads."""
    name, rows_path, labels_path, disguised_path, group = part
    # Labels need all texts and no inputs, a fit the other way round.
    rows = read(rows_path, [])
    split = rows["time"].iloc[0] + (1 - share) * (rows["time"].iloc[-1] - rows["time"].iloc[0])
    whole = data.load(name, rows_path, labels_path, disguised_path, group, [*names, *columns])
    first = rows[rows["time"] < split].reset_index(drop=True)
    labels, requests = label.label(first, rules, hosting, networks), len(first)
    del rows, first
    before = with_labels(name, group, whole.rows[whole.rows["time"] < split].reset_index(drop=True), labels)
    if whole.disguised is not None:
        before.disguised = whole.disguised[whole.disguised["time"] < split].reset_index(drop=True)
    table = data.together([before])
    recipe = Recipe(names, inputs, seed, base)
    after = data.together([whole])
    after = after[(after["time"] >= split).to_numpy()].reset_index(drop=True)
    people, robots = check_enough(table)
    say(f"fitting on {requests} requests: {people} people, {robots} robots")
    shifts, optional = Shifts(), inputs.told(names, table)
    if base is None or people >= PEOPLE_FOR_OWN_PERCENTILE:
        folds, _ = folds_of(table)
        shifts = shifts_of(table, *recipe.out_of_fold(table, folds, optional), optional, wanted)
    return after, raw_of(shifted(recipe.fit(table), shifts, names, optional), after, names)


def with_labels(name, group, rows, labels):
    """A site of rows and labels in memory."""
    rows = with_clients(rows)
    data.labelled(rows, labels)
    return data.Site(name, group, rows)
