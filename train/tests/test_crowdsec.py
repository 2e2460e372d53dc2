"""The baseline of CrowdSec's rules."""

import os
from pathlib import Path

import pandas
import pytest

from bliss_train import crowdsec, report
from bliss_train.cli import named_of
from bliss_train.errors import Problem


def rows(lines):
    base = {"time": 1_431_857_105.0, "ip": "192.0.2.1", "user_agent": "a", "method": "GET", "path": "/", "query": "", "referrer": "",
            "response_status": 200}
    return pandas.DataFrame([{**base, **line} for line in lines])


def test_lines_are_those_of_the_combined_format_and_one_row_is_one_line():
    odd = {"path": '/a"b', "query": "c=\\x0Ad", "user_agent": 'x" 200 0 "-" "y', "referrer": "http://r.example/\\x5C", "response_status": 404}
    assert list(crowdsec.combined(rows([{}, odd]))) == [
        '192.0.2.1 - - [17/May/2015:10:05:05 +0000] "GET / HTTP/1.1" 200 0 "-" "a"\n',
        '192.0.2.1 - - [17/May/2015:10:05:05 +0000] "GET /a\\x22b?c=\\x0Ad HTTP/1.1" 404 0 "http://r.example/\\x5C" '
        '"x\\x22 200 0 \\x22-\\x22 \\x22y"\n',
    ]


def test_where_it_is_not_installed_is_said(tmp_path):
    with pytest.raises(Problem, match="install Debian's package crowdsec"):
        crowdsec.named(rows([{}]), tmp_path)


def test_what_a_tool_names_stands_beside_the_model(tmp_path):
    file = tmp_path / "named.csv"
    file.write_text("ip,scenario\n192.0.2.2,probing\n")
    named = named_of([f"CrowdSec:shop:{file}"], ["shop"])
    table = rows([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}, {"ip": "192.0.2.3"}]).assign(client=[0, 1, 2], site="shop")
    clients = pandas.DataFrame({"kind": ["person", "scanner", "scanner"], "score": [90.0, 5.0, 50.0], "requests": 1})
    kinds, lines = report.baselines(table, clients, 0.02, named)
    assert kinds == ["scanner"]
    assert lines[-1] == ["CrowdSec (names addresses)", "0.0 %", "50.0 %"]
    for wrong in ("CrowdSec", f"CrowdSec:other:{file}", f"CrowdSec:shop:{tmp_path}/none"):
        with pytest.raises(Problem, match="--named"):
            named_of([wrong], ["shop"])


def test_its_rules_name_a_scanner():
    root = Path(os.environ.get("BLISS_CROWDSEC_ROOT", "/"))
    if not (root / "usr/bin/crowdsec").exists():
        pytest.skip("CrowdSec is not installed (BLISS_CROWDSEC_ROOT: where Debian's package is unpacked)")
    people = [{"ip": "192.0.2.1", "path": f"/{at}", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"} for at in range(5)]
    scanner = [{"ip": "192.0.2.2", "path": f"/{at}.php", "response_status": 404} for at in range(40)]
    assert set(crowdsec.named(rows(people + scanner), root)["ip"]) == {"192.0.2.2"}
