"""Reading of training rows: in batches, in bounded memory, and the same as if read whole."""

import os
import subprocess
import sys

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from bliss_train import rows
from bliss_train.errors import Problem

ROWS = 200_000
INPUTS = [f"ip.other_{n}" for n in range(60)]


def table(count, **changed):
    """Rows with everything that is asked for, and sixty inputs that are not."""
    random = numpy.random.default_rng(1)
    columns = {
        "time": numpy.arange(count, dtype=float), "line": numpy.arange(1, count + 1),
        "ip": [f"192.0.2.{n % 250}" for n in range(count)],
        "user_agent": [None if n % 7 == 0 else f"agent {n % 50} " + "x" * 80 for n in range(count)],
        "method": ["GET"] * count, "path": [f"/{n}/" + "y" * 60 for n in range(count)], "query": [""] * count,
        "referrer": [None] * count, "response_status": numpy.full(count, 200), "own_answer": numpy.zeros(count, int),
    }
    columns |= {name: numpy.zeros(count, numpy.float32) for name in rows.EVIDENCE}
    columns |= {name: random.random(count, numpy.float32) for name in INPUTS}
    return pyarrow.table(columns | changed)


def test_batches_are_the_same_as_the_whole(tmp_path, monkeypatch):
    told = table(1000)
    pyarrow.parquet.write_table(told, tmp_path / "rows.parquet", row_group_size=300)
    monkeypatch.setattr(rows, "BATCH_ROWS", 7)
    found = rows.read(tmp_path / "rows.parquet")
    expected = told.to_pandas()
    for name in [*rows.META, *INPUTS]:
        column = expected[name].fillna("") if name in rows.TEXTS else expected[name]
        assert found[name].astype(object).tolist() == column.astype(object).tolist(), name
    some = rows.read(tmp_path / "rows.parquet", INPUTS[:2], ("ip",), numpy.array([3, 500, 999]))
    assert some["line"].tolist() == [3, 500, 999] and "path" not in some and INPUTS[2] not in some
    assert some[INPUTS[1]].tolist() == expected[INPUTS[1]].iloc[[2, 499, 998]].tolist()


@pytest.mark.parametrize("name", ["time", "line", "response_status", "own_answer"])
def test_a_row_without_what_each_must_have_is_named(tmp_path, name):
    values = [float(n) if name == "time" else n for n in range(1, 101)]
    values[40] = None
    pyarrow.parquet.write_table(table(100, **{name: values}), tmp_path / "rows.parquet")
    with pytest.raises(Problem, match=f"column {name} of every row, found none in row 40"):
        rows.read(tmp_path / "rows.parquet")


def test_memory_grows_with_what_is_needed_and_not_with_the_export(tmp_path):
    told = table(ROWS)
    pyarrow.parquet.write_table(told, tmp_path / "rows.parquet", row_group_size=20_000)
    # In a process of its own: the most that Arrow and Python held at once.
    program = (
        "import sys, tracemalloc, pyarrow\n"
        "from bliss_train import rows\n"
        "tracemalloc.start()\n"
        f"frame = rows.read(sys.argv[1], {INPUTS[:2]!r}, ('ip', 'user_agent'))\n"
        "assert len(frame) == int(sys.argv[2])\n"
        "print(tracemalloc.get_traced_memory()[1] + pyarrow.default_memory_pool().max_memory())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "rows.parquet"), str(ROWS)],
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    most, kept = int(done.stdout), ROWS * (8 + 8 + 4 + 4 + 4 * (len(rows.EVIDENCE) + 2) + 2 * 4)
    print(f"{most / 1e6:.0f} MB at most, {kept / 1e6:.0f} MB kept, {told.nbytes / 1e6:.0f} MB in the file's table")
    assert most < 0.4 * told.nbytes
