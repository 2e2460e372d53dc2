"""RESEARCH: leave one group out, quickly, for one set of inputs and parameters after the other."""
import sys, time
from pathlib import Path
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import numpy, pandas
from bliss_train import data, measure, model

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
        train = data.thinned(train)
        w = data.weigh(train, **weigh)
        x = train[inputs]; y = train["robot"]
        if dropout:
            x, y, w = dropout(x, y, w, numpy.random.default_rng(seed))
        m = model.fit(x, y, w, seed=seed, **params)
        test = (table["group"] == group).to_numpy()
        raw[test] = model.raw(m, table.loc[test, inputs])
    return raw


def report(table, raw, name, wanted=0.01):
    people = (table["robot"] == 0).to_numpy()
    cl = {}
    # the shift that each site gets comes from the people of the other groups
    shifted = raw.copy()
    for group in table["group"].unique():
        o = people & (table["group"] != group).to_numpy()
        shifted[(table["group"] == group).to_numpy()] += measure.shift_for(raw[o], table["client"][o], wanted)
    c = measure.by_client(table, shifted)
    big = [s for s in c.site.unique() if ((c.site == s) & (c.kind == "person")).sum() >= 10]
    def aucs(kind):
        out = []
        for s in big:
            p, r = c[(c.site == s) & (c.kind == "person")], c[(c.site == s) & (c.kind == kind)]
            if len(r) >= 5: out.append(measure.auc(r.score, p.score))
        return numpy.array(out)
    def below(kind):
        return numpy.array([(c[(c.site == s) & (c.kind == kind)].score < 30).mean() for s in c.site.unique() if ((c.site == s) & (c.kind == kind)).sum() >= 5])
    ppl = c[c.kind == "person"]
    by = ppl.groupby("site").apply(lambda d: (round((d.score < 30).mean()*100,1), round((d["first"] < 30).mean()*100,1)))
    line = " ".join(f"{k[:4]} {numpy.median(a):.3f}/{a.min():.3f}" for k in ("declared", "disguised", "scanner") for a in [aucs(k)])
    b = " ".join(f"{k[:4]} {numpy.median(x)*100:.0f}/{x.min()*100:.0f}" for k in ("declared", "disguised", "scanner") for x in [below(k)])
    hp = {s[:5]: int((c[c.site == s].score < 30).mean()*100) for s in ("basjes.nl-hackers", "heavymetalpedal.com", "saunathinker.com")}
    firsts = measure.auc(c[c.kind.isin(["declared","disguised","scanner","honeypot"])]["first"].dropna(), ppl["first"])
    print(f"{name:28s} AUC {line} first {firsts:.3f} | <30 {b} HP {hp} | people {(ppl.score<30).mean()*100:.1f}/{(ppl['first']<30).mean()*100:.1f} " + " ".join(f"{s[:4]}{v}" for s, v in by.items() if s in big), flush=True)
    return c

if __name__ == "__main__":
    t0 = time.time()
    table = load(sys.argv[1])
    print(table.groupby(["group", "kind"])["client"].nunique().to_dict())
    for seed in (1, 2):
        report(table, out_of_fold(table, BASE, seed=seed), f"base seed {seed}")
    report(table, out_of_fold(table, BASE + ["request.claims_browser"]), "+claims")
    report(table, out_of_fold(table, BASE + ["ip.post_share_session"]), "+post")
    report(table, out_of_fold(table, BASE + ["request.claims_browser","ip.post_share_session","request.query_length"]), "+claims,post,qlen")
    print(time.time() - t0)
