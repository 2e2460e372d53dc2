"""The lab's site, a small made-up shop with a blog: its files, and the backend for what is not a file.

Everything is made from a seed, so that each run serves the same site. `build(folder)` writes the files and returns the
pages; `serve()` starts the backend in a thread.
"""

import html
import http.server
import json
import pathlib
import random
import socketserver
import struct
import threading
import time
import urllib.parse
import zlib

HOST = "shop.example"
ORIGIN = f"https://{HOST}"
SEARCH_HOSTS = ("www.google.com", "www.bing.com", "duckduckgo.com", "forum.example")
ACCOUNTS = {
    f"{name}@{HOST}": f"{name}-{len(name)}-secret"
    for name in ("ada", "ben", "chloe", "dan", "eva", "finn", "gus", "hana")
}

_THINGS = (
    "kettle",
    "lantern",
    "notebook",
    "trowel",
    "apron",
    "teapot",
    "stool",
    "basket",
    "clock",
    "blanket",
    "mirror",
    "vase",
    "ladder",
    "brush",
    "compass",
    "hammock",
    "candle",
    "satchel",
    "whistle",
    "thermos",
)
_ADJECTIVES = (
    "copper",
    "folding",
    "linen",
    "oak",
    "enamel",
    "striped",
    "pocket",
    "woven",
    "garden",
    "winter",
)
_TOPICS = ("repairing", "choosing", "cleaning", "a-history-of", "storing", "painting")
_CATEGORIES = ("kitchen", "garden", "travel", "home")
_WORDS = (
    "the workshop handle morning rain we found that a good joint holds its shape for years and asks little in return "
    "wood copper glass thread paper clay warm light slow careful small gift market river road winter spring table "
    "window people often ask how to keep things well and the answer is mostly to use them"
).split()


def _png(width, height, rng):
    """A PNG of one colour with noise, so that images have different sizes."""
    base = [rng.randrange(256) for _ in range(3)]
    rows = b"".join(
        b"\0" + bytes((base[i % 3] + rng.randrange(24)) % 256 for i in range(width * 3))
        for _ in range(height)
    )

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def catalogue():
    """Products and articles as (slug, title) lists."""
    products = [f"{_ADJECTIVES[i % len(_ADJECTIVES)]}-{thing}" for i, thing in enumerate(_THINGS)]
    articles = [f"{_TOPICS[i % len(_TOPICS)]}-{_THINGS[(i * 7) % len(_THINGS)]}s" for i in range(26)]
    title = lambda slug: slug.replace("-", " ").capitalize()
    return [(s, title(s)) for s in products], [(s, title(s)) for s in articles]


def _text(rng, sentences):
    out = []
    for _ in range(sentences):
        words = [rng.choice(_WORDS) for _ in range(rng.randint(8, 18))]
        out.append(" ".join(words).capitalize() + ".")
    return " ".join(out)


def page(title, body, head=""):
    """The frame that all pages share: one style sheet, two scripts, a font by the style sheet, a logo, a feed."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)} – The Small Shop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/static/site.css"><link rel="icon" href="/favicon.ico">
<link rel="alternate" type="application/rss+xml" href="/feed.xml"><link rel="manifest" href="/site.webmanifest">
<script src="/static/site.js" defer></script><script src="/static/count.js" defer></script>{head}</head>
<body><header><a href="/"><img src="/static/logo.png" alt="The Small Shop" width="96" height="32"></a>
<nav><a href="/blog/">Blog</a> {" ".join(f'<a href="/category/{c}/">{c.capitalize()}</a>' for c in _CATEGORIES)}
<a href="/about/">About</a> <a href="/contact/">Contact</a> <a href="/login">Sign in</a> <a href="/cart">Cart</a></nav>
<form class="search" action="/search"><input name="q" aria-label="Search"><button>Search</button></form></header>
<main>{body}</main><footer><a href="/imprint/">Imprint</a> <a href="/privacy/">Privacy</a>
<a href="/old/spring-sale">Sale</a></footer></body></html>"""


