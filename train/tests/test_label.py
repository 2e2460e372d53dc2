"""Labels by rule, the disguised copy, and what is said when something is not as expected."""

import ipaddress
import struct

import numpy
import pandas
import pytest

import prototype_features as prototype
import synthetic
from bliss_train import label, rows
from bliss_train.errors import Problem
from bliss_train.decisions import Decisions
from bliss_train.hosting import Hosting, HostingError
from bliss_train.rules import Rules
from helpers import files, labels_of, run, site

BROWSER = synthetic.BROWSERS[0].format("121.0")
SITE = "https://shop.example/"


def of(lines, tmp_path, rules=None, hosting=None, **changed):
    """Labels of a log as {(ip, agent): row}."""
    log = synthetic.write(tmp_path / "a.log", lines)
    frame = prototype.features(log, hosts={"shop.example"})
    made = label.label(frame, rules or Rules(), hosting, **changed)
    return {row.ip: row for row in made.itertuples()}


def told(second, ip, request, status=200, referrer="", agent=BROWSER):
    return synthetic.line(synthetic.datetime(2026, 1, 1, 0, 0, second), ip, request, status, referrer, agent)


def visit(ip, agent=BROWSER):
    """A page and its assets, as a browser asks for them."""
    return [told(1, ip, "GET / HTTP/1.1", agent=agent), told(2, ip, "GET /a.css HTTP/1.1", 200, SITE, agent),
            told(2, ip, "GET /a.js HTTP/1.1", 304, SITE, agent)]


def test_every_kind_of_client_is_found(tmp_path):
    counts = labels_of(site(tmp_path))["label"].value_counts()
    assert counts["person"] >= 35 and counts["declared"] >= 15 and counts["scanner"] == 10 and counts["unknown"] >= 8


@pytest.mark.parametrize("lines, expected, evidence", [
    (visit("1.1.1.1"), "person", "a browser that loads pages and their assets"),
    (visit("1.1.1.1", "Googlebot/2.1"), "declared", "its agent is a known robot's"),
    (visit("1.1.1.1")[:2], "unknown", ""),
    ([told(1, "1.1.1.1", "GET / HTTP/1.1", 200, "https://www.google.com/")], "person", "a browser that comes from a search engine"),
    ([told(n, "1.1.1.1", f"GET /{n} HTTP/1.1", 200, "https://www.google.com/") for n in range(9)], "unknown", ""),
    ([told(1, "1.1.1.1", "GET / HTTP/1.1", 404, "https://www.google.com/")], "unknown", ""),
    ([told(1, "1.1.1.1", "GET /.env HTTP/1.1", 404), told(2, "1.1.1.1", "GET /wp-login.php HTTP/1.1", 404)], "scanner",
     "failed requests for what scanners ask for"),
    ([told(1, "1.1.1.1", "GET /.env HTTP/1.1", 404)], "unknown", ""),
    ([told(1, "1.1.1.1", "GET /.env HTTP/1.1", 200), told(2, "1.1.1.1", "GET /wp-login.php HTTP/1.1", 200)], "unknown", ""),
    ([told(1, "1.1.1.1", "GET /?a=..%2f..%2fetc/passwd HTTP/1.1", 404), told(2, "1.1.1.1", r"\x16\x03\x01", 400)], "scanner",
     "failed requests for what scanners ask for"),
    (visit("1.1.1.1") + [told(3, "1.1.1.1", "GET /.env HTTP/1.1", 404), told(4, "1.1.1.1", "GET /wp-login.php HTTP/1.1", 404)],
     "person", "a browser that loads pages and their assets"),
    ([told(n, "1.1.1.1", "POST /login HTTP/1.1", 200) for n in range(5)], "scanner", "a flood of logins"),
    ([told(n, "1.1.1.1", "POST /api/items HTTP/1.1", 200) for n in range(9)], "unknown", ""),
])
def test_a_rule_gives_its_label_and_names_the_evidence(tmp_path, lines, expected, evidence):
    row = of(lines, tmp_path)["1.1.1.1"]
    assert (row.label, row.evidence) == (expected, evidence)
    assert (row.weight > 0) == (expected != "unknown")


def test_conflicts_are_told(tmp_path):
    lines = visit("1.1.1.1", "Mozilla/5.0 (X11) Chrome/120.0 HeadlessChrome/120.0") + visit("1.1.1.2")
    found = of(lines, tmp_path, not_people=["1.1.1.2/32"])
    assert found["1.1.1.2"].label == "unknown" and found["1.1.1.2"].conflicts == "browsing, but in --not-people"
    assert found["1.1.1.1"].label == "declared"


