"""Trains the demo model: train_demo_model.py ROWS.csv FOLDER

ROWS.csv is what `blissctl features` wrote: for each request exactly the vector that the library would have read at
that moment. A request is labelled a bot if PyPI's crawler-user-agents knows its user agent; the user agent's text is no
input. The first 70 % of the time span trains, the rest tests. FOLDER gets demo.cbm and its card, README.md.
"""

import re
import sys
from pathlib import Path

import catboost
import crawleruseragents
import pandas

TRAINING_SHARE = 0.7
PARAMETERS = dict(
    iterations=120, depth=4, learning_rate=0.08, l2_leaf_reg=10, rsm=0.5, subsample=0.7, bootstrap_type="Bernoulli",
    loss_function="Logloss", random_seed=1, thread_count=1, allow_writing_files=False, verbose=False,
)


def auc(labels, scores):
    """The chance that a bot scores higher than another client; equal scores count half."""
    ranks = pandas.Series(scores).rank().to_numpy()
    bots = labels.sum()
    others = len(labels) - bots
    return (ranks[labels == 1].sum() - bots * (bots + 1) / 2) / (bots * others)


def unescape(cell):
    """The user agent as the client sent it: docs/access-log.md, Training rows."""
    sent = re.sub(rb"\\x([0-9A-F]{2})", lambda byte: bytes([int(byte[1], 16)]), cell.encode())
    return sent.decode("utf-8", "replace")


def main():
    rows_path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    rows = pandas.read_csv(rows_path, keep_default_na=False)
    inputs = [c for c in rows.columns if "." in c and not c.endswith(".status") and not c.startswith("request.")]
    agents = rows["user_agent"].fillna("").map(unescape)
    known = {agent: int(crawleruseragents.is_crawler(agent)) for agent in agents.unique()}
    labels = agents.map(known).to_numpy()
    time = pandas.to_datetime(rows["time"].astype(float), unit="s", utc=True)
    split = time.min() + (time.max() - time.min()) * TRAINING_SHARE
    train, test = (time < split).to_numpy(), (time >= split).to_numpy()
    values = rows[inputs].astype("float32")

    model = catboost.CatBoostClassifier(**PARAMETERS)
    model.fit(values[train], labels[train])
    # Feature places that no tree tests are not part of the saved file's splits, and cost the reader nothing.
    model.save_model(str(folder / "demo.cbm"))

    def measured(rows):
        return auc(labels[rows], model.predict_proba(values[rows])[:, 1])

    # What a client never seen in training gets: neither its address nor its user agent.
    known_clients = set(rows["ip"][train]), set(agents[train])
    unseen = test & ~rows["ip"].isin(known_clients[0]).to_numpy() & ~agents.isin(known_clients[1]).to_numpy()
    importance = sorted(zip(model.get_feature_importance(), inputs), reverse=True)[:12]
    card = f"""# The demo model

`demo.cbm` tells requests of crawlers from the rest by the behaviour of address, network and user agent in the last
minute, five minutes and hour; the user agent's text is no input. It is there so that the demo scores with a real model.
It was trained on one small site's traffic of two days in 2015: train your own for your traffic. It must not block anybody.

| | |
|---|---|
| log | {time.min():%Y-%m-%d %H:%M} to {time.max():%Y-%m-%d %H:%M} UTC, {len(rows):,} requests |
| label | bot: the user agent is in PyPI's `crawler-user-agents` {version('crawler-user-agents')}; {labels.sum():,} requests are |
| inputs | {len(inputs)} features; the model tests {sum(1 for i in model.get_feature_importance() if i > 0)} of them |
| trained on | the first 70 % of the time span, before {split:%Y-%m-%d %H:%M} UTC: {train.sum():,} requests, {labels[train].sum():,} of bots |
| tested on | the rest: {test.sum():,} requests, {labels[test].sum():,} of bots |
| AUC on the first part | {measured(train):.4f} |
| AUC on the later part | {measured(test):.4f} |
| AUC there, requests whose address and user agent both are new | {measured(unseen) if 0 < labels[unseen].sum() < unseen.sum() else float('nan'):.4f} ({unseen.sum():,} requests, {labels[unseen].sum():,} of bots) |
| trainer | CatBoost {catboost.__version__}, {PARAMETERS['iterations']} trees of depth {PARAMETERS['depth']} |
| command | `make model LOG=access.log` |

The twelve features that matter most, with CatBoost's importance in percent:

| feature | importance |
|---|---|
""" + "".join(f"| `{name}` | {weight:.1f} |\n" for weight, name in importance)
    (folder / "README.md").write_text(card)
    print(card)


def version(package):
    from importlib.metadata import version
    return version(package)


if __name__ == "__main__":
    main()
