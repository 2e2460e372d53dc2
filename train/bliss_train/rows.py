"""Training rows: what `blissctl features` wrote, checked, and read in pieces.

A file is read batch by batch, and only what is needed is kept of each: inputs as float32, in one block; texts as numbers of a
dictionary (pandas' categories), so that a text takes memory once, however many rows have it.
"""

import re
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.parquet

from .errors import Problem
from .progress import Progress

TEXTS = ["ip", "user_agent", "method", "path", "query", "referrer"]
META = ["time", "line", *TEXTS, "response_status", "own_answer"]
EVIDENCE = ["request.is_asset", "request.site_referrer", "request.no_referrer", "request.claims_browser"]
# Evidence that older exports do not have.
OPTIONAL = ["request.challenge_passed"]
STAGES = ((1, 1), (2, 3), (4, 10), (11, None))
STAGE_NAMES = ("1st request", "2nd to 3rd", "4th to 10th", "11th and later")
ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})")
BATCH_ROWS = 16_384


def text(cell):
    """What a text cell stands for: every \\xHH undone, bytes that are no UTF-8 replaced."""
    if "\\" not in cell:
        return cell
    return ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), cell.encode()).decode("utf-8", "replace")


class Texts:
    """A column of texts: a number for each row, and the texts in the order in which they are first seen; null is ""."""

    def __init__(self, rows):
        self.codes, self.known = numpy.empty(rows, numpy.int32), {}

    def put(self, begin, kept, array):
        if not pyarrow.types.is_dictionary(array.type):
            array = array.cast(pyarrow.string()).dictionary_encode()
        if kept is not None:
            array = array.filter(pyarrow.array(kept))
        told = array.indices.to_numpy(zero_copy_only=False)
        if array.null_count:
            told = numpy.where(array.is_null().to_numpy(zero_copy_only=False), len(array.dictionary), told).astype(numpy.int64)
        cells = ["" if cell is None else cell for cell in array.dictionary.cast(pyarrow.string()).to_pylist()] + [""]
        used, places = numpy.unique(told, return_inverse=True)
        codes = numpy.array([self.known.setdefault(cells[place], len(self.known)) for place in used], numpy.int32)
        self.codes[begin:begin + len(told)] = codes[places] if len(told) else 0

    def column(self, rows):
        return pandas.Categorical.from_codes(self.codes[:rows], pandas.Index(list(self.known), dtype=object), validate=False)