def test_own_answers_are_no_evidence(tmp_path):
    lines = [told(1, "1.1.1.1", "GET /.env HTTP/1.1", 403), told(2, "1.1.1.1", "GET /wp-login.php HTTP/1.1", 403)]
    frame = prototype.features(synthetic.write(tmp_path / "a.log", lines))
    assert label.label(frame, Rules())["label"].tolist() == ["scanner"]
    assert label.label(frame.assign(own_answer=1), Rules())["label"].tolist() == ["unknown"]


def test_who_passed_a_challenge_is_a_person(tmp_path):
    crawler, page = "Googlebot/2.1", "GET / HTTP/1.1"
    lines = [told(1, "1.1.1.1", page), told(2, "1.1.1.1", page), told(1, "1.1.1.2", page), told(1, "1.1.1.3", page, agent=crawler),
             told(1, "1.1.1.4", "GET /.env HTTP/1.1", 404), told(2, "1.1.1.4", "GET /wp-login.php HTTP/1.1", 404), told(1, "1.1.1.5", page)]
    frame = prototype.features(synthetic.write(tmp_path / "a.log", lines))
    values = {"1.1.1.1": [1.0, 0.0], "1.1.1.2": [numpy.nan]}
    passed = [values[ip].pop() if ip in values else 1.0 for ip in frame["ip"].astype(str)]
    made = label.label(frame.assign(**{"request.challenge_passed": passed}), Rules(), not_people=["1.1.1.5/32"])
    found = {row.ip: row for row in made.itertuples()}
    # One of its requests is enough; not told is nothing.
    assert (found["1.1.1.1"].label, found["1.1.1.1"].evidence, found["1.1.1.1"].weight) == ("person", "it passed a challenge", 1.0)
    assert found["1.1.1.2"].label == "unknown"
    # What else is known of a client comes first, and is told.
    assert (found["1.1.1.3"].label, found["1.1.1.3"].conflicts) == ("declared", "passed")
    assert (found["1.1.1.4"].label, found["1.1.1.4"].conflicts) == ("scanner", "passed")
    assert (found["1.1.1.5"].label, found["1.1.1.5"].conflicts) == ("unknown", "passed, but in --not-people")
    # An export of before.
    assert set(label.label(frame, Rules())["label"]) == {"unknown", "declared", "scanner"}


def test_a_pass_is_read_where_the_export_has_it(tmp_path):
    frame = prototype.features(synthetic.write(tmp_path / "a.log", [told(1, "1.1.1.1", "GET / HTTP/1.1")]))
    for name, more in (("before", {}), ("now", {"request.challenge_passed": numpy.float32(1)})):
        frame.assign(**more).to_parquet(tmp_path / f"{name}.parquet", index=False)
        read = rows.read(tmp_path / f"{name}.parquet", [])
        assert ("request.challenge_passed" in read) == bool(more)
        assert label.label(read, Rules())["label"].tolist() == ["person" if more else "unknown"]


def test_a_honeypot_has_no_people(tmp_path):
    lines = visit("1.1.1.1") + visit("1.1.1.2", "curl/8.0")
    found = of(lines, tmp_path, honeypot="a trap")
    assert (found["1.1.1.1"].label, found["1.1.1.2"].label) == ("honeypot", "declared")
    assert found["1.1.1.1"].conflicts == "browsing"


