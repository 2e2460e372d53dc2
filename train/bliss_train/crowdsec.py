"""A baseline: the addresses that CrowdSec's rules, as Debian's package `crowdsec` ships them, name in a log.

CrowdSec is run once, on a file, with a configuration and a database of its own in a temporary folder. It asks nobody for
lists of addresses and starts no service.
"""

import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pandas

from .errors import Problem
from .rows import text

COLLECTIONS = ("crowdsecurity/nginx", "crowdsecurity/base-http-scenarios", "crowdsecurity/http-cve")
PARSERS = ("s00-raw/crowdsecurity/syslog-logs", "s01-parse/crowdsecurity/nginx-logs", "s02-enrich/crowdsecurity/dateparse-enrich",
           "s02-enrich/crowdsecurity/http-logs")
# What keeps a quoted field of a log line in its place; nginx escapes the same.
UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f]')


def named(rows, root=None, seconds=3600):
    """The addresses that CrowdSec's scenarios name: a table of ip and scenario, each pair once.

    `root` is where the package's files are (`/` where it is installed, or a folder that it was unpacked to).
    """
    root = Path(root or "/")
    program, tool = root / "usr/bin/crowdsec", root / "usr/bin/cscli"
    hub = root / "usr/share/crowdsec/hub"
    for path in (program, tool, hub):
        if not path.exists():
            raise Problem(f"{path}: not found. CrowdSec is not installed there: install Debian's package crowdsec, or unpack it "
                          "(dpkg -x) and give the folder with --root.")
    with tempfile.TemporaryDirectory(prefix="bliss-crowdsec-") as folder:
        config, database = configure(Path(folder), root, hub)
        log = Path(folder) / "access.log"
        log.write_text("".join(combined(rows)), encoding="utf-8", errors="surrogateescape")
        run([tool, "-c", config, "machines", "add", "bliss", "-a", "-f", Path(folder) / "etc/credentials.yaml"], seconds)
        run([program, "-c", config, "-dsn", f"file://{log}", "-type", "nginx"], seconds)
        with closing(sqlite3.connect(database)) as found:
            pairs = found.execute("SELECT DISTINCT source_ip, scenario FROM alerts WHERE source_ip != ''").fetchall()
    return pandas.DataFrame(sorted(pairs), columns=["ip", "scenario"])


def configure(folder, root, hub):
    """Writes a configuration that reaches nobody; its path, and that of the database."""
    live, etc, data = folder / "hub", folder / "etc", folder / "data"
    for path in (live, etc / "notifications", etc / "scenarios", etc / "collections", data, folder / "plugins"):
        path.mkdir(parents=True)
    for item in hub.iterdir():
        (live / item.name).symlink_to(item)
    for parser in PARSERS:
        stage, _, name = parser.split("/")
        (etc / "parsers" / stage).mkdir(parents=True, exist_ok=True)
        (etc / "parsers" / stage / f"{name}.yaml").symlink_to(live / "parsers" / f"{parser}.yaml")
    for collection in COLLECTIONS:
        file = live / "collections" / f"{collection}.yaml"
        (etc / "collections" / file.name).symlink_to(file)
        for name in re.findall(r"^\s*- (\S+/\S+)\s*$", file.read_text(encoding="utf-8"), re.M):
            scenario = live / "scenarios" / f"{name}.yaml"
            if scenario.exists() and not (etc / "scenarios" / scenario.name).exists():
                (etc / "scenarios" / scenario.name).symlink_to(scenario)
    shutil.copytree(root / "etc/crowdsec/patterns", etc / "patterns")
    for name in ("profiles.yaml", "simulation.yaml"):
        shutil.copy(root / "etc/crowdsec" / name, etc / name)
    for file in (root / "usr/share/crowdsec/data").iterdir():
        shutil.copy(file, data / file.name)
    # A scenario of Debian's reads this file by another name than the package gives it.
    if (data / "path_traversal.txt").exists() and not (data / "http_path_traversal.txt").exists():
        shutil.copy(data / "path_traversal.txt", data / "http_path_traversal.txt")
    for name in ("console.yaml", "acquis.yaml", "credentials.yaml"):
        (etc / name).touch(mode=0o600)
    config = folder / "config.yaml"
    config.write_text(f"""\
common: {{daemonize: false, log_media: stdout, log_level: error, working_dir: {folder}}}
config_paths: {{config_dir: {etc}, data_dir: {data}, simulation_path: {etc}/simulation.yaml, hub_dir: {live},
  index_path: {live}/.index.json, notification_dir: {etc}/notifications, plugin_dir: {folder}/plugins}}
crowdsec_service: {{acquisition_path: {etc}/acquis.yaml, parser_routines: 1}}
cscli: {{output: json}}
db_config: {{log_level: error, type: sqlite, use_wal: false, db_path: {data}/crowdsec.db}}
plugin_config: {{user: nobody, group: nogroup}}
api:
  client: {{insecure_skip_verify: false, credentials_path: {etc}/credentials.yaml}}
  server: {{log_level: error, listen_uri: "127.0.0.1:{free_port()}", profiles_path: {etc}/profiles.yaml, console_path: {etc}/console.yaml}}
prometheus: {{enabled: false}}
""", encoding="utf-8")
    return config, data / "crowdsec.db"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run(command, seconds):
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise Problem(f"{words[0]}: not done after {seconds} s; give it more with --seconds, or a shorter log") from error
    except OSError as error:
        raise Problem(f"{words[0]}: cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing on standard error"]
        raise Problem(f"{words[0]}: ended with {done.returncode}: {last[0][:300]}")


def combined(rows):
    """The rows as lines of nginx's combined format. What the rows do not tell (protocol, bytes) is made up."""
    for row in rows.itertuples():
        time = datetime.fromtimestamp(row.time, timezone.utc).strftime("%d/%b/%Y:%H:%M:%S +0000")
        target = text(row.path) + (f"?{text(row.query)}" if row.query else "")
        request = f"{text(row.method)} {target} HTTP/1.1"
        yield (f'{row.ip} - - [{time}] "{escaped(request)}" {row.response_status} 0 "{escaped(text(row.referrer)) or "-"}" '
               f'"{escaped(text(row.user_agent)) or "-"}"\n')


def escaped(value):
    return UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02X}", value)