def read(path, columns=None, texts=TEXTS, lines=None):
    """The rows of a Parquet file, sorted by time.

    `columns` are the inputs that are read (None: all) beside those that labels and measures need, with the status of their
    dimensions; `texts` are the columns of text. With `lines`, sorted numbers of lines, other lines are left out.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(f"{path}: no such file. Make it with `blissctl features --log LOG --out {path}`.")
    try:
        schema = pyarrow.parquet.read_schema(path)
        numbers, words = wanted(path, schema, columns, texts)
        frame = gather(path, numbers, words, lines)
    except (OSError, pyarrow.ArrowException) as error:
        raise Problem(f"{path}: expected a Parquet file of training rows, but it cannot be read: {error}") from error
    if not (numpy.diff(frame["line"].to_numpy()) > 0).all():
        again = frame["line"][frame["line"].duplicated()]
        if len(again):
            raise twice(path, again.iloc[0])
    return frame


def wanted(path, schema, columns, texts):
    """The columns of numbers and of texts that are read."""
    present = schema.names
    missing = [name for name in META + EVIDENCE if name not in present]
    if missing:
        raise Problem(
            f"{path}: expected the columns of `blissctl features`, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; found {', '.join(present[:12])}… "
            "Export the log again with this version of blissctl."
        )
    others = [name for name in present if name not in META]

    def is_number(name):
        kind = schema.field(name).type
        return pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind)

    if columns is None:
        return [name for name in others if is_number(name)], [*texts, *(name for name in others if not is_number(name))]
    numbers = list(dict.fromkeys([*EVIDENCE, *(name for name in [*OPTIONAL, *columns] if name in present and name not in META)]))
    statuses = {f"{name.split('.', 1)[0]}.status" for name in columns}
    return numbers, [*texts, *(name for name in others if name in statuses)]


def gather(path, numbers, words, lines):
    """Reads the file in batches into arrays of their final size."""
    exact = {"time": numpy.float64, "line": numpy.int64, "response_status": numpy.int32, "own_answer": numpy.int32}
    with pyarrow.parquet.ParquetFile(path, read_dictionary=words) as file:
        total = file.metadata.num_rows
        if total == 0:
            raise Problem(f"{path}: expected training rows, found none. Is the log empty, or in another format?")
        rows = total if lines is None else min(total, len(lines))
        found = {name: numpy.empty(rows, kind) for name, kind in exact.items()}
        inputs, told = numpy.empty((len(numbers), rows), numpy.float32), {name: Texts(rows) for name in words}
        progress, done, begin, newest = Progress(path.name, "rows", total), 0, 0, -numpy.inf
        for batch in file.iter_batches(BATCH_ROWS, columns=[*exact, *words, *numbers]):
            time = seconds(whole(path, batch.column("time"), "time", done))
            back = numpy.flatnonzero(numpy.diff(time, prepend=newest) < 0)
            if len(back):
                raise Problem(f"{path}: expected rows sorted by time, found an earlier one after row {done + int(back[0]) - 1}. "
                              "Export the log again.")
            newest, kept = time[-1] if len(time) else newest, None
            if lines is not None:
                kept = numpy.isin(batch.column("line").to_numpy(zero_copy_only=False), lines)
            here = len(time) if kept is None else int(kept.sum())
            if begin + here > rows:
                raise Problem(f"{path}: expected each line of the log once, found some twice. Export the log again.")
            for name, into in found.items():
                values = time if name == "time" else whole(path, batch.column(name), name, done).to_numpy(zero_copy_only=False)
                into[begin:begin + here] = values if kept is None else values[kept]
            for place, name in enumerate(numbers):
                values = batch.column(name).to_numpy(zero_copy_only=False)
                inputs[place, begin:begin + here] = values if kept is None else values[kept]
            for name, column in told.items():
                column.put(begin, kept, batch.column(name))
            begin, done = begin + here, done + len(time)
            progress.at(done)
    # Rows of inputs are columns of the frame: pandas keeps the block as it is.
    frame = pandas.DataFrame(inputs[:, :begin].T, columns=numbers, copy=False)
    front = {name: array[:begin] for name, array in found.items()} | {name: column.column(begin) for name, column in told.items()}
    for place, (name, column) in enumerate(front.items()):
        frame.insert(place, name, column)
    return frame


def seconds(column):
    """Times in seconds since the epoch."""
    if pyarrow.types.is_timestamp(column.type):
        return column.cast(pyarrow.timestamp("ms", "UTC"), safe=False).cast(pyarrow.int64()).to_numpy(zero_copy_only=False) / 1000.0
    return column.to_numpy(zero_copy_only=False)


def whole(path, column, name, done):
    """The column, of which every row must have a value."""
    if column.null_count:
        at = int(numpy.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise Problem(f"{path}: expected a value in column {name} of every row, found none in row {done + at}. Export the log again.")
    return column


def twice(path, line):
    return Problem(f"{path}: expected each line of the log once, found line {line} twice. One Parquet file holds one "
                   "log: join rotated files in order before exporting.")


def joined(frames):
    """The frames one after the other, with the columns that all have (a log exported without lists has no status of them); columns of
    categories stay such."""
    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    shared = [name for name in frames[0].columns if all(name in frame for frame in frames)]
    frames = [frame if len(shared) == len(frame.columns) else frame[shared] for frame in frames]
    united = {}
    for name in shared:
        if isinstance(frames[0][name].dtype, pandas.CategoricalDtype):
            categories = dict.fromkeys(cell for frame in frames for cell in frame[name].cat.categories)
            united[name] = pandas.CategoricalDtype(pandas.Index(list(categories), dtype=object))
    return pandas.concat([frame.astype(united) for frame in frames], ignore_index=True)


def with_clients(frame):
    """Adds the client's number (address and user agent) and its request's number, from 1."""
    frame = frame.copy(deep=False)
    ip, agent = (frame[name].astype("category").cat for name in ("ip", "user_agent"))
    frame["client"] = pandas.factorize(ip.codes.to_numpy(numpy.int64) * len(agent.categories) + agent.codes.to_numpy())[0]
    frame["seen"] = frame.groupby("client").cumcount() + 1
    return frame


def clients_of(frame):
    """The address and the user agent of each client, as text, in the order of their numbers."""
    first = frame.drop_duplicates("client").set_index("client")[["ip", "user_agent"]].sort_index()
    return first.astype(str)


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
