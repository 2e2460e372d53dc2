"""The prototype of the features: text cells as the product writes them, and nothing from the same second."""

import prototype_features as prototype
import synthetic
from bliss_train import rows


def test_text_cells_are_the_products():
    cases = [
        (b"", ""), ("/käse/☕".encode(), "/käse/☕"), (b"F\xfatbol/1.0", "F\\xFAtbol/1.0"), (b"a\0b\tc\x7f", "a\\x00b\\x09c\\x7F"),
        ("a\u0085\u2028b".encode(), "a\\xC2\\x85\\xE2\\x80\\xA8b"), (rb"a\b", r"a\x5Cb"), (b"007", "\\x3007"), (b"-1", "\\x2D1"),
        (b"=1+1", "\\x3D1+1"), (b"#N/A", "\\x23N/A"), (b"NA", "\\x4EA"), (b"nUll ", "\\x6EUll "), (b"NASA", "NASA"),
    ]
    for value, cell in cases:
        assert prototype.escape(value) == cell
        assert prototype.unescape(cell) == value
        assert rows.text(cell) == value.decode("utf-8", "replace")


def test_a_request_sees_only_earlier_seconds(tmp_path):
    lines = synthetic.log()
    whole = prototype.features(synthetic.write(tmp_path / "whole", lines), hosts={"shop.example"})
    half = prototype.features(synthetic.write(tmp_path / "half", lines[:len(lines) // 2]), hosts={"shop.example"})
    columns = [name for name in whole if "." in name]
    assert whole[columns].iloc[:len(half)].equals(half[columns])
    same = whole.groupby(["time", "ip", "user_agent"])[["ip.asset_share_h12h", "user_agent.age_30d"]].nunique()
    assert (same == 1).all().all()


def test_a_line_can_be_rewritten_or_dropped(tmp_path):
    lines = synthetic.log(people=3, crawlers=2, scanners=0, floods=0, others=0)
    log = synthetic.write(tmp_path / "log", lines)
    made = prototype.features(log, {1: "", 2: "Mozilla/5.0 (another)"})
    assert 1 not in set(made["line"]) and made.set_index("line")["user_agent"][2] == "Mozilla/5.0 (another)"
