"""Small access logs of invented clients: people, declared crawlers, scanners, a login flood, and clients of no known kind."""

import random
from datetime import datetime, timedelta, timezone

BROWSERS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{} Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{0}) Gecko/20100101 Firefox/{0}",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{} Mobile/15E148 Safari/604.1",
]
CRAWLERS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "python-requests/2.31.0",
]
SITE = "https://shop.example/"


def line(at, ip, request, status, referrer, agent):
    return f'{ip} - - [{at:%d/%b/%Y:%H:%M:%S} +0000] "{request}" {status} 123 "{referrer or "-"}" "{agent or "-"}"'


def log(people=40, crawlers=20, scanners=8, floods=2, others=10, seed=5, start=datetime(2026, 3, 1, tzinfo=timezone.utc)):
    """The lines of a log of three days, sorted by time."""
    draw, lines = random.Random(seed), []

    def client(net):
        return f"{net}.{draw.randrange(1, 200)}.{draw.randrange(1, 200)}", start + timedelta(seconds=draw.randrange(3 * 86400))

    for _ in range(people):
        (ip, at), agent = client("100.64"), draw.choice(BROWSERS).format(f"{draw.choice([120, 121, 122])}.0")
        referrer = draw.choice(["https://www.google.com/", "", ""])
        for page in range(draw.randrange(1, 6)):
            path = f"/page/{draw.randrange(30)}"
            lines.append((at, line(at, ip, f"GET {path} HTTP/1.1", 200, referrer, agent)))
            for asset in ("style.css", "app.js", f"photo{draw.randrange(9)}.jpg"):
                lines.append((at + timedelta(seconds=1), line(at + timedelta(seconds=1), ip, f"GET /static/{asset} HTTP/1.1", 200, SITE + path[1:], agent)))
            referrer, at = SITE + path[1:], at + timedelta(seconds=draw.randrange(5, 90))
    for _ in range(crawlers):
        (ip, at), agent = client("198.18"), draw.choice(CRAWLERS)
        lines.append((at, line(at, ip, "GET /robots.txt HTTP/1.1", 200, "", agent)))
        for _ in range(draw.randrange(1, 12)):
            at += timedelta(seconds=draw.randrange(1, 600))
            lines.append((at, line(at, ip, f"GET /page/{draw.randrange(30)} HTTP/1.1", 200, "", agent)))
    for _ in range(scanners):
        (ip, at), agent = client("198.19"), BROWSERS[0].format("79.0")
        for path in ("/.env", "/wp-login.php", "/.git/config", "/admin/config.php", "/x?f=../../etc/passwd"):
            at += timedelta(seconds=1)
            lines.append((at, line(at, ip, f"GET {path} HTTP/1.1", 404, "", agent)))
    for _ in range(floods):
        (ip, at), agent = client("203.0"), BROWSERS[0].format("119.0")
        for _ in range(12):
            at += timedelta(seconds=2)
            lines.append((at, line(at, ip, "POST /login HTTP/1.1", 200, SITE + "login", agent)))
    for _ in range(others):
        (ip, at), agent = client("192.0"), BROWSERS[1].format("118.0")
        lines.append((at, line(at, ip, f"GET /page/{draw.randrange(30)} HTTP/1.1", 200, "", agent)))
    return [text for _, text in sorted(lines, key=lambda item: item[0])]


def write(path, lines):
    path.write_text("".join(text + "\n" for text in lines), encoding="latin-1")
    return path
