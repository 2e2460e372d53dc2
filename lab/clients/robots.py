"""Robots in Python: robots.py '{"mode": "scrape", "addresses": ["127.1.2.3"], "port": 443, …}'

Each mode is one function. A robot with several addresses takes the next one for each request (or each session); the name
of the site is resolved here, so that no hosts file is needed.
"""

import json
import random
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import ssl
import xml.etree.ElementTree

WHO = json.loads(sys.argv[1])
HOST = "shop.example"
ORIGIN = f"https://{HOST}"
RNG = random.Random(WHO.get("seed", 1))
THINK = WHO.get("think", 1)
NOW = {"address": WHO["addresses"][0]}

_real = socket.getaddrinfo


def _mapped(host, port, *args, **kwargs):
    """All names lead to the robot's present address; nothing else can be reached."""
    kwargs.pop("family", None)
    return _real(
        NOW["address"],
        WHO["port"] if port == 443 else (WHO["http_port"] if port == 80 else port),
        socket.AF_INET,
        socket.SOCK_STREAM,
    )


socket.getaddrinfo = _mapped
CONTEXT = ssl._create_unverified_context()

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
AGENTS = [CHROME.format(v) for v in (155, 156, 154, 149, 142, 131, 120)] + [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/155.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:152.0) Gecko/20100101 Firefox/152.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/155.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/155.0.0.0 Safari/537.36 Edg/155.0.0.0",
]
PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"


def pause(low, high=None):
    time.sleep(THINK * RNG.uniform(low, high or low))


def session(agent=None, headers=None):
    import requests
    import urllib3

    urllib3.disable_warnings()
    made = requests.Session()
    made.verify = False
    made.trust_env = False
    if agent:
        made.headers["User-Agent"] = agent
    made.headers.update(headers or {})
    return made


def links(text, base="/"):
    found = re.findall(r'href="(/[^"#]*)"', text)
    return [
        f
        for f in dict.fromkeys(found)
        if not f.startswith("/static") and not f.endswith((".ico", ".webmanifest"))
    ]


def assets(text):
    return [f for f in dict.fromkeys(re.findall(r'(?:src|href)="(/[^"]+\.(?:png|css|js|ico))"', text))]


def get(s, where, **kwargs):
    try:
        return s.get(ORIGIN + where, timeout=10, **kwargs)
    except Exception as error:  # A robot goes on.
        print("failed", where, error, file=sys.stderr)
        return None


def walk(s, count, referrer=False, load=(), low=0.0, high=0.05):
    """Breadth first from the home page; with `referrer` says where each link was found; `load` names asset suffixes."""
    queue, seen, loaded = [("/", None)], {"/"}, set()
    while queue and count > 0:
        where, source = queue.pop(0)
        headers = {"Referer": ORIGIN + source} if referrer and source else {}
        answer = get(s, where, headers=headers)
        count -= 1
        if answer is None or "html" not in answer.headers.get("Content-Type", ""):
            continue
        for asset in assets(answer.text):
            if asset.endswith(tuple(load)) and load and asset not in loaded:
                loaded.add(asset)
                get(s, asset, headers={"Referer": ORIGIN + where, "Accept": "*/*"} if referrer else {})
        for link in links(answer.text):
            if link not in seen:
                seen.add(link)
                queue.append((link, where))
        pause(low, high)


def scrape():
    """python-requests as it comes, or with another agent, with or without Referer and assets."""
    s = session(WHO.get("agent"), WHO.get("headers"))
    walk(
        s, WHO.get("count", 60), WHO.get("referrer", False), WHO.get("load", ()), *WHO.get("pause", (0, 0.05))
    )


def full_headers():
    """A browser's headers typed in by hand: the same for each request, as such scrapers have it."""
    s = session(
        WHO.get("agent", AGENTS[0]),
        {
            "Accept": PAGE,
            "Accept-Language": "en-US,en;q=0.9",
            "Accept-Encoding": "gzip, deflate, br",
            "Upgrade-Insecure-Requests": "1",
            "Sec-Fetch-Site": "none",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
            "Sec-CH-UA": '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"',
            "Sec-CH-UA-Mobile": "?0",
            "Sec-CH-UA-Platform": '"Windows"',
        },
    )
    walk(s, WHO.get("count", 50), WHO.get("referrer", False), WHO.get("load", ()), 0.02, 0.2)


