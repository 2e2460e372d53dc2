"""A newer model against the one that is active, on requests later than those that it was fitted on."""

import numpy

from . import evaluate, measure
from .label import PERSON, UNKNOWN

# More of people below 30 than before, or a smaller AUC, by more than this is worse.
PEOPLE_TOLERANCE = 0.005
AUC_TOLERANCE = 0.01


def compare(table, active, newer):
    """Figures of two models' raw answers for the same requests."""
    scores = [measure.score(active), measure.score(newer)]
    below = [score < measure.PEOPLE_BELOW for score in scores]
    told = {
        "requests": len(table), "same_side": float((below[0] == below[1]).mean()),
        "mean_difference": float((scores[1] - scores[0]).mean()),
        "moved_by_20": float((numpy.abs(scores[1] - scores[0]) >= 20).mean()),
    }
    for name, answers in (("active", active), ("newer", newer)):
        clients = measure.by_client(table, answers)
        people = clients[clients["kind"] == PERSON]["score"]
        robots = clients[~clients["kind"].isin([PERSON, UNKNOWN])]["score"]
        kinds = {kind: {"clients": len(part), "below_30": float((part["score"] < measure.PEOPLE_BELOW).mean())}
                 for kind, part in clients.groupby("kind")}
        told[name] = {"people": len(people), "people_below_30": float((people < measure.PEOPLE_BELOW).mean()) if len(people) else float("nan"),
                      "auc": measure.auc(robots, people), "kinds": kinds}
    return told


def worse(told):
    """Why the newer model is worse; empty if it is not. What cannot be measured is no reason."""
    active, newer = told["active"], told["newer"]
    reasons = []
    if newer["people_below_30"] > active["people_below_30"] + PEOPLE_TOLERANCE:
        reasons.append(f"{evaluate.percent(newer['people_below_30'])} of {newer['people']} people score below 30, and "
                       f"{evaluate.percent(active['people_below_30'])} with the active model")
    if newer["auc"] < active["auc"] - AUC_TOLERANCE:
        reasons.append(f"its AUC of robots against people is {evaluate.number(newer['auc'])}, and {evaluate.number(active['auc'])} "
                       "with the active model")
    return reasons


def as_text(told, later):
    active, newer = told["active"], told["newer"]
    lines = [f"The last {100 * later:.0f} % of the time ({told['requests']} requests), of which the newer model knew nothing:", "",
             "| | active | newer |", "|---|---|---|",
             f"| AUC, robots against people | {evaluate.number(active['auc'])} | {evaluate.number(newer['auc'])} |"]
    for kind in sorted(active["kinds"]):
        one, other = active["kinds"][kind], newer["kinds"][kind]
        lines.append(f"| {kind} below 30, of {one['clients']} | {evaluate.percent(one['below_30'])} | {evaluate.percent(other['below_30'])} |")
    lines += ["", f"On the same side of 30: {evaluate.percent(told['same_side'])} of requests. Scores change by {told['mean_difference']:+.1f} "
                  f"on average, {evaluate.percent(told['moved_by_20'])} of them by 20 or more."]
    return "\n".join(lines)
