"""The columns that a model reads."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

from .errors import Problem

DEFAULT = Path(__file__).with_name("inputs.toml")


class Inputs:
    """Patterns of columns, and what is done with them."""

    def __init__(self, path=None):
        try:
            with open(path or DEFAULT, "rb") as file:
                sections = tomllib.load(file)
            inputs = sections["inputs"]
            self.request = [f"request.{name}" for name in inputs["request"]]
            self.dimensions, self.features = inputs["dimensions"], inputs["features"]
            self.exclude, self.required = inputs.get("exclude", []), inputs.get("required", [])
            self.optional = inputs.get("optional", [])
            self.chance = float(sections["forget"]["chance"])
            self.forgotten = {pattern: float(value) for pattern, value in sections["forget"].get("values", {}).items()}
            neighbours = sections.get("neighbours", {"chance": 0.0, "dimensions": []})
            self.neighbours = (float(neighbours["chance"]), frozenset(neighbours["dimensions"]))
            self.monotone = {pattern: int(way) for pattern, way in sections.get("monotone", {}).items()}
            self.evidence_patterns = sections["evidence"]["inputs"]
        except OSError as error:
            raise Problem(f"{path}: the list of inputs cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise Problem(f"{path}: expected a list of inputs like the package's inputs.toml: {error!r}") from error

    def among(self, columns):
        """The inputs among a file's columns, in the model's order."""
        columns = list(columns)
        chosen = [name for name in self.request if name in columns]
        for dimension in self.dimensions:
            chosen += sorted(
                name for name in columns
                if name.startswith(dimension + ".") and any(fnmatch(name.split(".", 1)[1], p) for p in self.features)
            )
        return [name for name in chosen if not any(fnmatch(name, pattern) for pattern in self.exclude)]

    def of_files(self, paths):
        """The inputs that every one of the files has. What only some have is an error: they are of different versions."""
        found = {}
        for path in paths:
            try:
                schema = pyarrow.parquet.read_schema(path)
            except FileNotFoundError as error:
                raise Problem(f"{path}: no such file") from error
            except (OSError, pyarrow.ArrowException) as error:
                raise Problem(f"{path}: expected a Parquet file of training rows: {error}") from error
            found[path] = self.among(schema.names)
            for name in found[path]:
                kind = schema.field(name).type
                if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind)):
                    raise Problem(f"{path}: expected numbers in column {name!r}, found {kind}")
        first, names = next(iter(found.items()))
        for path, others in found.items():
            if others != names:
                differ = sorted(set(names) ^ set(others))
                raise Problem(f"{path}: its inputs are not those of {first}: {', '.join(differ[:8])}. Export all logs with "
                              "the same version of blissctl and the same configuration.")
        missing = [name for name in self.required if name not in names]
        if missing:
            raise Problem(f"{first}: expected the inputs {', '.join(missing)}, found {len(names)} others")
        return names

    def told(self, names, table):
        """Which of the inputs are optional, and have a value in some row."""
        return [name for name in names if any(fnmatch(name, pattern) for pattern in self.optional) and table[name].notna().any()]

    def directions(self, names):
        """What is monotone, for each input: 1, -1, or 0."""
        return [next((way for pattern, way in self.monotone.items() if fnmatch(name, pattern)), 0) for name in names]

    def evidence(self, names):
        """Which of the inputs gave labels."""
        return [name for name in names if any(fnmatch(name, pattern) for pattern in self.evidence_patterns)]


def missing_values(table, names, told=None):
    """What each dimension's inputs are where it has no row: {dimension: (columns, values)}.

    Learned from rows whose status is not "fresh". An input that differs among those is computed elsewhere and is not
    forgotten; a dimension without such rows is not either.
    """
    found = {}
    for place, name in enumerate(names):
        dimension = name.split(".", 1)[0]
        fixed = next((value for pattern, value in (told or {}).items() if fnmatch(name, pattern)), None)
        if fixed is not None:
            found.setdefault(dimension, []).append((place, numpy.float32(fixed)))
            continue
        if dimension == "request" or f"{dimension}.status" not in table:
            continue
        values = table[name][(table[f"{dimension}.status"].isin(["missing", "absent"])).to_numpy()]
        unique = values.unique()
        if len(unique) == 1:
            found.setdefault(dimension, []).append((place, numpy.float32(unique[0])))
    return found


def forget(values, missing, names, chance, random):
    """A copy of the values (rows by inputs, float32) in which whole dimensions, or all headers, are forgotten."""
    values = values.copy()
    for dimension in sorted(missing):
        lost = random.random(len(values)) < chance
        for place, value in missing[dimension]:
            values[lost, place] = value
    headers = [place for place, name in enumerate(names) if name.startswith("request.has_") or name == "request.header_conflicts"]
    if headers:
        lost = random.random(len(values)) < chance
        for place in headers:
            values[lost, place] = numpy.nan
    return values


def move(lost, values, robots, names, neighbours, random):
    """Lets a share of the people in `lost` live in networks of robots: their inputs of the dimensions are those of a robot's row.

    `robots` is true where a row (of `lost` and `values` alike) is a robot's. `neighbours` is the share and the dimensions.
    """
    share, dimensions = neighbours
    places = [place for place, name in enumerate(names) if name.split(".", 1)[0] in dimensions]
    pool = numpy.flatnonzero(robots)
    moved = numpy.flatnonzero(~robots & (random.random(len(robots)) < share))
    if len(pool) == 0 or not places:
        return
    drawn = pool[random.integers(len(pool), size=len(moved))]
    for place in places:
        lost[moved, place] = values[drawn, place]