def test_own_rules_come_first(tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text('[[people]]\nname = "paid"\nmethod = "POST"\npath = "^/paid$"\nstatus = [200]\nweight = 3.0\n'
                     '[[robots]]\nname = "ours"\naddresses = ["10.0.0.0/8"]\n')
    lines = [told(1, "1.1.1.1", "POST /paid HTTP/1.1"), told(1, "1.1.1.2", "POST /paid HTTP/1.1", 402), *visit("10.1.1.1")]
    found = of(lines, tmp_path, Rules(rules))
    assert (found["1.1.1.1"].label, found["1.1.1.1"].weight) == ("person", 3.0)
    assert found["1.1.1.1"].evidence == "[[people]] paid"
    assert found["1.1.1.2"].label == "unknown"
    assert (found["10.1.1.1"].label, found["10.1.1.1"].conflicts) == ("robot", "browsing")


@pytest.mark.parametrize("text, words", [
    ("[declared]\nweight = 1", "lacks 'package'"), ("[nonsense]", "unknown section [nonsense]"),
    ("[[people]]\nname = 'all'", "would hold for everybody"), ("[[people]]\nname = 'x'\npath = '('", "expected a regular expression"),
    ("[[robots]]\nname = 'x'\naddresses = ['300.1.1.1']", "expected an address or network"), ("[", "expected TOML"),
    ("[disguise]\nagents = []\nreferrers = 2", "expected a share from 0 to 1"),
    ("[[people]]\nname = 'x'\npath = 'a'\nweight = 0", "expected a number above 0"), ("[people]\nname='x'", "two brackets"),
])
def test_wrong_rules_are_told(tmp_path, text, words):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(Problem) as error:
        Rules(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_the_disguise_draws_from_the_sites_people(tmp_path):
    spec = site(tmp_path)
    made, labels = rows.read(files(spec)[0]), labels_of(spec)
    rewritten = label.rewrite(made, labels, Rules(), seed=1)
    declared = labels[labels["label"] == "declared"]
    lines = made.merge(declared[["ip", "user_agent"]], on=["ip", "user_agent"])
    assert set(rewritten["line"]) == set(lines["line"])
    robots = set(made["line"][made["path"] == "/robots.txt"])
    assert set(rewritten["line"][rewritten["user_agent"] == ""]) == robots & set(lines["line"])
    people = set(labels["user_agent"][labels["label"] == "person"])
    assert set(rewritten["user_agent"]) - {""} <= people
    joined = rewritten[rewritten["user_agent"] != ""].merge(lines, on="line", suffixes=("", "_before"))
    joined["network"] = rows.networks24(joined["ip"])
    assert (joined.groupby(["user_agent_before", "network"])["user_agent"].nunique() == 1).all()
    pandas.testing.assert_frame_equal(rewritten, label.rewrite(made, labels, Rules(), seed=1))
    assert not rewritten.equals(label.rewrite(made, labels, Rules(), seed=2))


def test_a_share_of_the_disguised_names_the_page_before(tmp_path):
    spec = site(tmp_path)
    made, labels = rows.read(files(spec)[0]), labels_of(spec)
    rules = Rules()
    shares = []
    for share in (0, 1):
        rules.disguise["referrers"] = share
        rewritten = label.rewrite(made, labels, rules, seed=1)
        shares.append((rewritten["referrer"] != "").mean())
    assert shares[0] == 0 and shares[1] > 0.3
    # In the order of the log, each page names the one before of the same client.
    lines = made.merge(rewritten[rewritten["user_agent"] != ""], on="line", suffixes=("", "_new"))
    for _, visit in lines.groupby(["ip", "user_agent"]):
        assert visit["referrer_new"].iloc[0] == ""
        for before, after in zip(visit.itertuples(), visit.iloc[1:].itertuples()):
            assert after.referrer_new.endswith(before.path) or before.path.endswith((".css", ".js", ".png"))
            assert after.referrer_new.startswith(SITE)
    # Where the log shows no referrer of its own, nobody knows what one would look like.
    nameless = label.rewrite(made.assign(**{"request.site_referrer": 0}), labels, rules, seed=1)
    assert (nameless["referrer"] == "").all()


def test_a_log_without_people_is_disguised_from_the_list(tmp_path):
    spec = site(tmp_path, people=0)
    rewritten = pandas.read_csv(files(spec)[1].with_name("shop.rewrite.csv"), keep_default_na=False)
    assert set(rewritten["user_agent"]) - {""} <= set(Rules().disguise["agents"])
    agents = tmp_path / "agents.txt"
    agents.write_text("Mozilla/5.0 (own)\n")
    rewrite = tmp_path / "own.csv"
    assert run("label", "--rows", files(spec)[0], "--out", tmp_path / "l.parquet", "--rewrite", rewrite, "--networks", "none", "--agents", agents) == 0
    assert set(pandas.read_csv(rewrite, keep_default_na=False)["user_agent"]) == {"", "Mozilla/5.0 (own)"}


@pytest.mark.parametrize("damage, words", [
    (lambda frame: frame.drop(columns="ip"), "but ip is missing"),
    (lambda frame: frame.iloc[::-1], "sorted by time"),
    (lambda frame: frame.assign(line=1), "found line 1 twice"),
    (lambda frame: frame.iloc[:0], "found none"),
])
def test_wrong_rows_are_told(tmp_path, capsys, damage, words):
    damage(pandas.read_parquet(files(site(tmp_path))[0])).to_parquet(tmp_path / "bad.parquet")
    assert run("label", "--rows", tmp_path / "bad.parquet", "--out", tmp_path / "l") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "l").exists()


# ------------------------------------------------------------------ hosting networks
def database(path, networks):
    """A location database of format 1: [(network, number, name)]."""
    nodes, data, systems, pool = [[0, 0, 0xFFFFFFFF]], b"", b"", b"\0"
    for place, (network, number, name) in enumerate(networks):
        parsed = ipaddress.ip_network(network)
        bits, length = int(parsed.network_address), parsed.prefixlen
        if parsed.version == 4:
            bits, length = bits | 0xFFFF << 32, length + 96
        node = 0
        for at in range(length):
            bit = bits >> (127 - at) & 1
            if nodes[node][bit] == 0:
                nodes[node][bit] = len(nodes)
                nodes.append([0, 0, 0xFFFFFFFF])
            node = nodes[node][bit]
        nodes[node][2] = place
        data += b"DE\0\0" + struct.pack(">IHH", number, 0, 0)
        systems += struct.pack(">II", number, len(pool))
        pool += name.encode() + b"\0"
    tree = b"".join(struct.pack(">III", *node) for node in nodes)
    start, parts = 128, []
    for part in (systems, data, tree, b"", pool):
        parts += [start, len(part)]
        start += len(part)
    header = b"LOCDBXX\x01" + struct.pack(">Q3I10I", 0, 0, 0, 0, *parts)
    path.write_bytes(header.ljust(128, b"\0") + systems + data + tree + pool)
    return path


def test_hosting_networks_are_found_by_name(tmp_path):
    path = database(tmp_path / "db", [("1.1.1.0/24", 1, "Example Hosting Ltd"), ("1.0.0.0/8", 2, "Home Telecom"), ("2a01:db8::/32", 3, "CLOUDY")])
    hosting = Hosting(path, ["host", "cloud"])
    found = {address: hosting.is_hosting(address) for address in ("1.1.1.9", "1.2.3.4", "2a01:db8::1", "9.9.9.9", "no address")}
    assert found == {"1.1.1.9": True, "1.2.3.4": False, "2a01:db8::1": True, "9.9.9.9": False, "no address": False}
    assert hosting.networks.name("1.2.3.4") == "Home Telecom"
    row = of(visit("1.1.1.9") + visit("1.2.3.4"), tmp_path, hosting=hosting)
    assert (row["1.1.1.9"].label, row["1.1.1.9"].conflicts, row["1.2.3.4"].label) == ("unknown", "browsing, but hosting network", "person")


def test_another_file_is_no_database(tmp_path):
    (tmp_path / "db").write_bytes(b"something else, long enough for a header")
    with pytest.raises(HostingError, match="expected a location database of format 1"):
        Hosting(tmp_path / "db", ["x"])


def decided(tmp_path, *lines):
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rules = Rules()
    rules.decisions = Decisions(path)
    return rules


def test_decisions_by_hand_come_first(tmp_path):
    robot, person, neither = '{"label":"robot",', '{"label":"person",', '{"label":null,'
    rules = decided(
        tmp_path,
        robot + '"network":"1.1.1.0/24","reason":"scraper"}',
        person + '"network":"1.1.1.2/32","reason":"the office"}',
        robot + '"user_agent":"curl/8.0","reason":""}',
        robot + '"network":"1.1.2.1/32","reason":"a mistake"}',
        neither + '"network":"1.1.2.1/32","reason":"a mistake"}',
    )
    lines = visit("1.1.1.1") + visit("1.1.1.2", "Googlebot/2.1") + visit("9.9.9.9", "curl/8.0") + visit("1.1.2.1") + visit("9.9.9.8")
    found = of(lines, tmp_path, rules=rules, not_people=["1.1.1.2/32"])
    labels = {address: row.label for address, row in found.items()}
    assert labels == {"1.1.1.1": "robot", "1.1.1.2": "person", "9.9.9.9": "robot", "1.1.2.1": "person", "9.9.9.8": "person"}
    assert (found["1.1.1.1"].evidence, found["1.1.1.2"].evidence) == ("denied by hand", "allowed by hand")
    assert found["1.1.1.1"].conflicts == "browsing"


@pytest.mark.parametrize("line", ["{", "[]", '{"label":"dog","network":"1.1.1.1"}', '{"label":"robot"}', '{"label":"robot","network":"x"}'])
def test_a_damaged_decision_is_named_and_one_that_was_cut_off_is_left_out(tmp_path, line):
    good = '{"label":"robot","network":"1.1.1.1/32"}'
    with pytest.raises(Problem, match="line 2"):
        decided(tmp_path, good, line, good)
    assert len(decided(tmp_path, good, line).decisions.networks) == 1
