"""PROTOTYPE, for tests and research only: makes the Parquet of training rows from an access log.

The product's rows come from `blissctl features --out rows.parquet`, so that training reads what serving reads. This file
computes the same columns in Python, slowly and for logs that fit in memory, so that labelling, fitting and measuring can
be tested without the Rust tool, and ideas for features tried in minutes. Nothing in `bliss_train` imports it.

Point in time: a request at second T sees only requests of earlier seconds.

    python research/prototype_features.py --log access.log[.gz] --out rows.parquet [--rewrite rewrite.csv] [--extra]
"""

import argparse
import csv
import gzip
import math
import os
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pandas

HOUR, DAY = 3600.0, 86400.0
SESSION = 30 * 60.0
WEEK = 7 * DAY

LINE = re.compile(
    r'(?P<ip>\S+) \S+ .*?\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\S+)'
    r'(?: "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
ASSETS = frozenset(
    "css js mjs map png jpg jpeg gif svg webp avif ico bmp tif tiff woff woff2 ttf otf eot mp3 mp4 m4a m4v mov ogg ogv "
    "oga wav webm flac swf wasm".split()
)
DATA = frozenset("xml txt json rss atom gz zip pdf".split())
METHODS = frozenset("GET HEAD POST PUT DELETE OPTIONS PATCH TRACE CONNECT PROPFIND".split())
BROWSER = re.compile(r"^(Mozilla/5\.0 \(|Opera/)")
ENGINE = re.compile(r"(Chrome|CriOS|Firefox|FxiOS|Safari|Edge?|EdgA|EdgiOS|OPR|Opera|Trident|MSIE|SamsungBrowser|Presto)[/ ]")
NAMES_ROBOT = re.compile(r"bot\b|crawl|spider|slurp|https?:|\+http|@|Headless|scan|preview|monitor|fetch|archiv", re.I)
SEARCH = re.compile(r"(^|\.)(google|bing|duckduckgo|yandex|baidu|yahoo|ecosia|startpage|qwant)\.")
FAMILIES = [
    ("edge", re.compile(r"\bEdg(?:e|A|iOS)?/(\d+)")),
    ("opera", re.compile(r"\b(?:OPR|Opera)/(\d+)")),
    ("samsung", re.compile(r"\bSamsungBrowser/(\d+)")),
    ("firefox", re.compile(r"\b(?:Firefox|FxiOS)/(\d+)")),
    ("chrome", re.compile(r"\b(?:Chrome|CriOS|Chromium)/(\d+)")),
    ("ie", re.compile(r"\b(?:MSIE |rv:)(\d+)(?=[^)]*(?:Trident|\)))")),
    ("safari", re.compile(r"\bVersion/(\d+)[^ ]* (?:Mobile/\S+ )?Safari/")),
]


# ------------------------------------------------------------------ text cells (bliss-service/src/export/text.rs)
GUESSED_WORDS = {b"na", b"n/a", b"nan", b"null", b"none", b"nil", b"true", b"false", b"inf", b"infinity"}


def escape(value):
    """Bytes as a text cell: what is no text or could be guessed to be a number stands as \\xHH."""
    cell = []
    if value and (value[:1] in b" +-.=@#<0123456789" or value.rstrip(b" \t\r\n\x0c").lower() in GUESSED_WORDS):
        cell.append(f"\\x{value[0]:02X}")
        value = value[1:]
    for character in value.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:
            cell.append(f"\\x{code - 0xDC00:02X}")
        elif code < 32 or 127 <= code < 160 or character in "\\\u2028\u2029":
            cell.extend(f"\\x{byte:02X}" for byte in character.encode())
        else:
            cell.append(character)
    return "".join(cell)


def unescape(cell):
    """The bytes that [`escape`] was given."""
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), cell.encode())


