"""RESEARCH: leave one group out, quickly: the first search, with thresholds from the same answers. compare.py is the judge.

search.py FOLDER (rows of `prototype_features.py --extra`, named as export_sites.sh names them)
"""
import sys, time
from pathlib import Path
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import catboost, numpy, pandas
from bliss_train import data, measure, model
from bliss_train import inputs as inputs_of

FIVE = "farmfreshsoftware.com farmwork.app heavymetalpedal.com meatlabel.app saunathinker.com".split()
BASE = """request.no_referrer request.site_referrer request.is_get request.is_asset request.is_data request.path_depth
user_agent.asset_share_h7d user_agent.no_referrer_page_share_h7d user_agent.robots_share_h7d user_agent.error_share_h7d
user_agent.requests_per_ip_h7d user_agent.ip_share_7d user_agent.age_30d user_agent.staleness_7d subnet.asset_share_h1d
subnet.no_referrer_page_share_h1d subnet.error_share_h1d subnet.unique_ips_7d subnet16.unique_ips_7d ip.robots_h1d
ip.asset_share_h12h ip.error_share_session ip_user_agent.referrer_share_session ip_user_agent.asset_share_session
path.popularity_7d path.error_share_h7d""".split()


def load(folder):
    sites = []
    for path in sorted(Path(folder).glob("*.labels.parquet")):
        name = path.name[:-15]
        sites.append(data.load(name, path.with_name(name + ".parquet"), path, path.with_name(name + ".disguised.parquet"),
                               group="wtf" if name in FIVE else name))
    return data.together(sites)


def out_of_fold(table, inputs, groups=None, dropout=None, weigh={}, seed=1, **params):
    raw = numpy.full(len(table), numpy.nan)
    for group in groups or table["group"].unique():
        train = table[(table["group"] != group) & table["robot"].notna()]
        train = data.thinned(train, 16)
        w = data.weigh(train, **weigh)
        x = train[inputs]; y = train["robot"]
        if dropout:
            x, y, w = dropout(x, y, w, numpy.random.default_rng(seed), train)
        m = catboost.CatBoostClassifier(**{**model.PARAMETERS, **params}, random_seed=seed).fit(catboost.Pool(x, y, weight=w))
        test = (table["group"] == group).to_numpy()
        raw[test] = model.raw(m, table.loc[test, inputs])
    return raw


def forget(chance, copies=1, keep=1.0):
    """Copies of the rows in which whole dimensions are forgotten, as after a start without a log."""
    def apply(x, y, w, random, table):
        missing = inputs_of.missing_values(table, list(x.columns), {"user_agent.staleness_*": -99.0})
        values = x.to_numpy(numpy.float32)
        parts = [inputs_of.forget(values, missing, list(x.columns), chance, random) for _ in range(copies)]
        return (pandas.DataFrame(numpy.concatenate([values, *parts]), columns=x.columns),
                numpy.tile(y, copies + 1), numpy.concatenate([w * keep] + [w / copies] * copies))
    return apply


SUMMARY = {}
def many(table, name, inputs, seeds=(1, 2, 3), wanted=0.01, **kw):
    """Means over seeds of: AUC (median, worst) of declared, disguised, scanners; shares below 30; people."""
    out = []
    for seed in seeds:
        raw = out_of_fold(table, inputs, seed=seed, **kw)
        out.append(figures(table, raw, wanted))
    f = pandas.DataFrame(out).mean()
    print(f"{name:34s} " + " ".join(f"{k}={v:.3f}" if 'a_' in k else f"{k}={v*100:.0f}" if not k.startswith('p_') else f"{k}={v*100:.1f}" for k, v in f.items()), flush=True)
    SUMMARY[name] = f
    return f


def figures(table, raw, wanted=0.01):
    people = (table["robot"] == 0).to_numpy()
    shifted = raw.copy()
    for group in table["group"].unique():
        o = people & (table["group"] != group).to_numpy()
        shifted[(table["group"] == group).to_numpy()] += measure.shift_for(raw[o], table["client"][o], wanted)
    c = measure.by_client(table, shifted)
    out = {}
    P = {s: c[(c.site == s) & (c.kind == "person")] for s in c.site.unique()}
    P = {s: p for s, p in P.items() if len(p) >= 10}
    for kind in ("declared", "disguised", "scanner"):
        a = [measure.auc(c[(c.site == s) & (c.kind == kind)].raw, -(-p.raw)) for s, p in P.items() if ((c.site == s) & (c.kind == kind)).sum() >= 5]
        a = [1 - v for v in a]
        out[f"a_{kind[:4]}"], out[f"a_{kind[:4]}_min"] = numpy.median(a), min(a)
        b = [(c[(c.site == s) & (c.kind == kind)].score < 30).mean() for s in c.site.unique() if ((c.site == s) & (c.kind == kind)).sum() >= 5]
        out[f"b_{kind[:4]}"], out[f"b_{kind[:4]}_min"] = numpy.median(b), min(b)
    for s in ("basjes.nl-hackers", "heavymetalpedal.com", "saunathinker.com"):
        out["hp_" + s[:5]] = (c[c.site == s].score < 30).mean()
    ppl = c[c.kind == "person"]
    rob = c[c.kind.isin(["declared", "disguised", "scanner", "honeypot"])]
    out["a_first"] = measure.auc(rob["first"].dropna(), ppl["first"])
    semi = ppl[ppl.site == "semicomplete.com"]
    rest = ppl[ppl.site != "semicomplete.com"]
    out["p_semi"], out["p_semi1"] = (semi.score < 30).mean(), (semi["first"] < 30).mean()
    out["p_rest"], out["p_rest1"] = (rest.score < 30).mean(), (rest["first"] < 30).mean()
    return out


if __name__ == "__main__":
    t0 = time.time()
    table = load(sys.argv[1])
    print(table.groupby(["group", "kind"])["client"].nunique().to_dict())
    many(table, "base", BASE)
    C = BASE + ["request.claims_browser"]
    many(table, "+claims", C)
    many(table, "+claims depth4", C, depth=4)
    many(table, "+claims depth4 lr.05", C, depth=4, learning_rate=0.05)
    many(table, "+claims l2 30", C, l2_leaf_reg=30)
    many(table, "+claims rsm .3", C, rsm=0.3)
    many(table, "+claims forget .3", C, dropout=forget(0.3))
    many(table, "+claims forget .5", C, dropout=forget(0.5))
    many(table, "+claims forget .3 rsm .3", C, dropout=forget(0.3), rsm=.3)
    many(table, "+claims power 1", C, weigh=dict(power=1.0))
    many(table, "+claims power 0", C, weigh=dict(power=0.0))
    print(time.time() - t0)