def declared():
    """A crawler with its own name: robots.txt, the site map, then pages, from one or more addresses."""
    s = session(
        WHO["agent"],
        {
            "Accept": WHO.get("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            "Accept-Encoding": "gzip, deflate",
        },
    )
    pages = WHO.get("pages", ["/"])
    if WHO.get("robots", True):
        get(s, "/robots.txt")
    if WHO.get("sitemap", True):
        answer = get(s, "/sitemap.xml")
        if answer is not None:
            pages = re.findall(r"<loc>" + ORIGIN + r"([^<]*)</loc>", answer.text)
            RNG.shuffle(pages)
    s.close()
    for number, where in enumerate(pages[: WHO.get("count", 30)]):
        NOW["address"] = WHO["addresses"][number % len(WHO["addresses"])]
        if len(WHO["addresses"]) > 1:
            s.close()
        answer = get(s, where)
        if WHO.get("images") and answer is not None:
            for asset in assets(answer.text)[:3]:
                get(s, asset)
        pause(0.05, 0.4)


def preview():
    """What a messenger fetches when somebody posts a link: one page, often its first image."""
    for address in WHO["addresses"]:
        NOW["address"] = address
        s = session(WHO["agent"], {"Accept": "*/*"})
        answer = get(s, RNG.choice(WHO.get("pages", ["/"])))
        if WHO.get("images") and answer is not None:
            get(s, [a for a in assets(answer.text) if a.startswith("/images")][0])
        pause(0.5, 2)


def urllib_scrape():
    for where in WHO["pages"]:
        try:
            urllib.request.urlopen(
                urllib.request.Request(
                    ORIGIN + where, headers={"User-Agent": WHO["agent"]} if WHO.get("agent") else {}
                ),
                context=CONTEXT,
                timeout=10,
            ).read()
        except urllib.error.URLError:
            pass


def httpx_scrape():
    import httpx

    with httpx.Client(
        http2=True,
        verify=False,
        trust_env=False,
        headers={"User-Agent": WHO["agent"]} if WHO.get("agent") else {},
    ) as client:
        for where in WHO["pages"]:
            client.get(ORIGIN + where)
            pause(0, 0.1)


def aiohttp_scrape():
    import asyncio

    import aiohttp

    async def fetch(client, where, limit):
        async with limit, client.get(ORIGIN + where, ssl=False) as answer:
            await answer.read()

    async def main():
        resolver = aiohttp.ThreadedResolver()
        headers = {"User-Agent": WHO["agent"]} if WHO.get("agent") else {}
        limit = asyncio.Semaphore(5)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver), headers=headers
        ) as client:
            await asyncio.gather(*(fetch(client, where, limit) for where in WHO["pages"]))

    asyncio.run(main())


def impersonate():
    """curl_cffi: a browser's TLS and headers without a browser."""
    from curl_cffi import CurlOpt, requests

    options = {
        CurlOpt.RESOLVE: [f"{HOST}:443:{WHO['addresses'][0]}"]
    }  # It takes no other port: see actors.py.
    client = requests.Session(impersonate=WHO["browser"], verify=False, curl_options=options)
    before, done = None, set()
    for where in WHO["pages"]:
        headers = (
            {"Referer": ORIGIN + before, "Sec-Fetch-Site": "same-origin"}
            if WHO.get("referrer") and before
            else {}
        )
        text = client.get(ORIGIN + where, headers=headers).text
        if WHO.get("load"):
            for asset in assets(text):
                if asset not in done:
                    done.add(asset)
                    client.get(
                        ORIGIN + asset,
                        headers={
                            "Referer": ORIGIN + where,
                            "Sec-Fetch-Site": "same-origin",
                            "Sec-Fetch-Mode": "no-cors",
                            "Sec-Fetch-Dest": "image" if asset.endswith("png") else "script",
                            "Accept": "*/*",
                        },
                    )
        before = where
        pause(0.05, 0.5)