def build(folder):
    """Writes the site to `folder`; returns the paths of its pages."""
    folder = pathlib.Path(folder)
    rng = random.Random(14)
    products, articles = catalogue()
    pages = []

    def put(path, content):
        target = folder / path.lstrip("/")
        if path.endswith("/"):
            target = target / "index.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def put_page(path, title, body, head=""):
        pages.append(path)
        put(path, page(title, body, head))

    def card(kind, slug, title):
        return (
            f'<article class="card"><a href="/{kind}/{slug}/"><img loading="lazy" src="/images/{slug}.png" width="160" '
            f'height="120" alt=""><h3>{title}</h3></a><p>{_text(rng, 1)}</p></article>'
        )

    for index, (slug, title) in enumerate(products):
        put(f"/images/{slug}.png", _png(40 + index, 30, rng))
        put(f"/images/{slug}-large.png", _png(120, 90, rng))
        others = rng.sample([p for p in products if p[0] != slug], 3)
        put_page(
            f"/product/{slug}/",
            title,
            f'<h1>{title}</h1><img src="/images/{slug}-large.png" width="480" height="360" alt="{title}">'
            f'<p>{_text(rng, 4)}</p><p class="price">{rng.randint(4, 90)}.00</p>'
            f'<form method="post" action="/cart"><input type="hidden" name="item" value="{slug}"><button>Add</button></form>'
            f'<div id="reviews" data-item="{slug}"></div><h2>Others bought</h2>'
            + "".join(card("product", *p) for p in others),
        )
    for slug, title in articles:
        put(f"/images/{slug}.png", _png(80, 60, rng))
        links = rng.sample(articles, 3)
        item = rng.choice(products)
        put_page(
            f"/blog/{slug}/",
            title,
            f'<h1>{title}</h1><img src="/images/{slug}.png" width="480" height="320" alt="">'
            + "".join(f"<p>{_text(rng, 5)}</p>" for _ in range(rng.randint(4, 9)))
            + f'<p>See our <a href="/product/{item[0]}/">{item[1]}</a>.</p>'
            # Some links lead nowhere, as on every site.
            + (
                f'<p>More in <a href="/blog/old-{slug}/">an older article</a>.</p>'
                if slug.startswith(("storing", "choosing"))
                else ""
            )
            + "".join(card("blog", *a) for a in links),
        )
    for number in range(3):
        part = articles[number * 10 : (number + 1) * 10]
        path = "/blog/" if number == 0 else f"/blog/page/{number + 1}/"
        more = f'<a class="next" href="/blog/page/{number + 2}/">Older</a>' if number < 2 else ""
        put_page(path, "Blog", "<h1>Blog</h1>" + "".join(card("blog", *a) for a in part) + more)
    for index, name in enumerate(_CATEGORIES):
        part = products[index * 5 : (index + 1) * 5]
        put_page(
            f"/category/{name}/",
            name.capitalize(),
            f"<h1>{name.capitalize()}</h1>" + "".join(card("product", *p) for p in part),
        )
    for name in ("about", "contact", "imprint", "privacy"):
        put_page(
            f"/{name}/",
            name.capitalize(),
            f"<h1>{name.capitalize()}</h1><p>{_text(rng, 8)}</p>"
            + (
                '<img src="/images/team.png" width="40" height="40" alt="">'
                if name in ("about", "contact")
                else ""
            )
            + ('<a href="/files/catalogue.pdf">Catalogue</a>' if name == "about" else ""),
        )
    put_page(
        "/",
        "Home",
        '<h1>The Small Shop</h1><img src="/images/front.png" width="640" height="240" alt="">'
        + "".join(card("product", *p) for p in products[::4])
        + "<h2>From the blog</h2>"
        + "".join(card("blog", *a) for a in articles[:6]),
    )
    put("/images/front.png", _png(200, 80, rng))
    put("/static/logo.png", _png(96, 32, rng))
    put("/favicon.ico", _png(16, 16, rng))
    put("/apple-touch-icon.png", _png(64, 64, rng))
    # Placeholders: a browser asks for them, which is what counts here.
    put("/static/text.woff2", b"wOF2" + bytes(rng.randrange(256) for _ in range(4000)))
    put("/files/catalogue.pdf", b"%PDF-1.4\n" + bytes(rng.randrange(256) for _ in range(8000)))
    put(
        "/static/site.css",
        "@font-face{font-family:Text;src:url(/static/text.woff2) format('woff2');font-display:swap}"
        "body{font-family:Text,sans-serif;max-width:60rem;margin:auto;line-height:1.6}.card{min-height:20rem}"
        "header{background:url(/static/paper.png)}nav a{padding:.3rem}",
    )
    put("/static/paper.png", _png(32, 32, rng))
    put(
        "/static/site.js",
        """
const box = document.getElementById('reviews');
if (box) fetch('/api/reviews?item=' + box.dataset.item).then(r => r.json()).then(list => {
  box.innerHTML = list.map(r => '<p>' + r + '</p>').join('');
});
const field = document.querySelector('.search input');
let wait;
field.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(() => fetch('/api/suggest?q=' + encodeURIComponent(field.value)), 150); });
if (document.body.querySelector('.dashboard')) setInterval(() => fetch('/api/orders?since=' + Date.now()), 1000);
""",
    )
    put(
        "/static/count.js",
        "navigator.sendBeacon && navigator.sendBeacon('/api/event', JSON.stringify({page: location.pathname}));",
    )
    put(
        "/site.webmanifest",
        json.dumps(
            {
                "name": "The Small Shop",
                "icons": [{"src": "/apple-touch-icon.png", "sizes": "64x64", "type": "image/png"}],
            }
        ),
    )
    put(
        "/robots.txt",
        f"User-agent: *\nDisallow: /cart\nDisallow: /account\nCrawl-delay: 1\nSitemap: {ORIGIN}/sitemap.xml\n",
    )
    put(
        "/sitemap.xml",
        '<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        + "".join(f"<url><loc>{ORIGIN}{p}</loc></url>" for p in sorted(pages))
        + "</urlset>",
    )
    put(
        "/feed.xml",
        f'<?xml version="1.0"?><rss version="2.0"><channel><title>The Small Shop</title><link>{ORIGIN}/</link>'
        "<description>News</description>"
        + "".join(
            f"<item><title>{t}</title><link>{ORIGIN}/blog/{s}/</link><guid>{ORIGIN}/blog/{s}/</guid></item>"
            for s, t in articles[:10]
        )
        + "</channel></rss>",
    )
    put("/404.html", page("Not found", "<h1>Not found</h1>"))
    return sorted(pages)


