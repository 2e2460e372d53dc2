"""The command `compare`: a newer model against the one that is active.

The newer model is not the one that is written, which has seen all of the log, but one made in the same way of its first part: what
it says of the last part is what can be expected of the next one. The active model is measured as it is.
"""

import argparse
import json
from pathlib import Path

from .errors import Problem


class Worse(Problem):
    """The newer model is worse than the active one."""

    code = 5


def add_command(commands, *parts):
    """The command `compare`; `parts` add the options that others have too."""
    command = commands.add_parser("compare", help="compare a model made of a log's first part with the active one, on its last; exit 5 if worse")
    command.add_argument("--active", required=True, type=Path, metavar="MODEL.cbm", help="the model that is active now")
    command.add_argument("--base", default="none", metavar="MODEL.cbm|none", help="a model that the newer one corrects")
    command.add_argument("--later", type=share, default=0.2, metavar="SHARE", help="the last part of the log's time (default 0.2)")
    command.add_argument("--json", type=Path, help="also write the figures as JSON")
    for part in parts:
        part(command)


def share(text):
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, found {text}")
    return value


def run(told):
    from . import later
    from .cli import base_of, inputs_of, parts_of_sites, rules_of, say, wanted_of
    from .fitting import plain
    from .model import load_base, raw_of
    from .newer import as_text, compare, worse

    wanted = wanted_of(told)
    if len(told.site) != 1:
        raise Problem(f"compare: expected one --site, found {len(told.site)}")
    names, inputs = inputs_of(told)
    active = load_base(told.active, names)
    rules, networks, hosting = rules_of(told)
    base, fitted = base_of(told, names)
    # The table has what either of the two reads.
    wide = list(dict.fromkeys([*fitted, *active.feature_names_]))
    table, newer = later.measured(parts_of_sites(told)[0], fitted, inputs, rules, networks, hosting, told.later, base, told.seed,
                                  wanted, say, wide)
    figures = compare(table, raw_of(active, table, list(active.feature_names_)), newer)
    print(as_text(figures, told.later))
    if told.json is not None:
        told.json.write_text(json.dumps(plain(figures), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    reasons = worse(figures)
    if reasons:
        raise Worse(f"The newer model is worse: {'; '.join(reasons)}. The active model stays.")
    return 0