def cloudscraper_scrape():
    import cloudscraper
    import urllib3

    urllib3.disable_warnings()
    s = cloudscraper.create_scraper()
    s.trust_env = False
    for where in WHO["pages"]:
        try:
            s.get(ORIGIN + where, timeout=10)
        except Exception as error:
            print("failed", where, error, file=sys.stderr)
        pause(0.1, 0.3)


def read_articles():
    """trafilatura and feedparser: reads the feed, then the text of what is in it."""
    import feedparser
    import trafilatura

    s = session(WHO.get("agent"))
    feed = feedparser.parse(get(s, "/feed.xml").content)
    for entry in feed.entries[: WHO.get("count", 10)]:
        trafilatura.extract(get(s, urllib.parse.urlsplit(entry.link).path).text)
        pause(0.1, 0.3)


def feed():
    """A feed reader: asks for the feed again and again, with the validators of the last answer."""
    s, headers = (
        session(
            WHO["agent"],
            {"Accept": "application/rss+xml, application/atom+xml, application/xml;q=0.9, */*;q=0.1"},
        ),
        {},
    )
    for _ in range(WHO.get("count", 8)):
        answer = get(s, "/feed.xml", headers=headers)
        if answer is not None and answer.headers.get("ETag"):
            headers = {
                "If-None-Match": answer.headers["ETag"],
                "If-Modified-Since": answer.headers.get("Last-Modified", ""),
            }
        pause(1, 2)


def monitor():
    s = session(WHO["agent"], {"Accept": "*/*"})
    for number in range(WHO.get("count", 12)):
        NOW["address"] = WHO["addresses"][number % len(WHO["addresses"])]
        try:
            s.request(WHO.get("method", "GET"), ORIGIN + WHO.get("path", "/"), timeout=10)
        except Exception as error:
            print("failed", error, file=sys.stderr)
        if len(WHO["addresses"]) > 1:
            s.close()
        pause(0.5, 1)


def stuffing():
    """Names and passwords against the login: from one or many addresses, plainly or in a browser's clothes."""
    style = WHO.get("style", "plain")
    for number in range(WHO.get("count", 120)):
        NOW["address"] = WHO["addresses"][number % len(WHO["addresses"])]
        agent = RNG.choice(AGENTS) if WHO.get("rotate") else WHO.get("agent")
        if number == 0 or len(WHO["addresses"]) > 1 or WHO.get("rotate"):
            s = session(agent)
        if style in ("form", "browser"):
            get(s, "/login", headers={"Accept": PAGE} if style == "browser" else {})
        headers = {}
        if style != "plain":
            headers = {"Referer": ORIGIN + "/login", "Origin": ORIGIN}
        if style == "browser":
            headers |= {
                "Accept": PAGE,
                "Accept-Language": "en-US,en;q=0.9",
                "Sec-Fetch-Site": "same-origin",
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "document",
            }
        try:
            s.post(
                ORIGIN + WHO.get("path", "/login"),
                data={"user": f"user{number}@{HOST}", "password": f"secret{number}"},
                headers=headers,
                timeout=10,
                allow_redirects=False,
            )
        except Exception as error:
            print("failed", error, file=sys.stderr)
        pause(*WHO.get("pause", (0, 0.03)))


PROBES = [
    "/.env",
    "/.git/config",
    "/wp-login.php",
    "/wp-admin/",
    "/xmlrpc.php",
    "/wp-content/plugins/",
    "/phpmyadmin/",
    "/admin/",
    "/actuator/env",
    "/actuator/health",
    "/.aws/credentials",
    "/config.json",
    "/backup.zip",
    "/db.sql",
    "/server-status",
    "/cgi-bin/luci",
    "/owa/",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/api/v1/users",
    "/console/",
    "/solr/admin/info/system",
    "/HNAP1",
    "/boaform/admin/formLogin",
    "/.DS_Store",
    "/wp-config.php.bak",
    "/info.php",
    "/telescope/requests",
    "/_ignition/execute-solution",
    "/debug/default/view",
    "/login.action",
    "/manager/html",
    "/.vscode/sftp.json",
    "/wp-json/wp/v2/users",
    "/?author=1",
    "/index.php?s=/index/think/app/invokefunction",
]