def read_log(path):
    """(line, time, ip, request, status, referrer, agent) of each line that can be read, as bytes where clients wrote."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="latin-1", newline="\n") as lines:
        for number, text in enumerate(lines, 1):
            match = LINE.match(text)
            if match is None:
                continue
            stamp = datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z").timestamp()
            told = [undo_log(match[name]) for name in ("request", "referrer", "agent")]
            yield number, stamp, match["ip"], told[0], int(match["status"]), told[1], told[2]


def undo_log(text):
    """What the server escaped (\\xHH, \\", \\\\) as bytes; "-" and nothing are empty."""
    if text is None or text == "-":
        return b""
    value = text.encode("latin-1")
    if b"\\" not in value:
        return value
    return re.sub(
        rb'\\(?:x([0-9A-Fa-f]{2})|(.))', lambda m: bytes([int(m[1], 16)]) if m[1] else m[2], value, flags=re.S
    )


def split_request(request):
    """(method, path, query) of a request line; all empty where it is no HTTP."""
    parts = request.split(b" ")
    if len(parts) < 2 or parts[0].decode("latin-1") not in METHODS:
        return "", b"", b""
    target = b" ".join(parts[1:-1]) if len(parts) > 2 and parts[-1].startswith(b"HTTP/") else b" ".join(parts[1:])
    target = re.sub(rb"^https?://[^/]*", b"", target)
    path, _, query = target.partition(b"?")
    return parts[0].decode("latin-1"), path, query


def host_of(referrer):
    match = re.match(rb"https?://([^/:?#]+)", referrer)
    return match[1].decode("latin-1").lower().removeprefix("www.") if match else ""


def extension(path):
    name = path.rsplit(b"/", 1)[-1]
    return name.rsplit(b".", 1)[1].decode("latin-1").lower() if b"." in name else ""


def browser_of(agent):
    """(family, major version) that the agent claims, or None."""
    for family, pattern in FAMILIES:
        match = pattern.search(agent)
        if match:
            return family, min(int(match[1]), 9999)
    return None


def claims_browser(agent):
    return bool(BROWSER.match(agent) and ENGINE.search(agent) and not NAMES_ROBOT.search(agent))


# ------------------------------------------------------------------ memory of a key
class Decayed:
    """Counts that halve every half-life: one time, several counts."""

    __slots__ = ("time", "values", "half")

    def __init__(self, half, size):
        self.time, self.values, self.half = 0.0, [0.0] * size, half

    def at(self, now):
        factor = 0.5 ** ((now - self.time) / self.half)
        return [value * factor for value in self.values]

    def add(self, now, counts):
        self.values = [value + count for value, count in zip(self.at(now), counts)]
        self.time = now


class Session:
    """Counts until 30 minutes of silence."""

    __slots__ = ("last", "values")

    def __init__(self, size):
        self.last, self.values = -math.inf, [0.0] * size

    def at(self, now):
        return [0.0] * len(self.values) if now - self.last > SESSION else self.values

    def add(self, now, counts):
        self.values = [value + count for value, count in zip(self.at(now), counts)]
        self.last = now


class Members:
    """A set whose members are forgotten after a week; keeps at most `cap` members (new ones are dropped)."""

    __slots__ = ("seen", "cap")

    def __init__(self, cap):
        self.seen, self.cap = {}, cap

    def count(self, now):
        if self.seen and now - next(iter(self.seen.values())) > WEEK:
            for member in [m for m, t in self.seen.items() if now - t > WEEK]:
                del self.seen[member]
        return len(self.seen)

    def add(self, now, member):
        known = self.seen.pop(member, None)
        if known is not None or self.count(now) < self.cap:
            self.seen[member] = now  # the order of the dictionary is the order of times


GONE = 2.0 ** -10


SMOOTHED = float(os.environ.get("PROTOTYPE_SMOOTHED", "0"))  # tried out: so many requests of a share of a half are added


def share(numerator, denominator):
    if SMOOTHED:
        return (numerator + SMOOTHED / 2) / (denominator + SMOOTHED)
    return numerator / denominator if denominator > GONE else -1.0


class Memory:
    """All keys of one dimension."""

    def __init__(self, half=None, sets=0, session=0, counts=0):
        self.keys, self.spec = {}, (half, counts, sets, session)

    def get(self, key):
        return self.keys.get(key)

    def make(self, key):
        entry = self.keys.get(key)
        if entry is None:
            half, counts, cap, session = self.spec
            entry = self.keys[key] = Entry(half, counts, cap, session)
        return entry


class Entry:
    __slots__ = ("decayed", "members", "session", "first")

    def __init__(self, half, counts, cap, session):
        self.decayed = Decayed(half, counts) if counts else None
        self.members = Members(cap) if cap else None
        self.session = Session(session) if session else None
        self.first = None


class Site:
    """What a site's traffic was, up to the last second."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.agent = Memory(WEEK, sets=65536, counts=8)
        self.subnet = Memory(DAY, sets=64, counts=8)
        self.subnet16 = Memory(DAY, sets=512, counts=8)
        self.ip_day = Memory(DAY, counts=2, sets=64)
        self.ip_half_day = Memory(DAY / 2, counts=5, session=6)
        self.client = Memory(session=8)
        self.path = Memory(WEEK, sets=64, counts=6)
        self.ips = Members(1 << 20)
        self.versions = {}

    def newest(self, now, family):
        best = None
        for version, networks in self.versions.get(family, {}).items():
            if (best is None or version > best) and networks.count(now) >= 3:
                best = version
        return best

    def see(self, r):
        values = {}
        now, zero = r["time"], [0.0] * 8
        a = self.agent.get(r["user_agent"])
        d = a.decayed.at(now) if a else zero
        ips = a.members.count(now) if a else 0
        # 0 all, 1 assets, 2 pages, 3 pages without Referer, 4 robots.txt, 5 errors, 6 POST, 7 site referrer
        values["user_agent.status"] = "fresh" if a else "missing"
        values["user_agent.asset_share_h7d"] = share(d[1], d[0])
        values["user_agent.no_referrer_page_share_h7d"] = share(d[3], d[2])
        values["user_agent.robots_share_h7d"] = share(d[4], d[0])
        values["user_agent.error_share_h7d"] = share(d[5], d[0])
        values["user_agent.requests_per_ip_h7d"] = math.log1p(d[0] / ips) if ips else -1.0
        values["user_agent.ip_share_7d"] = share(ips, self.ips.count(now))
        values["user_agent.age_30d"] = math.log1p(now - a.first) if a else -1.0
        browser = r["browser"]
        newest = self.newest(now, browser[0]) if browser else None
        values["user_agent.staleness_7d"] = -99.0 if newest is None else float(newest - browser[1])
        values["x.user_agent.post_share_h7d"] = share(d[6], d[0])
        values["x.user_agent.site_referrer_share_h7d"] = share(d[7], d[0])
        values["x.user_agent.ips_7d"] = math.log1p(ips)
        for name, memory in (("subnet", self.subnet), ("subnet16", self.subnet16)):
            s = memory.get(r[name])
            d = s.decayed.at(now) if s else zero
            values[f"{name}.status"] = "fresh" if s else "missing"
            extra = "" if name == "subnet" else "x."
            values[f"{extra}{name}.asset_share_h1d"] = share(d[1], d[0])
            values[f"{extra}{name}.no_referrer_page_share_h1d"] = share(d[3], d[2])
            values[f"{extra}{name}.error_share_h1d"] = share(d[5], d[0])
            values[f"{name}.unique_ips_7d"] = math.log1p(s.members.count(now)) if s else 0.0
            values[f"x.{name}.robots_share_h1d"] = share(d[4], d[0])
            values[f"x.{name}.site_referrer_share_h1d"] = share(d[7], d[0])
        i, j = self.ip_day.get(r["ip"]), self.ip_half_day.get(r["ip"])
        values["ip.status"] = "fresh" if i else "missing"
        d = i.decayed.at(now) if i else zero
        values["ip.robots_h1d"] = math.log1p(d[1]) if d[1] > GONE else 0.0
        values["x.ip.user_agents_7d"] = math.log1p(i.members.count(now)) if i else 0.0
        values["x.ip.age_30d"] = math.log1p(now - i.first) if i else -1.0
        d = j.decayed.at(now) if j else zero
        values["ip.asset_share_h12h"] = share(d[1], d[0])
        values["x.ip.error_share_h12h"] = share(d[2], d[0])
        values["x.ip.no_referrer_page_share_h12h"] = share(d[4], d[3])
        s = j.session.at(now) if j else zero
        values["ip.error_share_session"] = share(s[1], s[0])
        values["ip.post_share_session"] = share(s[2], s[0])
        values["x.ip.posts_session"] = math.log1p(min(s[2], 64))
        values["x.ip.errors_session"] = math.log1p(min(s[1], 64))
        values["x.ip.pages_since_asset_session"] = math.log1p(min(s[3], 64))
        c = self.client.get((r["ip"], r["user_agent"]))
        s = c.session.at(now) if c else zero
        values["ip_user_agent.status"] = "fresh" if c else "missing"
        values["ip_user_agent.referrer_share_session"] = share(s[1], s[0])
        values["ip_user_agent.asset_share_session"] = share(s[2], s[0])
        values["x.ip_user_agent.site_referrer_share_session"] = share(s[3], s[0])
        values["x.ip_user_agent.site_referrer_page_share_session"] = share(s[4], s[5])
        values["x.ip_user_agent.pages_since_asset_session"] = math.log1p(min(s[6], 64))
        values["x.ip_user_agent.error_share_session"] = share(s[7], s[0])
        p = self.path.get(r["path"])
        d = p.decayed.at(now) if p else zero
        values["path.status"] = "fresh" if p else "missing"
        values["path.popularity_7d"] = math.log1p(p.members.count(now)) if p else 0.0
        values["x.path.ip_share_7d"] = share(p.members.count(now), self.ips.count(now)) if p else 0.0
        values["x.subnet.ip_share_7d"] = share(self.subnet.get(r["subnet"]).members.count(now), self.ips.count(now)) if self.subnet.get(r["subnet"]) else 0.0
        values["x.subnet16.ip_share_7d"] = share(self.subnet16.get(r["subnet16"]).members.count(now), self.ips.count(now)) if self.subnet16.get(r["subnet16"]) else 0.0
        values["path.error_share_h7d"] = share(d[1], d[0])
        values["path.no_referrer_share_h7d"] = share(d[2], d[0])
        values["path.site_referrer_share_h7d"] = share(d[3], d[0])
        values["x.path.claims_browser_share_h7d"] = share(d[4], d[0])
        return values

    def add(self, r):
        if r["own_answer"]:
            return
        now = r["time"]
        page = not r["is_asset"]
        counts = [1.0, r["is_asset"], page, page and r["no_referrer"], r["is_robots"], r["error"], r["post"], r["site"]]
        counts = [float(count) for count in counts]
        a = self.agent.make(r["user_agent"])
        a.first = now if a.first is None else a.first
        a.decayed.add(now, counts)
        a.members.add(now, r["ip"])
        self.ips.add(now, r["ip"])
        for name, memory in (("subnet", self.subnet), ("subnet16", self.subnet16)):
            s = memory.make(r[name])
            s.decayed.add(now, counts)
            s.members.add(now, r["ip"])
        i, j = self.ip_day.make(r["ip"]), self.ip_half_day.make(r["ip"])
        i.first = now if i.first is None else i.first
        i.decayed.add(now, [1.0, counts[4]])
        i.members.add(now, r["user_agent"])
        j.decayed.add(now, [1.0, counts[1], counts[5], counts[2], counts[3]])
        s = j.session.at(now)
        j.session.add(now, [1.0, counts[5], counts[6], 1.0 if page else -s[3], 0.0, 0.0])
        c = self.client.make((r["ip"], r["user_agent"]))
        s = c.session.at(now)
        c.session.add(now, [
            1.0, float(not r["no_referrer"]), counts[1], counts[7], counts[7] * page, float(page), 1.0 if page else -s[6], counts[5]
        ])
        p = self.path.make(r["path"])
        p.members.add(now, r["ip"])
        p.decayed.add(now, [1.0, float(r["status"] >= 400), float(r["no_referrer"]), counts[7], float(r["claims"]), 0.0])
        if r["browser"] and r["claims"]:
            family, version = r["browser"]
            self.versions.setdefault(family, {}).setdefault(version, Members(64)).add(now, r["subnet"])


def networks_of(ip):
    if ":" in ip:
        parts = ip.split(":")
        return ":".join(parts[:3]) + "::/48", ":".join(parts[:2]) + "::/32"
    parts = ip.split(".")
    return ".".join(parts[:3]) + ".0/24", ".".join(parts[:2]) + ".0.0/16"


def learn_hosts(requests):
    """The site's own hosts: a fifth of the Referers of answered assets, from two networks, and no search engine.

    Without any, the commonest Referer of all requests that is none: on a page without assets, too, links lead to pages.
    """
    hosts, networks = Counter(), {}
    for r in requests:
        host = host_of(r["referrer_bytes"])
        if r["is_asset"] and r["status"] < 400 and host and not SEARCH.search(host):
            hosts[host] += 1
            networks.setdefault(host, set()).add(r["subnet"])
    total = sum(hosts.values())
    own = {host for host, count in hosts.items() if count >= 0.2 * total and len(networks[host]) >= 2}
    if not own:
        every = Counter(host_of(r["referrer_bytes"]) for r in requests)
        own = {host for host, _ in [item for item in every.most_common() if item[0] and not SEARCH.search(item[0])][:1]}
    return own


def features(log, rewrite=None, hosts=None, extra=False):
    """The rows of a log as a data frame; `rewrite` maps a line to its new agent (a text cell; "" drops the line)."""
    requests = []
    for line, time, ip, request, status, referrer, agent in read_log(log):
        if rewrite is not None and line in rewrite:
            if rewrite[line] == "":
                continue
            agent = unescape(rewrite[line])
        method, path, query = split_request(request)
        agent_text = agent.decode("utf-8", "replace")
        subnet, subnet16 = networks_of(ip)
        ext = extension(path)
        requests.append(dict(
            line=line, time=time, ip=ip, subnet=subnet, subnet16=subnet16, user_agent=escape(agent), method=method,
            path=path, query=query, status=status, referrer_bytes=referrer, is_asset=ext in ASSETS, is_data=ext in DATA,
            is_robots=path == b"/robots.txt", no_referrer=not referrer, post=method == "POST",
            error=400 <= status < 500 and status not in (403, 429), own_answer=False, browser=browser_of(agent_text),
            claims=claims_browser(agent_text),
        ))
    requests.sort(key=lambda r: r["time"])
    hosts = learn_hosts(requests) if hosts is None else hosts
    site, rows, waiting = Site(hosts), [], []
    for r in requests:
        r["site"] = bool(hosts) and host_of(r["referrer_bytes"]) in hosts
        if waiting and waiting[0]["time"] < r["time"]:
            for earlier in waiting:
                site.add(earlier)
            waiting = []
        waiting.append(r)
        row = {
            "time": r["time"], "line": r["line"], "ip": r["ip"], "user_agent": r["user_agent"],
            "method": r["method"], "path": escape(r["path"]), "query": escape(r["query"]), "host": "",
            "referrer": escape(r["referrer_bytes"]), "response_status": r["status"], "own_answer": 0,
            "request.no_referrer": r["no_referrer"], "request.site_referrer": r["site"],
            "request.is_get": r["method"] == "GET", "request.is_asset": r["is_asset"], "request.is_data": r["is_data"],
            "request.path_depth": min(r["path"].count(b"/"), 64), "request.query_length": math.log1p(len(r["query"])),
            "request.claims_browser": r["claims"],
        }
        for header in ("accept", "accept_language", "accept_encoding", "sec_fetch", "sec_ch_ua"):
            row[f"request.has_{header}"] = math.nan
        row["request.header_conflicts"] = math.nan
        row.update(site.see(r))
        rows.append(row)
    frame = pandas.DataFrame(rows)
    for column in frame.columns:
        if column.endswith(".status"):
            frame[column] = frame[column].astype("str")
        elif column.startswith("x.") or ("." in column):
            frame[column] = frame[column].astype("float32")
    frame["line"] = frame["line"].astype("int64")
    frame["response_status"] = frame["response_status"].astype("int32")
    if not extra:
        return frame[[column for column in frame.columns if not column.startswith("x.")]]
    return frame.rename(columns=lambda column: column.removeprefix("x."))


def read_rewrite(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {int(row["line"]): row["user_agent"] for row in csv.DictReader(file)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--rewrite")
    parser.add_argument("--extra", action="store_true", help="also the features that are only tried out")
    arguments = parser.parse_args()
    rewrite = read_rewrite(arguments.rewrite) if arguments.rewrite else None
    features(arguments.log, rewrite, extra=arguments.extra).to_parquet(arguments.out, index=False)


if __name__ == "__main__":
    main()
