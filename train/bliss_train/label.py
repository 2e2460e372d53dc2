"""Labels clients by rule, and makes the disguised copy of declared crawlers."""

import ipaddress
import re
from urllib.parse import unquote

import crawleruseragents
import numpy
import pandas

from .errors import Problem
from .rows import clients_of, networks24, text, with_clients

DECLARED, SCANNER, HONEYPOT, LISTED, PERSON, UNKNOWN = "declared", "scanner", "honeypot", "robot", "person", "unknown"
ROBOTS = (DECLARED, SCANNER, HONEYPOT, LISTED)
COLUMNS = ["ip", "user_agent", "label", "weight", "evidence", "conflicts", "requests"]


def label(rows, rules, hosting=None, not_people=(), honeypot=None):
    """One row per client: label, weight, the evidence that gave it, and the rules that said otherwise.

    `hosting` answers `is_hosting(address)`; `not_people` are networks whose clients are never people; `honeypot` is why
    every line of this log is automated, or None.
    """
    rows = with_clients(rows)
    clients = clients_of(rows)
    clients["requests"] = numpy.bincount(rows["client"])
    agents = {agent: text(agent) for agent in clients["user_agent"].unique()}
    found = {}  # rule -> (clients that it holds for, label, weight, evidence)

    declared = {agent: crawleruseragents.is_crawler(plain) for agent, plain in agents.items()}
    found["declared"] = (
        clients["user_agent"].map(declared).to_numpy(bool), DECLARED, rules.declared["weight"], "its agent is a known robot's"
    )
    answered = ((rows["response_status"] < 400) & (rows["own_answer"] == 0)).to_numpy()
    asset = (rows["request.is_asset"] == 1).to_numpy()
    per_client = rows["client"].to_numpy()

    def count(mask):
        return numpy.bincount(per_client[mask], minlength=len(clients))

    assets = count(answered & asset)
    found["scanner"] = (scanners(rows, clients, rules, assets), SCANNER, rules.scanner["weight"],
                        "failed requests for what scanners ask for")
    found["login_flood"] = (floods(rows, clients, rules), SCANNER, rules.login_flood["weight"], "a flood of logins")

    # Training and serving have one answer to what claims to be a browser.
    claims = (rows["request.claims_browser"] == 1).groupby(per_client).max().to_numpy(bool)
    browser = claims & ~clients["user_agent"].map({agent: rules.is_no_browser(plain) for agent, plain in agents.items()}).to_numpy(bool)
    pages = count(answered & ~asset)
    site_assets = count(answered & asset & (rows["request.site_referrer"] == 1).to_numpy())
    # Logs of before there were passes do not have it.
    passed = rows["request.challenge_passed"] == 1 if "request.challenge_passed" in rows else numpy.zeros(len(rows), bool)
    found["passed"] = (count(numpy.asarray(passed)) > 0, PERSON, rules.passed["weight"], "it passed a challenge")
    found["browsing"] = (
        browser & (pages >= rules.browsing["pages"]) & (assets >= rules.browsing["assets"])
        & (site_assets >= rules.browsing["site_share"] * assets),
        PERSON, rules.browsing["weight"], "a browser that loads pages and their assets",
    )
    found["search"] = (browser & from_search(rows, clients, rules, asset, answered), PERSON, rules.search["weight"],
                       "a browser that comes from a search engine")

    own_robots = [(f"[[robots]] {entry['name']}", listed(entry, clients, agents), LISTED, entry.get("weight", 1.0))
                  for entry in rules.robots]
    own_people = [(f"[[people]] {entry['name']}", converted(entry, rows, clients), PERSON, entry.get("weight", 1.0))
                  for entry in rules.people]
    order = []
    if rules.decisions is not None:
        decided = rules.decisions.labels(clients, agents)
        order += [(f"[[exceptions]] {name}", decided == name, what, 1.0, f"{done} by hand")
                  for name, what, done in (("robot", LISTED, "denied"), ("person", PERSON, "allowed"))]
    order += [(name, *rest, name) for name, *rest in own_robots]
    order += [(name, *found[name]) for name in ("declared", "scanner", "login_flood")]
    order += [(name, *rest, name) for name, *rest in own_people]
    order += [(name, *found[name]) for name in ("passed", "browsing", "search")]
    if honeypot is not None:
        order.append(("honeypot", numpy.ones(len(clients), bool), HONEYPOT, 1.0, f"every line is automated: {honeypot}"))
        order.sort(key=lambda rule: 0 if rule[0].startswith("[[exceptions]]") or rule[2] in (DECLARED, LISTED) else 1 if rule[2] == SCANNER else
                   2 if rule[2] == HONEYPOT else 3)

    # An address that no person has: people's labels are refused there.
    refused = {}
    networks = [ipaddress.ip_network(network, strict=False) for network in not_people]
    for address in clients["ip"].unique():
        if hosting is not None and hosting.is_hosting(address):
            refused[address] = "hosting network"
        elif networks and contains(networks, address):
            refused[address] = "in --not-people"

    labels = numpy.full(len(clients), UNKNOWN, dtype=object)
    weights = numpy.zeros(len(clients))
    evidence = numpy.full(len(clients), "", dtype=object)
    conflicts = [[] for _ in range(len(clients))]
    addresses = clients["ip"].to_numpy()
    for name, holds, what, weight, words in order:
        for client in numpy.flatnonzero(holds):
            if what == PERSON and addresses[client] in refused and not name.startswith("[["):
                conflicts[client].append(f"{name}, but {refused[addresses[client]]}")
            elif labels[client] == UNKNOWN:
                labels[client], weights[client], evidence[client] = what, weight, words
            elif (labels[client] == PERSON) != (what == PERSON):
                conflicts[client].append(name)
    clients["label"], clients["weight"], clients["evidence"] = labels, weights, evidence
    clients["conflicts"] = ["; ".join(told) for told in conflicts]
    return clients.reset_index(drop=True)[COLUMNS]


