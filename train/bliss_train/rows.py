"""Training rows: what `blissctl features` wrote, checked."""

import re
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.parquet

from .errors import Problem

META = ["time", "line", "ip", "user_agent", "method", "path", "query", "referrer", "response_status", "own_answer"]
EVIDENCE = ["request.is_asset", "request.site_referrer", "request.no_referrer", "request.claims_browser"]
STAGES = ((1, 1), (2, 3), (4, 10), (11, None))
STAGE_NAMES = ("1st request", "2nd to 3rd", "4th to 10th", "11th and later")
ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})")


def text(cell):
    """What a text cell stands for: every \\xHH undone, bytes that are no UTF-8 replaced."""
    if "\\" not in cell:
        return cell
    return ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), cell.encode()).decode("utf-8", "replace")


def read(path, columns=None):
    """The rows of a Parquet file, sorted by time; `columns` are read beside those that labels and measures need."""
    path = Path(path)
    if not path.is_file():
        raise Problem(f"{path}: no such file. Make it with `blissctl features --log LOG --out {path}`.")
    try:
        present = pyarrow.parquet.read_schema(path).names
        needed = META + EVIDENCE
        missing = [name for name in needed if name not in present]
        if missing:
            raise Problem(
                f"{path}: expected the columns of `blissctl features`, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing; found {', '.join(present[:12])}… "
                "Export the log again with this version of blissctl."
            )
        wanted = None if columns is None else list(dict.fromkeys(
            [*needed, *(c for c in columns if c in present), *(c for c in present if c.endswith(".status"))]
        ))
        frame = pandas.read_parquet(path, columns=wanted)
    except (OSError, pyarrow.ArrowException) as error:
        raise Problem(f"{path}: expected a Parquet file of training rows, but it cannot be read: {error}") from error
    if len(frame) == 0:
        raise Problem(f"{path}: expected training rows, found none. Is the log empty, or in another format?")
    if pandas.api.types.is_datetime64_any_dtype(frame["time"]):
        frame["time"] = frame["time"].astype("datetime64[ms, UTC]").astype("int64") / 1000.0
    if not frame["time"].is_monotonic_increasing:
        raise Problem(f"{path}: expected rows sorted by time, found an earlier one after row "
                      f"{int(numpy.flatnonzero(numpy.diff(frame['time'].to_numpy()) < 0)[0])}. Export the log again.")
    if frame["line"].duplicated().any():
        again = frame["line"][frame["line"].duplicated()].iloc[0]
        raise Problem(f"{path}: expected each line of the log once, found line {again} twice. One Parquet file holds one "
                      "log: join rotated files in order before exporting.")
    for name in ("ip", "user_agent", "method", "path", "query", "referrer"):
        frame[name] = frame[name].fillna("").astype(str)
    return frame


def with_clients(frame):
    """Adds the client's number (address and user agent) and its request's number, from 1."""
    frame = frame.copy()
    frame["client"] = frame.groupby(["ip", "user_agent"], sort=False).ngroup()
    frame["seen"] = frame.groupby("client").cumcount() + 1
    return frame


def stages(seen):
    """The stage of evidence (0 to 3) of each request number."""
    return numpy.searchsorted([1, 3, 10], numpy.asarray(seen), side="left")


def networks24(addresses):
    """The /24 (IPv6: /48) of each address, as text."""
    def network(address):
        if ":" in address:
            return ":".join(address.split(":")[:3])
        return address.rsplit(".", 1)[0]

    unique = {address: network(address) for address in set(addresses)}
    return [unique[address] for address in addresses]
