"""Figures: by clients, against people. A client counts by its mean score."""

import numpy

PEOPLE_BELOW = 30


def probability(raw):
    return 1.0 / (1.0 + numpy.exp(-numpy.asarray(raw, float)))


def score(raw):
    """The product's score of a raw answer: 1 is a robot, 99 a person (bliss-core/src/score.rs)."""
    return 1 + numpy.floor(98.0 * (1.0 - probability(raw)) + 0.5)


def auc(robots, people):
    """The chance that a robot's score is lower than a person's; equal ones count half. NaN without either."""
    robots, people = numpy.asarray(robots, float), numpy.asarray(people, float)
    if len(robots) == 0 or len(people) == 0:
        return float("nan")
    order = numpy.sort(people)
    above = len(people) - numpy.searchsorted(order, robots, side="right")
    equal = len(people) - above - numpy.searchsorted(order, robots, side="left")
    return float((above + 0.5 * equal).mean() / len(people))


def upper_bound(count, total, confidence=0.95):
    """One-sided upper bound of a share (Clopper and Pearson), where `count` of `total` were found."""
    from scipy.stats import beta

    if total == 0:
        return float("nan")
    return 1.0 if count >= total else float(beta.ppf(confidence, count + 1, total - count))


def shift_for(raw, clients, wanted=0.01, first=None, first_wanted=None, below=PEOPLE_BELOW):
    """What to add to the log odds so that `wanted` of the clients have a mean score below `below`.

    Found by halving: the share falls as the shift falls. With `first` (which rows are first requests) their share below
    is held to `first_wanted` too.
    """
    raw = numpy.asarray(raw, float)
    _, number = numpy.unique(clients, return_inverse=True)
    size = numpy.bincount(number)

    def good(shift):
        values = score(raw + shift)
        means = numpy.bincount(number, values) / size
        if (means < below).mean() > wanted:
            return False
        return first is None or not first.any() or (values[first] < below).mean() <= first_wanted

    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def kindest(most, robots, kept, below=PEOPLE_BELOW):
    """The smallest shift up to `most` with which each group of `robots` (raw answers, clients) keeps the share `kept` of
    those clients that have a mean score below `below` at `most`."""
    groups = []
    for raw, clients in robots:
        _, number = numpy.unique(clients, return_inverse=True)
        groups.append((numpy.asarray(raw, float), number, numpy.bincount(number)))

    def found(shift):
        return numpy.array([(numpy.bincount(number, score(raw + shift)) / size < below).sum() for raw, number, size in groups])

    needed = kept * found(most)
    low, high = most - 20.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if (found(middle) >= needed).all() else (middle, high)
    return high


def by_client(table, raw):
    """Mean score, kind, site and number of requests of each client, in the order of their numbers."""
    frame = table[["client", "site", "group", "kind", "seen"]].copy()
    frame["score"] = score(raw)
    frame["raw"] = numpy.asarray(raw, float)
    grouped = frame.groupby("client", sort=True)
    clients = grouped.agg(site=("site", "first"), group=("group", "first"), kind=("kind", "first"),
                          score=("score", "mean"), raw=("raw", "mean"), requests=("seen", "size"))
    first = frame[frame["seen"] == 1].set_index("client")["score"]
    clients = clients.astype({name: str for name in ("site", "group", "kind")})
    clients["first"] = first.reindex(clients.index)
    return clients