def by_actors(rows, path):
    """Labels of a traffic lab's log, whose clients are known: `path` has the columns ip, user_agent (or `*`), actor and kind."""
    try:
        actors = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: expected a CSV file of actors, but it cannot be read: {error}") from error
    missing = [name for name in ("ip", "user_agent", "actor", "kind") if name not in actors]
    if missing:
        raise Problem(f"{path}: expected the columns ip, user_agent, actor and kind; {', '.join(missing)} is missing")
    known = {(actor.ip, actor.user_agent): actor for actor in actors.itertuples()}
    rows = with_clients(rows)
    clients = clients_of(rows).reset_index(drop=True)
    clients["requests"] = numpy.bincount(rows["client"])
    found = [known.get((c.ip, text(c.user_agent))) or known.get((c.ip, "*")) for c in clients.itertuples()]
    names = {"person": PERSON, "declared": DECLARED, "scanner": SCANNER, "stuffing": SCANNER, "load": SCANNER}
    clients["label"] = [UNKNOWN if actor is None else names.get(actor.kind, LISTED) for actor in found]
    clients["weight"] = [float(actor is not None) for actor in found]
    clients["evidence"] = ["" if actor is None else f"lab: {actor.actor}" for actor in found]
    clients["conflicts"] = ""
    return clients[COLUMNS]


