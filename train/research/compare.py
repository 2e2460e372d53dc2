"""RESEARCH: sets of inputs and parameters, compared twice, as means over seeds.

compare.py FOLDER (rows of `prototype_features.py --extra`, named as export_sites.sh names them):

group  the acceptance test: model and threshold without the operator. All scanners but six are one operator's, so its scanners
       are found by a model that saw none.
site   without the site and without every /24 that it shares with others; kinder (one operator's sites are alike), but scanners
       are in training, as in the default model. One threshold for all.
"""
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
import numpy, pandas
from bliss_train import evaluate, measure, model
from bliss_train.inputs import Inputs
from bliss_train.model import Recipe, Wanted, shift_of
from bliss_train.rows import networks24
from search import BASE, load


def told(table, answers):
    clients = measure.by_client(table, answers)
    every = evaluate.figures(table, answers)["all"]
    out = {}
    for kind in evaluate.KINDS:
        for key, short in (("auc_median", ""), ("auc_worst", "_worst"), ("below_30_median", "_below"), ("below_30_worst", "_below_worst")):
            out[kind[:4] + short] = every[kind][key]
    out["first"] = every["auc_first"]
    for site in ("basjes.nl-hackers", "heavymetalpedal.com", "saunathinker.com"):
        out[site[:5]] = (clients["score"][clients["site"] == site] < 30).mean()
    for site in ("semicomplete.com", "secrepo.com"):
        people = clients[(clients["site"] == site) & (clients["kind"] == "person")]
        out["people_" + site[:4]], out["first_" + site[:4]] = (people["score"] < 30).mean(), (people["first"] < 30).mean()
    return out


def by_group(table, recipe, wanted):
    return evaluate.leave_one_group_out(table, recipe, wanted)[0]


def by_site(table, recipe, wanted):
    network, site = pandas.Series(networks24(table["ip"])), table["site"].to_numpy()
    answers = numpy.full(len(table), numpy.nan)
    for name in table["site"].unique():
        inside = site == name
        rest = ~inside & ~network.isin(set(network[inside])).to_numpy()
        answers[inside] = model.raw(recipe.fit(table[rest]), table.loc[inside, recipe.names])
    return answers + shift_of(table, answers, wanted)


def compare(table, how, name, names, inputs, seeds=(1, 2, 3), wanted=Wanted(), **changed):
    found = pandas.DataFrame([told(table, how(table, Recipe(names, inputs, seed, **changed), wanted)) for seed in seeds]).mean()
    print(f"{name:24s}", " ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    table, inputs, plain = load(sys.argv[1]), Inputs(), Inputs()
    plain.chance, plain.monotone = 0.0, {}
    chosen = [n for n in BASE if n in inputs.among(table.columns)] + [
        "request.claims_browser", "ip.post_share_session", "path.no_referrer_share_h7d", "path.site_referrer_share_h7d"]
    chosen = [n for n in chosen if n != "request.path_depth"]
    for how in (by_group, by_site):
        print(how.__name__)
        compare(table, how, "26 of DETECTION", BASE, plain, wanted=Wanted(0.01, 0.49), depth=6, rsm=1.0)
        compare(table, how, "the package's", chosen, inputs)
        for more in ("path.claims_browser_share_h7d", "ip.user_agents_7d", "user_agent.staleness_7d", "path.popularity_7d",
                     "ip.no_referrer_page_share_h12h", "request.query_length"):
            compare(table, how, "+ " + more, chosen + [more], inputs)
