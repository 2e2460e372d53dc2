"""From sites to a model's folder: fit, threshold, fixture, card, report, suggested policy."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas

from . import __version__, data, distribution, evaluate, leak, measure
from .errors import LeakFound, Problem
from .inputs import missing_values
from .label import PERSON
from .model import (PEOPLE_FOR_OWN_PERCENTILE, Recipe, Shifts, check_enough, folds_of, raw, save, shifted, shifts_of, Wanted)

FIXTURE_ROWS = 200


@dataclass
class Fitted:
    """What was made, and what is known of it."""

    model: object
    table: pandas.DataFrame
    names: list
    answers: numpy.ndarray   # out of fold, shift included
    shifts: Shifts
    folds: str
    figures: dict
    poorer: dict | None      # the figures where a site does not have what is optional; None if nothing is
    leaks: pandas.DataFrame
    suspects: dict
    kept_base_threshold: bool


def fit(sites, names, inputs, seed=1, base=None, wanted=Wanted(), allowed=(), say=lambda words: None):
    """Fits on all sites; measures out of fold."""
    table = data.together(sites)
    people, robots = check_enough(table)
    say(f"{people} clients are people by the rules, {robots} are robots")
    folds, what = folds_of(table)
    say(f"looking for inputs that tell the label, left out by {what}")
    leaks = leak.single_aucs(table, names, folds)
    found = leak.suspects(leaks)
    evidence = inputs.evidence(names)
    refused = {name: auc for name, auc in found.items() if name not in evidence and name not in allowed}
    if refused:
        told = ", ".join(f"{name} (AUC {auc:.4f})" for name, auc in refused.items())
        raise LeakFound(
            f"Expected that no input tells the label alone; found {told}, measured on what was left out. If the input holds "
            "the label, or what was made from it, remove it (inputs.toml, exclude); if it is behaviour, allow it by name "
            "with --allow-input."
        )
    dimensions = {name.split(".", 1)[0] for name in names} - {"request"}
    kept = sorted(dimensions - set(missing_values(table, names, inputs.forgotten)))
    if inputs.chance > 0 and kept:
        say(f"warning: no row says what {', '.join(kept)} are without a row (expected DIMENSION.status missing or absent, with one value "
            "of each feature there); they are not forgotten in training, and first requests will be scored worse")
    recipe = Recipe(names, inputs, seed, base)
    say(f"fitting, each time without one {what}, for the threshold and the figures")
    optional = inputs.told(names, table)
    answers, poorer = recipe.out_of_fold(table, folds, optional)
    # With few people of its own, a site's corrected model keeps the base's threshold.
    keeps = base is not None and people < PEOPLE_FOR_OWN_PERCENTILE
    shifts = Shifts() if keeps else shifts_of(table, answers, poorer, optional, wanted)
    say("fitting on everything")
    model = shifted(recipe.fit(table), shifts, names, optional)
    answers = answers + shifts.of(table, optional)
    figures = evaluate.figures(table, answers)
    without = evaluate.figures(table, poorer + shifts.without) if optional else None
    return Fitted(model, table, names, answers, shifts, what, figures, without, leaks, found, keeps)


def fixture(fitted, seed=1, rows=FIXTURE_ROWS):
    """Rows made for a test of the reader, with the right answers.

    Every input is drawn by itself from its values, so no row is anybody's request; one row knows nothing (NaN), and a
    tenth of all values are NaN.
    """
    random = numpy.random.default_rng(seed)
    names = list(fitted.model.feature_names_)
    values = numpy.empty((rows, len(names)), numpy.float32)
    for place, name in enumerate(names):
        told = fitted.table[name].to_numpy(numpy.float32)
        # Sorted first: what is drawn does not depend on the order of rows that are equally old.
        values[:, place] = numpy.sort(told)[random.integers(len(told), size=rows)]
    values[random.random(values.shape) < 0.1] = numpy.nan
    values[0] = numpy.nan
    answers = raw(fitted.model, pandas.DataFrame(values, columns=names))
    for row, answer in zip(values, answers):
        told = {name: None if numpy.isnan(value) else float(value) for name, value in zip(names, row)}
        yield {"inputs": told, "raw": float(answer), "probability": float(measure.probability(answer)),
               "score": int(measure.score(answer))}


def write(fitted, out, facts):
    """Writes the folder; files are complete or absent."""
    from .card import card
    from .report import report

    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        save(fitted.model, out / "model.cbm.part", {"trainer": f"bliss-train {__version__}",
                                                        "distribution": distribution.entry(fitted.model, fitted.table, facts["inputs"].optional)})
        (out / "model.cbm.part").replace(out / "model.cbm")
        put(out / "fixture.jsonl", "".join(json.dumps(row) + "\n" for row in fixture(fitted, facts["seed"])))
        put(out / "inputs.txt", "".join(name + "\n" for name in fitted.model.feature_names_))
        put(out / "policy.toml", policy(fitted))
        put(out / "figures.json", json.dumps(plain(fitted.figures), indent=1, sort_keys=True) + "\n")
        put(out / "card.md", card(fitted, facts))
        put(out / "report.html", report(fitted, facts))
    except OSError as error:
        raise Problem(f"{out}: cannot be written: {error}") from error


def put(path, text):
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def plain(value):
    """NaN as null, numbers of numpy as Python's."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return None if value != value else round(value, 6)
    return value.item() if isinstance(value, numpy.generic) else value


def thresholds(fitted):
    """For shares of people that would be stopped, the highest score below which one may act, and who is below it."""
    known = ~numpy.isnan(fitted.answers)
    clients = measure.by_client(fitted.table[known], fitted.answers[known])
    people = clients[clients["kind"] == PERSON]["score"].to_numpy()
    found = []
    for below in (5, 10, 20, 30, 40, 50):
        stopped = int((people < below).sum())
        robots = clients[~clients["kind"].isin([PERSON, "unknown"])]
        found.append({
            "below": below, "people": stopped, "of": len(people), "upper": measure.upper_bound(stopped, len(people)),
            "robots": float((robots["score"] < below).mean()) if len(robots) else float("nan"),
            "unknown": float((clients[clients["kind"] == "unknown"]["score"] < below).mean()) if (clients["kind"] == "unknown").any() else float("nan"),
        })
    return found


def policy(fitted):
    """A suggestion: shadow first, then act below the threshold at which people are rare."""
    rows = thresholds(fitted)
    lines = [
        "# Suggested by bliss-train; nothing reads this file by itself. Take into bliss.toml what fits.",
        "# Run the model as shadow for a week, look at its scores of people that you know, then make it active.",
        "",
        "#   acting below | people who would be stopped (of, at most) | robots by the rules | clients of unknown kind",
    ]
    for row in rows:
        lines.append(f"#   {row['below']:>12} | {row['people']} of {row['of']}, {evaluate.percent(row['upper'])} | "
                     f"{evaluate.percent(row['robots'])} | {evaluate.percent(row['unknown'])}")
    careful = max((row["below"] for row in rows if row["upper"] <= 0.03 and row["below"] <= measure.PEOPLE_BELOW), default=5)
    hard = max((row["below"] for row in rows if row["people"] == 0 and row["below"] < careful), default=5)
    lines += [
        "", "[[model]]", 'name = "own"', 'version = "1"', 'path = "model.cbm"', 'bot_class = 1', "", "[[route]]", 'name = "default"',
        'shadow = ["own"]         # later: active = "own"', "",
        "# What a front end could do with the score (examples/nginx):",
        f"# score below {hard}: answer 403", f"# score below {careful}: a challenge", f"# score from {careful} on: let through", "",
    ]
    return "\n".join(lines)
