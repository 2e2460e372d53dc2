"""The lab's promises. Run by `python3 -m unittest discover -s lab/tests`, with the standard library alone.

The short run needs what `lab/setup.sh --short` installs, and is skipped without.
"""

import csv
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types
import unittest

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
import actors as cast  # noqa: E402
import record  # noqa: E402
import shop  # noqa: E402


def everyone(work):
    lab = types.SimpleNamespace(
        here=HERE,
        work=pathlib.Path(work),
        isolated=True,
        stretch=1.0,
        https_port=443,
        http_port=80,
        python="python",
        scrapy="scrapy",
        minibrowser="",
        pages=shop.build(pathlib.Path(work) / "html"),
        words="",
        urls="",
        users="",
        passwords="",
        feeds="",
        newsboat="",
        spki="",
    )
    return cast.build(lab)


class Cast(unittest.TestCase):
    def test_site_is_the_same_each_time(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            self.assertEqual(shop.build(one), shop.build(two))
            files = sorted(p.relative_to(one) for p in pathlib.Path(one).rglob("*") if p.is_file())
            self.assertGreater(len(files), 120)
            for name in files:
                self.assertEqual(
                    (pathlib.Path(one) / name).read_bytes(), (pathlib.Path(two) / name).read_bytes(), name
                )

    def test_each_address_has_one_label(self):
        with tempfile.TemporaryDirectory() as work:
            all_actors = everyone(work)
        self.assertEqual(len({a.name for a in all_actors}), len(all_actors))
        labels = {}
        for actor in all_actors:
            for address in actor.addresses:
                first, second = address.split(".")[:2]
                self.assertEqual(first, "127")
                self.assertNotEqual(second, "0", "127.0.0.0/16 is for the servers")
                key = (address, actor.agent)
                self.assertEqual(labels.setdefault(key, actor.is_robot), actor.is_robot, key)
        # Where a robot shares an address with people, both are told apart by agent.
        for (address, agent), robot in labels.items():
            if agent == "*":
                self.assertEqual({r for (a, _), r in labels.items() if a == address}, {robot}, address)

    def test_people_share_networks_only_where_meant(self):
        with tempfile.TemporaryDirectory() as work:
            all_actors = everyone(work)
        network = lambda address: address.rsplit(".", 1)[0]
        people = {network(x) for a in all_actors if not a.is_robot for x in a.addresses}
        beside = {a.name for a in all_actors if a.is_robot for x in a.addresses if network(x) in people}
        self.assertEqual(beside, {"requests-browser-near-person", "office-script"})


class Recorded(unittest.TestCase):
    def test_each_line_has_its_fields_and_its_actor(self):
        if not (HERE / "recorded/access.json.log.gz").exists():
            self.skipTest("SKIPPED: nothing is recorded")
        with gzip.open(HERE / "recorded/access.json.log.gz") as f:
            lines = f.read().splitlines()
        with open(HERE / "recorded/actors.csv", newline="") as f:
            actors = list(csv.DictReader(f))
        self.assertGreater(len(lines), 5000)
        self.assertGreater(len({a["actor"] for a in actors if a["is_robot"] == "0"}), 40)
        self.assertGreater(len({a["actor"] for a in actors if a["is_robot"] == "1"}), 60)
        record.check(lines, actors)


class ShortRun(unittest.TestCase):
    def test_each_request_is_labelled_by_its_address(self):
        needed = [c for c in ("nginx", "openssl", "curl") if not shutil.which(c)]
        needed += (
            [] if os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so") else ["libnginx-mod-stream"]
        )
        if needed:
            self.skipTest(f"SKIPPED: {', '.join(needed)} not installed (lab/setup.sh --short)")
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [str(HERE / "run"), "--short", "--out", folder], capture_output=True, text=True, timeout=240
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(os.path.join(folder, "access.json.log"), "rb") as f:
                lines = f.read().splitlines()
            with open(os.path.join(folder, "actors.csv"), newline="") as f:
                actors = list(csv.DictReader(f))
            record.check(lines, actors)
            rows = [json.loads(line) for line in lines]
            by_address = {a["ip"]: a for a in actors}
            counts = {a["actor"]: sum(by_address[r["remote_addr"]] is a for r in rows) for a in actors}
            for name, count in counts.items():
                skipped = any(
                    line.startswith(name + " ") and "SKIPPED" in line for line in done.stdout.splitlines()
                )
                self.assertTrue(count >= 10 or skipped, (name, count, done.stdout, done.stderr))
            print(done.stdout)
            # A person's browser says where it comes from and what it loads; a curl loop does not.
            person = [r for r in rows if by_address[r["remote_addr"]]["kind"] == "person"]
            if person:
                self.assertTrue(
                    any(
                        r["http_sec_fetch_dest"] == "document"
                        and r["http_sec_ch_ua"]
                        and r["http_accept_language"]
                        for r in person
                    )
                )
                self.assertTrue(any(r["http_referer"].startswith("https://shop.example/") for r in person))
            self.assertTrue(
                all(
                    r["http_sec_fetch_site"] == ""
                    for r in rows
                    if by_address[r["remote_addr"]]["actor"] == "curl-loop"
                )
            )


if __name__ == "__main__":
    unittest.main()
