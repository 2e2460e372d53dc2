"""The package and the prototype of the features are found without installing anything."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent, HERE.parent / "research"):
    sys.path.insert(0, str(folder))