def contains(networks, address):
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def probes(rows, rules):
    """Which requests ask for what only scanners ask for."""
    paths, targets = rules.scanner["paths_pattern"], rules.scanner["targets_pattern"]

    def is_probe(path, query):
        plain, asked = text(path), text(query)
        whole = plain + "?" + asked if asked else plain
        return bool(paths.search(plain) or targets.search(whole) or targets.search(unquote(whole)))

    method = rows["method"].isin([*rules.scanner["methods"], *([""] if rules.scanner["no_http"] else [])]).to_numpy()
    # Each pair of path and query is asked once.
    path, query = (rows[name].astype("category").cat for name in ("path", "query"))
    pairs = path.codes.to_numpy(numpy.int64) * len(query.categories) + query.codes.to_numpy()
    number, found = pandas.factorize(pairs)
    told = [is_probe(path.categories[pair // len(query.categories)], query.categories[pair % len(query.categories)]) for pair in found]
    return method | numpy.array(told, bool)[number]


def scanners(rows, clients, rules, assets):
    """Clients of addresses that probe, except those that load assets."""
    # What our own decision answered is no failure of the client's: a blocked person would become a scanner.
    failed = ((rows["response_status"] >= 400) & (rows["own_answer"] == 0)).to_numpy()
    probe = probes(rows, rules)
    sums = pandas.DataFrame({"ip": rows["ip"], "all": 1, "probes": probe, "failed_probes": probe & failed, "errors": failed})
    sums = sums.groupby("ip", observed=True).sum()
    rule = rules.scanner
    scanning = (sums["failed_probes"] >= rule["failed"]) & (
        (sums["probes"] >= rule["share"] * sums["all"]) | (sums["errors"] >= rule["error_share"] * sums["all"])
    )
    return clients["ip"].map(scanning).to_numpy(bool) & (assets < rule["assets"])


def floods(rows, clients, rules):
    """Clients of addresses that mostly try logins."""
    rule = rules.login_flood
    told = {path: bool(rule["paths_pattern"].search(text(path))) for path in rows["path"][rows["method"] == "POST"].unique()}
    logins = (rows["method"] == "POST") & rows["path"].map(lambda path: told.get(path, False)).astype(bool)
    sums = pandas.DataFrame({"ip": rows["ip"], "all": 1, "logins": logins}).groupby("ip", observed=True).sum()
    flooding = (sums["logins"] >= rule["posts"]) & (sums["logins"] >= rule["share"] * sums["all"])
    return clients["ip"].map(flooding).to_numpy(bool)


def from_search(rows, clients, rules, asset, answered):
    """Clients whose first page was answered and comes from a search engine."""
    host = re.compile(r"^https?://([^/:?#]+)")
    pattern = rules.search["hosts_pattern"]

    def is_search(referrer):
        match = host.match(text(referrer))
        return bool(match and pattern.search(match[1].lower()))

    told = {referrer: is_search(referrer) for referrer in rows["referrer"].unique()}
    search = rows["referrer"].map(told).to_numpy(bool)
    pages = pandas.DataFrame({"client": rows["client"], "good": search & answered, "search": search})[~asset]
    first = pages.groupby("client")["good"].first().reindex(clients.index, fill_value=False).to_numpy(bool)
    many = pages.groupby("client")["search"].sum().reindex(clients.index, fill_value=0).to_numpy()
    errors = pandas.Series(((rows["response_status"] >= 400) & (rows["own_answer"] == 0)).to_numpy()).groupby(rows["ip"].array, observed=True).mean()
    good = clients["ip"].map(errors).to_numpy() <= rules.search["error_share"]
    return first & (many <= rules.search["search_pages"]) & good


def listed(entry, clients, agents):
    """Clients that an operator's [[robots]] names."""
    holds = numpy.ones(len(clients), bool)
    if "agent" in entry:
        pattern = re.compile(entry["agent"])
        holds &= clients["user_agent"].map({a: bool(pattern.search(plain)) for a, plain in agents.items()}).to_numpy(bool)
    if "addresses" in entry:
        networks = [ipaddress.ip_network(network, strict=False) for network in entry["addresses"]]
        inside = {address: contains(networks, address) for address in clients["ip"].unique()}
        holds &= clients["ip"].map(inside).to_numpy(bool)
    return holds


def converted(entry, rows, clients):
    """Clients that an operator's [[people]] names: one such request is enough."""
    holds = numpy.ones(len(rows), bool)
    if "method" in entry:
        holds &= (rows["method"] == entry["method"]).to_numpy()
    if "path" in entry:
        pattern = re.compile(entry["path"])
        told = {path: bool(pattern.search(text(path))) for path in rows["path"].unique()}
        holds &= rows["path"].map(told).to_numpy(bool)
    if "status" in entry:
        holds &= rows["response_status"].isin(numpy.atleast_1d(entry["status"])).to_numpy()
    return numpy.bincount(rows["client"].to_numpy()[holds], minlength=len(clients)) > 0


def rewrite(rows, labels, rules, seed=1):
    """Line, new agent and new referrer (text cells) of declared crawlers' requests; an empty agent drops the line, an empty
    referrer leaves it as it is.

    The agents are those of the site's own people, or the rules' list where it has none; one is drawn for each pair of
    agent and /24, so that a crawler that comes from many networks lies differently in each. A share of the pairs names the page
    before as its referrer, as if it had followed links.
    """
    people = labels[labels["label"] == PERSON]
    agents = people["user_agent"].to_numpy() if len(people) else numpy.array(rules.disguise["agents"], dtype=object)
    if len(agents) == 0:
        raise Problem(f"{rules.source}: [disguise] agents is empty, and the log has no people whose agents could be taken")
    crawlers = labels.loc[labels["label"] == DECLARED, ["ip", "user_agent", "label"]]
    # Texts in full only of what may be a crawler's.
    few = rows.loc[rows["user_agent"].isin(crawlers["user_agent"]), ["line", "ip", "user_agent", "path", "request.is_asset"]]
    few = few.astype({name: str for name in ("ip", "user_agent", "path")})
    merged = few.merge(crawlers, on=["ip", "user_agent"], how="left", validate="many_to_one")
    declared = merged[merged["label"] == DECLARED].copy()
    declared["network"] = networks24(declared["ip"])
    random = numpy.random.default_rng(seed)
    pairs = declared[["user_agent", "network"]].drop_duplicates().sort_values(["user_agent", "network"])
    drawn = dict(zip(map(tuple, pairs.to_numpy()), agents[random.integers(len(agents), size=len(pairs))]))
    follows = dict(zip(map(tuple, pairs.to_numpy()), random.random(len(pairs)) < rules.disguise["referrers"]))
    whose = list(zip(declared["user_agent"], declared["network"]))
    declared["referrer"] = ""
    site = own_address(rows)
    if site is not None:
        page = declared["path"].where((declared["request.is_asset"] != 1) & (declared["path"] != "/robots.txt"))
        before = page.groupby([declared["ip"], declared["user_agent"]]).transform(lambda pages: pages.ffill().shift())
        follows = numpy.array([follows[pair] for pair in whose], bool) & before.notna().to_numpy()
        declared.loc[follows, "referrer"] = [site + path for path in before[follows]]
    declared["user_agent"] = ["" if path == "/robots.txt" else drawn[pair] for path, pair in zip(declared["path"], whose)]
    return declared[["line", "user_agent", "referrer"]].sort_values("line").reset_index(drop=True)


def own_address(rows):
    """The scheme and host that most of the site's own referrers have; None where the log shows none."""
    counts = rows["referrer"][rows["request.site_referrer"] == 1].value_counts()
    counts = counts[counts > 0]
    own = counts.index.astype(str).str.extract(r"^(https?://[^/]+)", expand=False)
    sums = pandas.Series(counts.to_numpy()).groupby(own.to_numpy()).sum()
    # Of equal ones the first by name.
    return str(sums.index[sums.to_numpy().argmax()]) if len(sums) else None


def read_labels(path):
    """What `bliss-train label` wrote."""
    try:
        frame = pandas.read_parquet(path)
    except FileNotFoundError as error:
        raise Problem(f"{path}: no such file. Make it with `bliss-train label --rows ROWS --out {path}`.") from error
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: expected labels as `bliss-train label` writes them: {error}") from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise Problem(f"{path}: expected labels as `bliss-train label` writes them, but {', '.join(missing)} is missing")
    return frame
