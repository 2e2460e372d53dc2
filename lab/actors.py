"""Who visits the lab: people and robots, each with addresses of its own, and what each runs.

`build(lab)` returns the actors. An actor's jobs are the processes that it runs, one after the other; a job's arguments are
plain strings. Addresses come from 127.0.0.0/8, one second octet (a /16) for each actor; only those that are meant to share
a network or an address do. 127.0.0.0/16 is for the servers.
"""

import dataclasses
import json
import random
import re
import subprocess

URL = "https://shop.example"


@dataclasses.dataclass
class Job:
    argv: list
    timeout: int = 60
    hosts: bool = True  # Needs the lab's hosts file, and so a mount namespace of its own.
    needs: tuple = ()  # Commands without which the job is skipped.
    after: float = 0.0  # Not before this share of the run: for second visits.


@dataclasses.dataclass
class Actor:
    name: str
    kind: str
    is_robot: bool
    claims_browser: bool
    addresses: list
    jobs: list
    notes: str = ""
    agent: str = "*"  # Given only where an address is shared.
    short: bool = False


class Addresses:
    """Hands out addresses, the same in each run."""

    def __init__(self, seed=14):
        self.rng = random.Random(seed)
        self.second = list(range(1, 255))
        self.rng.shuffle(self.second)
        self.networks = set()

    def one(self):
        """An address in a /16 that nobody else has, as long as there are any."""
        second = self.second.pop() if self.second else self.rng.randint(1, 254)
        third = self.rng.randint(1, 254)
        self.networks.add((second, third))
        return f"127.{second}.{third}.{self.rng.randint(2, 250)}"

    def near(self, address):
        """Another address of the same /24."""
        head, last = address.rsplit(".", 1)
        return f"{head}.{(int(last) + 3) % 250 + 2}"

    def many(self, count):
        """Addresses spread over all networks, none in somebody's /24."""
        out = []
        while len(out) < count:
            network = (self.rng.randint(1, 254), self.rng.randint(1, 254))
            if network not in self.networks:
                self.networks.add(network)
                out.append(f"127.{network[0]}.{network[1]}.{self.rng.randint(2, 250)}")
        return out


def _version(command, default):
    try:
        out = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20).stdout
        return int(re.search(r"(\d+)\.", out).group(1))
    except (OSError, AttributeError, subprocess.TimeoutExpired):
        return default


class Agents:
    """Agents of browsers, of the versions that are installed here and of a few before."""

    def __init__(self):
        self.chrome, self.firefox = _version("chromium", 156), _version("firefox-esr", 153)

    def win(self, less=0):
        return f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{self.chrome - less}.0.0.0 Safari/537.36"

    def edge(self, less=0):
        return self.win(less) + f" Edg/{self.chrome - less}.0.0.0"

    def mac(self, less=0):
        return f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{self.chrome - less}.0.0.0 Safari/537.36"

    def android(self, less=0):
        return f"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{self.chrome - less}.0.0.0 Mobile Safari/537.36"

    def fox(self, system, less=0):
        return f"Mozilla/5.0 ({system}; rv:{self.firefox - less}.0) Gecko/20100101 Firefox/{self.firefox - less}.0"

    IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1"
    SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15"


LANGUAGES = (
    "en-GB,en",
    "en-US,en",
    "de-DE,de,en-US,en",
    "fr-FR,fr,en-US,en",
    "es-ES,es",
    "nl-NL,nl,en",
    "pl-PL,pl,en-US,en",
    "da-DK,da,en-US,en",
    "pt-BR,pt,en",
    "en-US,en",
)


def _steps(rng, lab, returning=False):
    """A visit: how it begins, and three to nine things that a person does."""
    deep = [p for p in lab.pages if p.startswith(("/blog/", "/product/"))]
    begin = rng.random()
    if returning:
        steps = [["direct", "/" if begin < 0.6 else rng.choice(deep)]]
    elif begin < 0.5:
        steps = [
            [
                "search",
                rng.choice(("www.google.com", "www.google.com", "www.bing.com", "duckduckgo.com")),
                rng.choice(deep + ["/"] * 8),
            ]
        ]
    elif begin < 0.62:
        steps = [["search", "forum.example", rng.choice(deep)]]
    else:
        steps = [["direct", rng.choice(["/"] * 3 + deep[:3])]]
    if rng.random() < 0.9:
        steps.append(["read"])
    for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 6, 7))):
        what = rng.random()
        if what < 0.5:
            steps += [["click", rng.choice(("blog", "product", "any", "category", "nav"))], ["read"]]
        elif what < 0.62:
            steps.append(["back"])
        elif what < 0.76:
            steps += [
                ["find", rng.choice(("kettle", "oak", "clean", "basket", "repair", "nothing"))],
                ["click", "any"],
                ["read"],
            ]
        elif what < 0.84:
            steps += [["click", "product"], ["cart"]]
        elif what < 0.9:
            steps.append(["click", "older"])
        elif what < 0.94:
            steps.append(["click", rng.choice(("sale", "paper", "nav"))])
        else:
            steps.append(["reload"])
    return steps


