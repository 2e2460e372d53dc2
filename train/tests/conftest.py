"""The package and the prototype of the features are found without installing anything."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent, HERE.parent / "research"):
    sys.path.insert(0, str(folder))


@pytest.fixture(scope="module")
def fitted(sites, tmp_path_factory):
    """The folder of a model of the module's own `sites`."""
    from helpers import SMALL, run

    out = tmp_path_factory.mktemp("fitted")
    assert run("fit", *[word for one in sites for word in ("--site", one)], "--out", out, *SMALL) == 0
    return out