def probe():
    """Asks for what should not be there: a list from one address, or one or few requests from each of many."""
    order = PROBES[:]
    RNG.shuffle(order)
    if WHO.get("paths"):
        order = WHO["paths"]
    each = WHO.get("each", 0)
    number = 0
    for address in WHO["addresses"]:
        NOW["address"] = address
        agent = RNG.choice(AGENTS) if WHO.get("rotate") else WHO.get("agent")
        s = session(agent, WHO.get("headers"))
        if agent == "":
            import urllib3

            s.headers["User-Agent"] = urllib3.util.SKIP_HEADER
        for _ in range(each or len(order)):
            get(s, order[number % len(order)], allow_redirects=False)
            number += 1
            pause(0, 0.05)


def by_address():
    """Scans address ranges: asks by address instead of by name, over HTTP and HTTPS."""
    for address in WHO["addresses"]:
        NOW["address"] = address
        s = session(WHO["agent"])
        for where in [f"http://{address}/", f"https://{address}/"] + [
            f"https://{address}{p}" for p in WHO.get("paths", [])
        ]:
            try:
                s.get(where, timeout=5, allow_redirects=False)
            except Exception as error:
                print("failed", where, error, file=sys.stderr)
        pause(0.1, 0.3)


def spread():
    """A scraper behind many addresses (a network of homes): few pages from each, each time with another browser's agent."""
    pages = WHO["pages"]
    for number, address in enumerate(WHO["addresses"]):
        NOW["address"] = address
        headers = {"Accept": PAGE, "Accept-Language": "en-US,en;q=0.9"} if WHO.get("headers") else {}
        if WHO.get("engine_referrer"):
            headers["Referer"] = "https://www.google.com/"
        s = session(RNG.choice(AGENTS), headers)
        for step in range(WHO.get("each", 1)):
            answer = get(s, pages[(number * WHO.get("each", 1) + step) % len(pages)])
            if WHO.get("load") and answer is not None:
                for asset in assets(answer.text)[: WHO["load"]]:
                    get(s, asset)
        pause(0.02, 0.3)


def poll():
    """Watches prices or stock: the same few addresses of the site again and again."""
    s = session(WHO.get("agent"), WHO.get("headers"))
    for number in range(WHO.get("count", 40)):
        get(
            s,
            WHO["paths"][number % len(WHO["paths"])],
            headers={"Referer": ORIGIN + WHO["paths"][0]} if WHO.get("referrer") else {},
        )
        pause(0.3, 0.8)


def images():
    """Fetches pictures only."""
    s = session(WHO["agent"])
    names = [
        urllib.parse.urlsplit(p).path.strip("/").split("/")[-1]
        for p in WHO["pages"]
        if p.startswith("/product/")
    ]
    for name in names:
        get(s, f"/images/{name}-large.png")
        pause(0.02, 0.1)


def spam():
    """Posts to forms without reading."""
    s = session(WHO["agent"])
    for number in range(WHO.get("count", 25)):
        where = WHO["pages"][number % len(WHO["pages"])]
        get(s, where)
        try:
            s.post(
                ORIGIN + ("/contact/" if number % 2 else "/cart"),
                data={"text": "buy " * 10, "item": "x"},
                headers={"Referer": ORIGIN + where},
                timeout=10,
                allow_redirects=False,
            )
        except Exception as error:
            print("failed", error, file=sys.stderr)
        pause(0.05, 0.2)


def selenium_walk():
    """Selenium with Debian's chromedriver, as it comes."""
    from selenium import webdriver

    socket.getaddrinfo = _real
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    to = WHO["addresses"][0] if WHO["port"] == 443 else f"{WHO['addresses'][0]}:{WHO['port']}"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--ignore-certificate-errors",
        f"--host-resolver-rules=MAP {HOST} {to}",
    ):
        options.add_argument(argument)
    if WHO.get("agent"):
        options.add_argument(f"--user-agent={WHO['agent']}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        for where in WHO["pages"]:
            driver.get(ORIGIN + where)
            pause(0.2, 0.5)
    finally:
        driver.quit()


if __name__ == "__main__":
    globals()[WHO["mode"]]()