class _Backend(http.server.BaseHTTPRequestHandler):
    """Search, login, cart, account, API and the search engines' result pages."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status, body, kind="text/html; charset=utf-8", headers=()):
        data = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _form(self):
        length = int(self.headers.get("Content-Length") or 0)
        return {
            k: v[0]
            for k, v in urllib.parse.parse_qs(
                self.rfile.read(min(length, 1 << 16)).decode("utf-8", "replace")
            ).items()
        }

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        host = self.headers.get("X-Lab-Host", HOST)
        if host in SEARCH_HOSTS:
            # A result page: the one link that a person follows from a search engine to the site.
            target = query.get("to", "/")
            return self._answer(
                200,
                f'<!doctype html><title>{host}</title><a id="hit" href="{html.escape(ORIGIN + target)}">Result</a>',
            )
        products, articles = catalogue()
        path = url.path
        if path == "/search":
            word = query.get("q", "").lower()
            hits = [("product", s, t) for s, t in products if word and word in s] + [
                ("blog", s, t) for s, t in articles if word and word in s
            ]
            items = "".join(
                f'<li><a href="/{k}/{s}/"><img loading="lazy" src="/images/{s}.png" width="80" height="60" alt="">{t}</a></li>'
                for k, s, t in hits[:10]
            )
            return self._answer(
                200,
                page(
                    "Search",
                    f"<h1>Search</h1><p>{len(hits)} found for {html.escape(word)}</p><ul>{items}</ul>",
                ),
            )
        if path == "/login":
            return self._answer(200, page("Sign in", self._login_form()))
        if path == "/account":
            if "session=" not in (self.headers.get("Cookie") or ""):
                return self._answer(302, "", headers=[("Location", "/login")])
            return self._answer(200, page("Account", '<h1>Orders</h1><div class="dashboard"></div>'))
        if path == "/cart":
            return self._answer(200, page("Cart", "<h1>Cart</h1>"))
        if path == "/api/products":
            return self._answer(
                200, json.dumps([{"slug": s, "title": t} for s, t in products]), "application/json"
            )
        if path in ("/api/reviews", "/api/suggest", "/api/orders"):
            return self._answer(200, json.dumps(["Good.", "As described."]), "application/json")
        return self._answer(404, page("Not found", "<h1>Not found</h1>"))

    do_HEAD = do_GET

    def do_POST(self):
        form = self._form()
        if self.path == "/login":
            time.sleep(0.02)
            if ACCOUNTS.get(form.get("user", "")) == form.get("password") and form.get("user"):
                return self._answer(
                    303, "", headers=[("Location", "/account"), ("Set-Cookie", "session=1; Path=/; Secure")]
                )
            return self._answer(200, page("Sign in", "<p>Wrong name or password.</p>" + self._login_form()))
        if self.path == "/api/login":
            return self._answer(401, '{"error": "wrong name or password"}', "application/json")
        if self.path == "/cart":
            return self._answer(303, "", headers=[("Location", "/cart")])
        if self.path == "/api/event":
            return self._answer(204, "")
        return self._answer(405, "")

    @staticmethod
    def _login_form():
        return (
            '<h1>Sign in</h1><form method="post" action="/login" id="login"><input name="user"><input name="password" type="password">'
            "<button>Sign in</button></form>"
        )


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """A client that goes away in the middle is no error of ours."""


def serve():
    """Starts the backend on a free port of 127.0.0.1; returns the server (stop it with `shutdown()`)."""
    server = _Server(("127.0.0.1", 0), _Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