def _people(lab, addresses, agents):
    rng = random.Random(41)
    people = []
    windows, mac, linux = "Windows", "macOS", "Linux"

    def person(
        name,
        engine,
        setup,
        address=None,
        steps=None,
        kind="person",
        notes="",
        shared=False,
        returns=False,
        short=False,
        timeout=90,
    ):
        address = address or addresses.one()
        who = {
            "engine": engine,
            "seed": rng.randint(1, 1 << 30),
            "address": address,
            "port": lab.https_port,
            "spki": lab.spki,
            "think": lab.stretch,
            "profile": str(lab.work / "profiles" / name),
            "languages": rng.choice(LANGUAGES),
            "width": rng.choice((1280, 1366, 1440)),
            "height": rng.choice((680, 720, 800)),
        }
        who |= setup
        if engine == "webkit":
            who |= {"binary": lab.minibrowser, "locales": str(lab.work / "locale")}
        needs = {
            "chromium": ("node", "chromium"),
            "firefox": ("node", "firefox-esr"),
            "webkit": ("node", "WebKitWebDriver"),
        }[engine]
        jobs = []
        for visit in range(2 if returns else 1):
            plan = steps if steps and visit == 0 else _steps(rng, lab, returning=visit > 0)
            jobs.append(
                Job(
                    [
                        "node",
                        str(lab.here / "clients/people.cjs"),
                        json.dumps(who | {"steps": plan, "seed": who["seed"] + visit}),
                    ],
                    timeout=int(timeout * max(1.0, lab.stretch)),
                    hosts=engine != "chromium",
                    needs=needs,
                    after=0.4 * visit,
                )
            )
        people.append(
            Actor(
                name,
                kind,
                False,
                True,
                [address],
                jobs,
                notes,
                setup.get("agent", "*") if shared else "*",
                short,
            )
        )
        return address

    def chrome(agent, brand="Google Chrome", platform=windows, **more):
        return {"agent": agent, "brand": brand, "platform": platform} | more

    phone = {"mobile": True, "width": 412, "height": 780}
    setups = (
        [("chromium", {}, "Debian's Chromium as it is")] * 4
        + [("chromium", chrome(agents.win()), "")] * 10
        + [("chromium", chrome(agents.win(1)), "")] * 4
        + [("chromium", chrome(agents.win(6)), "an older version by its agent")]
        + [("chromium", chrome(agents.mac(), platform=mac), "")] * 4
        + [("chromium", chrome(agents.edge(), brand="Microsoft Edge"), "")] * 3
        + [("chromium", chrome(agents.android(), platform="Android", **phone), "phone")] * 10
        + [("chromium", chrome(agents.android(1), platform="Android", **phone), "phone")] * 2
        + [("firefox", {}, "Debian's Firefox as it is")] * 2
        + [("firefox", {"agent": agents.fox("Windows NT 10.0; Win64; x64")}, "")] * 4
        + [("firefox", {"agent": agents.fox("Macintosh; Intel Mac OS X 10.15")}, "")] * 2
        + [("webkit", {"agent": Agents.IPHONE}, "WebKitGTK with a phone's agent, wide window")] * 5
        + [("webkit", {"agent": Agents.SAFARI}, "WebKitGTK with Safari's agent")] * 2
    )
    first = None
    for number, (engine, setup, notes) in enumerate(setups):
        got = person(
            f"person-{number + 1:02}",
            engine,
            setup,
            notes=notes,
            returns=number % 3 == 1 and engine != "webkit",
            short=number == 4,
        )
        if number == 6:
            first = got
    # One office: eight people behind one address.
    office = addresses.one()
    for number, (engine, setup) in enumerate(
        (
            ("chromium", chrome(agents.win())),
            ("chromium", chrome(agents.win())),
            ("chromium", chrome(agents.edge(), brand="Microsoft Edge")),
            ("chromium", chrome(agents.mac(), platform=mac)),
            ("chromium", chrome(agents.win(1))),
            ("firefox", {"agent": agents.fox("Windows NT 10.0; Win64; x64")}),
            ("chromium", chrome(agents.edge(1), brand="Microsoft Edge")),
            ("chromium", chrome(agents.win())),
        )
    ):
        person(
            f"office-{number + 1}",
            engine,
            setup,
            address=office,
            notes="eight people behind one address",
            shared=True,
        )
    # A family: two phones and a computer.
    home = addresses.one()
    person(
        "home-1",
        "chromium",
        chrome(agents.android(), platform="Android", **phone),
        address=home,
        notes="a family behind one address",
        shared=True,
    )
    person(
        "home-2",
        "webkit",
        {"agent": Agents.IPHONE},
        address=home,
        notes="a family behind one address",
        shared=True,
    )
    person(
        "home-3",
        "chromium",
        chrome(agents.win()),
        address=home,
        notes="a family behind one address",
        shared=True,
        returns=True,
    )
    # People that look odd.
    person(
        "no-referrer",
        "firefox",
        {"no_referrer": True},
        notes="sends no Referer",
        steps=[
            ["direct", "/"],
            ["read"],
            ["click", "blog"],
            ["read"],
            ["click", "product"],
            ["click", "any"],
        ],
    )
    person("no-images", "firefox", {"no_images": True}, notes="loads no images")
    person(
        "no-script",
        "chromium",
        chrome(agents.win(), no_script=True),
        notes="JavaScript is off: follows nothing, opens pages by hand",
        steps=[["direct", "/"], ["direct", "/blog/"], ["direct", "/category/garden/"], ["direct", "/about/"]],
    )
    person("blocker-1", "chromium", chrome(agents.win(), block="counter"), notes="blocks the counter")
    person(
        "blocker-2",
        "chromium",
        chrome(agents.mac(), platform=mac, block="counter"),
        notes="blocks the counter",
        returns=True,
    )
    person(
        "no-extras",
        "chromium",
        chrome(agents.android(), platform="Android", block="assets", **phone),
        notes="saves data: loads no images, styles, fonts",
    )
    customer = ["ada@shop.example", "ada-3-secret"]
    person(
        "customer-1",
        "chromium",
        chrome(agents.win()),
        kind="person at work",
        notes="signs in and leaves the orders open",
        steps=[["direct", "/"], ["login", *customer], ["work", 25], ["click", "nav"], ["read"]],
    )
    person(
        "customer-2",
        "firefox",
        {"agent": agents.fox("Windows NT 10.0; Win64; x64")},
        kind="person at work",
        notes="signs in and leaves the orders open",
        steps=[["direct", "/login"], ["login", "ben@shop.example", "ben-3-secret"], ["work", 20]],
    )
    person(
        "customer-3",
        "chromium",
        chrome(agents.edge(), brand="Microsoft Edge"),
        notes="forgot the password: three times wrong, then right",
        steps=[
            ["search", "www.google.com", "/"],
            ["login", "eva@shop.example", "x"],
            ["again", "eva@shop.example", "y"],
            ["again", "eva@shop.example", "z"],
            ["again", "eva@shop.example", "eva-3-secret"],
            ["work", 4],
        ],
    )
    person(
        "customer-4",
        "chromium",
        chrome(agents.android(), platform="Android", **phone),
        notes="signs in on a phone",
        steps=[
            ["direct", "/"],
            ["click", "product"],
            ["read"],
            ["cart"],
            ["login", "gus@shop.example", "gus-3-secret"],
            ["work", 3],
        ],
    )
    return people, first, office


def _robots(lab, addresses, agents, neighbour, office):
    robots = []
    pages = lab.pages
    articles = [p for p in pages if p.startswith("/blog/")]
    products = [p for p in pages if p.startswith("/product/")]
    win, fox, mac = agents.win(1), agents.fox("Windows NT 10.0; Win64; x64"), agents.mac(1)

    def add(name, kind, jobs, claims=False, where=None, notes="", short=False, agent="*"):
        where = where or [addresses.one()]
        jobs = jobs(where) if callable(jobs) else jobs
        robots.append(
            Actor(
                name,
                kind,
                True,
                claims,
                where,
                jobs if isinstance(jobs, list) else [jobs],
                notes,
                agent,
                short,
            )
        )

    def tool(name, kind, argv, claims=False, timeout=60, notes="", **more):
        add(
            name,
            kind,
            Job([str(a) for a in argv], timeout=timeout, needs=(argv[0],)),
            claims,
            notes=notes,
            **more,
        )

    def python(
        name,
        kind,
        mode,
        claims=False,
        where=None,
        count_addresses=1,
        notes="",
        short=False,
        timeout=90,
        needs=(),
        only_agent="*",
        **options,
    ):
        where = where or ([addresses.one()] if count_addresses == 1 else addresses.many(count_addresses))
        who = {
            "mode": mode,
            "addresses": where,
            "port": lab.https_port,
            "http_port": lab.http_port,
            "seed": len(robots),
            "think": lab.stretch,
        } | options
        add(
            name,
            kind,
            Job(
                [lab.python, str(lab.here / "clients/robots.py"), json.dumps(who)],
                timeout=int(timeout * max(1.0, lab.stretch)),
                hosts=mode == "impersonate",
                needs=needs,
            ),
            claims,
            where,
            notes,
            short,
            only_agent,
        )

    def headless(name, mode, claims, wanted, notes="", pause=0.0, engine="chromium", **options):
        where = addresses.one()
        who = {
            "mode": mode,
            "address": where,
            "port": lab.https_port,
            "pages": wanted,
            "pause": pause * lab.stretch,
            "profile": str(lab.work / "profiles" / name),
        } | options
        add(
            name,
            "headless",
            Job(
                ["node", str(lab.here / "clients/headless.cjs"), json.dumps(who)],
                timeout=90,
                hosts=mode == "firefox",
                needs=("node", engine),
            ),
            claims,
            [where],
            notes,
        )

    # Scanners, as they come and disguised.
    tool("gobuster", "scanner", ["gobuster", "dir", "-u", URL, "-w", lab.words, "-k", "-q", "-z", "-t", "4"])
    tool(
        "gobuster-agent",
        "scanner",
        [
            "gobuster",
            "dir",
            "-u",
            URL,
            "-w",
            lab.words,
            "-k",
            "-q",
            "-z",
            "-t",
            "2",
            "-a",
            win,
            "--delay",
            "20ms",
        ],
        True,
    )
    tool(
        "dirb",
        "scanner",
        ["dirb", URL + "/", lab.words, "-S", "-r", "-w"],
        True,
        notes="its own agent is that of an old browser",
    )
    tool("wfuzz", "scanner", ["wfuzz", "-w", lab.words, "--hc", "404", URL + "/FUZZ"])
    tool(
        "dirsearch",
        "scanner",
        ["dirsearch", "-u", URL, "-w", lab.words, "-e", "php", "-t", "4", "-o", lab.work / "dirsearch.txt"],
        True,
    )
    tool(
        "dirsearch-random",
        "scanner",
        [
            "dirsearch",
            "-u",
            URL,
            "-w",
            lab.words,
            "-e",
            "bak",
            "-t",
            "4",
            "--random-agent",
            "-o",
            lab.work / "dirsearch2.txt",
        ],
        True,
    )
    tool("ffuf", "scanner", ["ffuf", "-w", lab.words, "-u", URL + "/FUZZ", "-k", "-s", "-t", "4"])
    tool(
        "ffuf-agent",
        "scanner",
        [
            "ffuf",
            "-w",
            lab.words,
            "-u",
            URL + "/FUZZ",
            "-k",
            "-s",
            "-t",
            "2",
            "-H",
            f"User-Agent: {fox}",
            "-H",
            f"Referer: {URL}/",
        ],
        True,
        notes="with a Referer",
    )
    tool("whatweb", "scanner", ["whatweb", "-a", "4", "--no-errors", "-q", URL], timeout=30)
    tool(
        "wapiti",
        "scanner",
        [
            "wapiti",
            "-u",
            URL + "/search?q=oak",
            "--scope",
            "page",
            "-d",
            "1",
            "-m",
            "exec,file,xss",
            "--max-scan-time",
            "30",
            "--flush-session",
            "--no-bugreport",
            "-o",
            lab.work / "wapiti",
        ],
        True,
        timeout=45,
    )
    add(
        "nmap",
        "scanner",
        lambda where: Job(
            [
                "nmap",
                "-n",
                "-Pn",
                "-sT",
                "-p",
                "80,443",
                "--script",
                "http-title,http-robots.txt,http-methods,http-headers,http-git,http-favicon",
                where[0],
            ],
            needs=("nmap",),
        ),
    )
    tool("nikto", "scanner", ["nikto", "-h", URL, "-maxtime", "30s"])
    tool("feroxbuster", "scanner", ["feroxbuster", "-u", URL, "-w", lab.words, "-k", "-q", "-n"])
    tool(
        "sqlmap",
        "scanner",
        [
            "sqlmap",
            "-u",
            URL + "/search?q=oak",
            "--batch",
            "--level",
            "1",
            "--risk",
            "1",
            "--flush-session",
            "--output-dir",
            lab.work / "sqlmap",
            "--timeout",
            "5",
        ],
        timeout=40,
    )
    tool(
        "sqlmap-random",
        "scanner",
        [
            "sqlmap",
            "-u",
            URL + "/search?q=oak&page=1",
            "--batch",
            "--random-agent",
            "--technique",
            "BEU",
            "--flush-session",
            "--output-dir",
            lab.work / "sqlmap2",
            "--timeout",
            "5",
        ],
        True,
        timeout=40,
    )
    python("probe-list", "scanner", "probe", agent="Mozilla/5.0 zgrab/0.x")
    python("probe-browser", "scanner", "probe", True, agent=win)
    python("probe-no-agent", "scanner", "probe", agent="")
    python(
        "probe-spread",
        "scanner",
        "probe",
        True,
        count_addresses=70,
        each=1,
        rotate=True,
        notes="one request from each of many addresses",
    )
    python(
        "probe-wordpress",
        "scanner",
        "probe",
        True,
        count_addresses=12,
        each=4,
        agent=win,
        paths=["/wp-login.php", "/xmlrpc.php", "/wp-json/wp/v2/users", "/wp-admin/setup-config.php"],
    )
    python(
        "scan-by-address",
        "scanner",
        "by_address",
        count_addresses=20,
        agent="Mozilla/5.0 (compatible; CensysInspect/1.1; +https://about.censys.io/)",
        notes="by address, not by name",
    )
    python(
        "scan-by-address-browser",
        "scanner",
        "by_address",
        True,
        count_addresses=15,
        agent=win,
        paths=["/.env"],
        notes="by address, not by name",
    )

    # Load tools, a few hundred requests each.
    tool("ab", "load", ["ab", "-n", "300", "-c", "5", URL + "/"])
    tool(
        "ab-agent",
        "load",
        ["ab", "-n", "200", "-c", "2", "-H", f"User-Agent: {win}", URL + "/product/copper-kettle/"],
        True,
    )
    tool("hey", "load", ["hey", "-n", "300", "-c", "5", URL + "/"])
    tool(
        "siege",
        "load",
        ["siege", "-c", "3", "-r", "5", "-b", "-q", "-f", lab.urls],
        notes="loads what pages name, too",
    )
    python(
        "load-browser",
        "load",
        "poll",
        True,
        agent=win,
        count=60,
        paths=["/", "/search?q=oak", "/category/garden/"],
        notes="slow load test",
    )

    # Login: stuffing and guessing.
    tool(
        "hydra",
        "stuffing",
        [
            "hydra",
            "-I",
            "-q",
            "-t",
            "4",
            "-L",
            lab.users,
            "-P",
            lab.passwords,
            "shop.example",
            "https-post-form",
            "/login:user=^USER^&password=^PASS^:Wrong",
        ],
    )
    python("stuffing-plain", "stuffing", "stuffing", count=150)
    python(
        "stuffing-api",
        "stuffing",
        "stuffing",
        count=80,
        path="/api/login",
        agent="okhttp/4.12.0",
        notes="an app's way to sign in; answers 401",
    )
    python(
        "stuffing-browser",
        "stuffing",
        "stuffing",
        True,
        count=120,
        agent=win,
        style="form",
        notes="gets the form first, sends a Referer",
    )
    python(
        "stuffing-rotating",
        "stuffing",
        "stuffing",
        True,
        count=100,
        rotate=True,
        style="browser",
        notes="a new agent and a browser's headers for each try",
    )
    python(
        "stuffing-spread",
        "stuffing",
        "stuffing",
        True,
        count_addresses=90,
        count=180,
        rotate=True,
        style="form",
        notes="two tries from each of many addresses",
    )
    python(
        "stuffing-spread-browser",
        "stuffing",
        "stuffing",
        True,
        count_addresses=60,
        count=120,
        rotate=True,
        style="browser",
    )
    python("stuffing-slow", "stuffing", "stuffing", True, count=25, agent=mac, style="browser", pause=[1, 2])

    # Crawlers and copiers from Debian.
    tool(
        "httrack",
        "crawler",
        [
            "httrack",
            URL + "/",
            "-O",
            lab.work / "httrack",
            "-r3",
            "-c4",
            "-%c10",
            "-%v0",
            "-q",
            "-A500000",
            "-E40",
            "-*",
            "+shop.example/*",
        ],
        timeout=60,
    )
    tool("wget-mirror", "crawler", ["wget", "-q", "-r", "-l", "2", "-P", lab.work / "wget", URL + "/"])
    tool(
        "wget-browser",
        "scraper",
        [
            "wget",
            "-q",
            "-p",
            "-r",
            "-l",
            "1",
            "-e",
            "robots=off",
            "-U",
            win,
            "-P",
            lab.work / "wget3",
            URL + "/",
        ],
        True,
        notes="with assets and Referer, in a browser's name",
    )
    tool(
        "wget2-mirror",
        "crawler",
        ["wget2", "-q", "-r", "-l", "2", "--max-threads=3", "-P", lab.work / "wget2", URL + "/"],
    )
    tool(
        "linkchecker",
        "crawler",
        ["linkchecker", "--no-status", "-r", "2", "-t", "2", "-o", "none", URL + "/"],
    )
    for program, options in (
        ("lynx", "-dump"),
        ("w3m", "-dump"),
        ("links", "-dump"),
        ("elinks", "-dump -no-home 1"),
    ):
        add(
            f"{program}-dump",
            "scraper",
            Job(
                [
                    "sh",
                    "-c",
                    f"for p in {' '.join(articles[:8])}; do {program} {options} {URL}$p >/dev/null 2>&1; done",
                ],
                needs=(program,),
            ),
        )
    tool(
        "aria2",
        "scraper",
        [
            "aria2c",
            "-q",
            "--async-dns=false",
            "-d",
            lab.work / "aria2",
            "--allow-overwrite=true",
            "-j",
            "3",
            "-i",
            lab.urls,
        ],
    )
    add(
        "curl-loop",
        "scraper",
        lambda where: Job(
            [
                "sh",
                "-c",
                f"for p in {' '.join(pages[:40])}; do curl -sko /dev/null --connect-to shop.example:443:{where[0]}:{lab.https_port} {URL}$p; done",
            ],
            hosts=False,
            needs=("curl",),
        ),
        short=True,
    )
    add(
        "curl-browser",
        "scraper",
        lambda where: Job(
            [
                "sh",
                "-c",
                f"for p in {' '.join(products)}; do curl -sko /dev/null --compressed -A '{win}' -e {URL}/ --connect-to shop.example:443:{where[0]}:{lab.https_port} {URL}$p; sleep 0.2; done",
            ],
            hosts=False,
            needs=("curl",),
        ),
        True,
        short=True,
    )
    add(
        "lwp",
        "scraper",
        Job(
            [
                "sh",
                "-c",
                f"for p in {' '.join(articles[:12])}; do lwp-request -m GET {URL}$p >/dev/null; done",
            ],
            needs=("lwp-request",),
        ),
    )
    scrapy = [
        lab.scrapy,
        "runspider",
        str(lab.here / "clients/spider.py"),
        "--nolog",
        "-s",
        "CLOSESPIDER_PAGECOUNT=90",
        "-s",
        "CONCURRENT_REQUESTS_PER_DOMAIN=3",
    ]
    tool("scrapy", "crawler", scrapy + ["-s", "ROBOTSTXT_OBEY=1", "-s", "DOWNLOAD_DELAY=0.05"])
    tool(
        "scrapy-browser",
        "scraper",
        scrapy + ["-s", f"USER_AGENT={win}", "-s", "DOWNLOAD_DELAY=0.1"],
        True,
        notes="sends a Referer, as Scrapy does",
    )
    tool(
        "scrapy-slow",
        "scraper",
        scrapy
        + [
            "-s",
            f"USER_AGENT={fox}",
            "-s",
            "DOWNLOAD_DELAY=0.6",
            "-s",
            "CLOSESPIDER_PAGECOUNT=40",
            "-s",
            "REFERER_ENABLED=0",
        ],
        True,
    )

    # Scrapers in Python, from plain to well disguised.
    python("requests", "scraper", "scrape", short=True)
    python("requests-browser", "scraper", "scrape", True, agent=win, short=True)
    python(
        "requests-browser-near-person",
        "scraper",
        "scrape",
        True,
        where=[addresses.near(neighbour)],
        agent=win,
        count=40,
        notes="in the /24 of a person",
    )
    script = "price-list/1.0 python-requests/2.34.2"
    python(
        "office-script",
        "scraper",
        "scrape",
        where=[office],
        agent=script,
        only_agent=script,
        count=25,
        notes="a script behind the office's address",
    )
    python("requests-browser-referrer", "scraper", "scrape", True, agent=mac, referrer=True, count=50)
    python(
        "requests-browser-styles",
        "scraper",
        "scrape",
        True,
        agent=win,
        referrer=True,
        load=[".css"],
        count=45,
        notes="Referer, and one style sheet",
    )
    python(
        "requests-browser-assets",
        "scraper",
        "scrape",
        True,
        agent=fox,
        referrer=True,
        load=[".css", ".js", ".png"],
        count=40,
        notes="Referer and all assets",
    )
    python(
        "requests-browser-slow",
        "scraper",
        "scrape",
        True,
        agent=win,
        referrer=True,
        count=25,
        pause=[0.8, 1.6],
    )
    python(
        "headers-by-hand",
        "scraper",
        "full_headers",
        True,
        notes="all headers of a browser, the same each time",
    )
    python(
        "headers-by-hand-referrer",
        "scraper",
        "full_headers",
        True,
        agent=win,
        referrer=True,
        load=[".css"],
        count=40,
    )
    python("urllib", "scraper", "urllib_scrape", pages=articles[:20])
    python("urllib-browser", "scraper", "urllib_scrape", True, pages=products, agent=win)
    python("httpx", "scraper", "httpx_scrape", pages=pages[:40])
    python("httpx-browser", "scraper", "httpx_scrape", True, pages=products + articles[:10], agent=mac)
    python("aiohttp", "scraper", "aiohttp_scrape", pages=pages)
    python("aiohttp-browser", "scraper", "aiohttp_scrape", True, pages=products + articles, agent=win)
    python(
        "curl-cffi-chrome",
        "scraper",
        "impersonate",
        True,
        browser="chrome",
        pages=products + articles[:15],
        notes="a browser's TLS and headers, no assets",
    )
    python("curl-cffi-safari", "scraper", "impersonate", True, browser="safari", pages=articles)
    python(
        "curl-cffi-assets",
        "scraper",
        "impersonate",
        True,
        browser="chrome",
        referrer=True,
        load=1,
        pages=products[:15],
        notes="and Referer and assets: as good as a browser in the log",
    )
    python("cloudscraper", "scraper", "cloudscraper_scrape", True, pages=products)
    python("news-reader", "scraper", "read_articles", notes="feed, then articles (feedparser, trafilatura)")
    python(
        "spread-plain",
        "scraper",
        "spread",
        True,
        count_addresses=80,
        pages=products + articles,
        notes="one request from each address, a new agent each time",
    )
    python(
        "spread-headers",
        "scraper",
        "spread",
        True,
        count_addresses=60,
        pages=products + articles,
        headers=1,
        engine_referrer=1,
        notes="one request from each address, as if from a search engine",
    )
    python(
        "spread-few",
        "scraper",
        "spread",
        True,
        count_addresses=30,
        each=4,
        pages=products + articles,
        headers=1,
    )
    python(
        "spread-styles",
        "scraper",
        "spread",
        True,
        count_addresses=25,
        each=2,
        load=2,
        pages=products,
        headers=1,
        notes="two pages and the first two assets from each address",
    )
    python(
        "api-prices",
        "scraper",
        "poll",
        count=50,
        paths=["/api/products", "/api/reviews?item=copper-kettle"],
        agent="okhttp/4.12.0",
        notes="an app's or a competitor's script",
    )
    python(
        "api-browser",
        "scraper",
        "poll",
        True,
        count=50,
        paths=["/api/products", "/api/reviews?item=oak-apron"],
        agent=win,
        referrer=True,
    )
    python("stock-watch", "scraper", "poll", True, count=40, paths=["/product/oak-mirror/"], agent=mac)
    python(
        "search-harvest",
        "scraper",
        "poll",
        True,
        count=40,
        paths=[f"/search?q={w}" for w in ("oak", "copper", "linen", "garden", "winter", "clock", "basket")],
        agent=fox,
    )
    python("image-harvest", "scraper", "images", True, pages=pages, agent=win)
    python("form-spam", "spam", "spam", True, pages=articles, agent=win)
    add(
        "go-like",
        "scraper",
        lambda where: Job(
            [
                "sh",
                "-c",
                f"for p in {' '.join(products[:12])}; do curl -sko /dev/null -A Go-http-client/1.1 -H 'Accept:' -H 'Accept-Encoding: gzip' --connect-to shop.example:443:{where[0]}:{lab.https_port} {URL}$p; done",
            ],
            hosts=False,
            needs=("curl",),
        ),
        notes="curl with the headers of Go's client",
    )

    # Crawlers that say who they are; only their agents are theirs.
    for name, agent, options in (
        (
            "gptbot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            {"count": 40, "many": 4},
        ),
        (
            "claudebot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)",
            {"count": 30, "many": 3},
        ),
        ("ccbot", "CCBot/2.0 (https://commoncrawl.org/faq/)", {"count": 40}),
        (
            "bytespider",
            "Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Mobile Safari/537.36 (compatible; Bytespider; spider-feedback@bytedance.com)",
            {"count": 40, "many": 6, "robots": False, "sitemap": False, "pages": pages},
        ),
        (
            "perplexitybot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)",
            {"count": 15},
        ),
        (
            "amazonbot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Amazonbot/0.1; +https://developer.amazon.com/support/amazonbot) Chrome/119.0.6045.214 Safari/537.36",
            {"count": 30, "many": 5},
        ),
        (
            "googlebot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/155.0.0.0 Safari/537.36",
            {"count": 50, "images": True},
        ),
        (
            "bingbot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/136.0.0.0 Safari/537.36",
            {"count": 40},
        ),
        (
            "ahrefsbot",
            "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
            {"count": 50, "many": 5},
        ),
        (
            "semrushbot",
            "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
            {"count": 50},
        ),
        (
            "applebot",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1.1 Safari/605.1.15 (Applebot/0.1; +http://www.apple.com/go/applebot)",
            {"count": 20},
        ),
        ("yandexbot", "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", {"count": 25}),
        ("mj12bot", "Mozilla/5.0 (compatible; MJ12bot/v1.4.8; http://mj12bot.com/)", {"count": 30}),
        ("nutch", "Nutch-1.20 (lab@shop.example)", {"count": 30}),
    ):
        many = options.pop("many", 1)
        where = [addresses.one()]
        while len(where) < many:
            where.append(addresses.near(where[-1]))
        python(
            name,
            "declared",
            "declared",
            where=where,
            agent=agent,
            notes="only its agent is that crawler's",
            **options,
        )
    for name, agent, images in (
        ("facebook", "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", True),
        ("slack", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", False),
        ("twitter", "Twitterbot/1.0", True),
        (
            "chatgpt-user",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
            False,
        ),
        (
            "claude-user",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Claude-User/1.0; +Claude-User@anthropic.com)",
            False,
        ),
        ("telegram", "TelegramBot (like TwitterBot)", False),
        ("whatsapp", "WhatsApp/2.23.20.0", True),
    ):
        python(
            f"preview-{name}",
            "declared",
            "preview",
            count_addresses=4,
            agent=agent,
            images=images,
            pages=articles + products,
        )
    python("feed-freshrss", "feed", "feed", agent="FreshRSS/1.26.0 (Linux; https://freshrss.org)")
    python(
        "feed-feedly",
        "feed",
        "feed",
        agent="Feedly/1.0 (+https://feedly.com/poller.html; 12 subscribers; like FeedFetcher-Google)",
    )
    python(
        "feed-netnewswire",
        "feed",
        "feed",
        agent="NetNewsWire (RSS Reader; https://netnewswire.com/)",
        count=5,
    )
    python("feed-browser", "feed", "feed", True, agent=win, notes="a reader with a browser's agent")
    add(
        "newsboat",
        "feed",
        Job(
            [
                "sh",
                "-c",
                f"for i in 1 2 3; do newsboat -u '{lab.feeds}' -c '{lab.work}/newsboat.db' -C '{lab.newsboat}' -x reload; sleep 1; done",
            ],
            needs=("newsboat",),
        ),
    )
    python(
        "monitor-uptimerobot",
        "monitor",
        "monitor",
        count_addresses=4,
        method="HEAD",
        agent="Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    )
    python(
        "monitor-browser",
        "monitor",
        "monitor",
        True,
        agent=win,
        count=15,
        notes="a monitor with a browser's agent",
    )
    add(
        "check-http",
        "monitor",
        Job(
            [
                "sh",
                "-c",
                "for i in 1 2 3 4 5 6 7 8; do /usr/lib/nagios/plugins/check_http -H shop.example -S -u / >/dev/null; sleep 0.5; done",
            ],
            needs=("/usr/lib/nagios/plugins/check_http",),
        ),
    )

    # Robots that drive a browser.
    headless("playwright", "playwright", False, products[:12], "as it comes: says HeadlessChrome")
    headless(
        "playwright-agent",
        "playwright-agent",
        True,
        products[:12] + articles[:6],
        "with a person's agent",
        agent=agents.win(),
    )
    headless(
        "playwright-no-assets",
        "playwright-no-assets",
        True,
        articles[:20],
        "images and styles blocked",
        agent=win,
    )
    headless(
        "playwright-clicks",
        "playwright-clicks",
        True,
        articles[:14],
        "follows links: driven well",
        agent=agents.mac(),
    )
    headless("playwright-slow", "playwright-agent", True, products[:8], "slow", pause=1.5, agent=win)
    headless("puppeteer", "puppeteer", False, articles[:12], "as it comes")
    headless("puppeteer-stealth", "puppeteer-stealth", True, products[:14], "hides that it is one")
    headless(
        "firefox-headless",
        "firefox",
        True,
        articles[:10],
        "its agent is that of a person's",
        engine="firefox-esr",
    )
    python("selenium", "headless", "selenium_walk", pages=products[:10], needs=("chromedriver", "chromium"))
    python(
        "selenium-agent",
        "headless",
        "selenium_walk",
        True,
        pages=articles[:10],
        agent=win,
        needs=("chromedriver", "chromium"),
    )
    add(
        "chromium-dump",
        "headless",
        lambda where: Job(
            [
                "sh",
                "-c",
                f"for p in {' '.join(articles[:5])}; do chromium --headless --no-sandbox --disable-gpu --ignore-certificate-errors --user-data-dir='{lab.work}/dump' --host-resolver-rules='MAP * {where[0]}:{lab.https_port}' --dump-dom {URL}$p >/dev/null 2>&1; done",
            ],
            hosts=False,
            needs=("chromium",),
        ),
    )
    add(
        "chromium-screenshots",
        "headless",
        lambda where: [
            Job(
                [
                    "sh",
                    "-c",
                    f"chromium --headless --no-sandbox --disable-gpu --ignore-certificate-errors --user-agent='{win}' --user-data-dir='{lab.work}/shot{i}' --host-resolver-rules='MAP * {a}:{lab.https_port}' --screenshot='{lab.work}/shot.png' {URL}/ >/dev/null 2>&1",
                ],
                hosts=False,
                needs=("chromium",),
            )
            for i, a in enumerate(where)
        ],
        True,
        where=addresses.many(4),
        notes="one page from each address",
    )
    return robots


def build(lab):
    addresses, agents = Addresses(), Agents()
    people, neighbour, office = _people(lab, addresses, agents)
    return people + _robots(lab, addresses, agents, neighbour, office)
