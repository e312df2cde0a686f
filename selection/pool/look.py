"""A first look at a source: its shape, its columns, how large it is. Reads a few rows only."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selection.pool.checks import check_source
from selection.pool.columns import propose_roles
from selection.pool.read import shape_of
from selection.pool.readers import find_files, is_dataset_name, open_parts
from selection.pool.rows import RawRow
from selection.pool.shapes import Example, to_example
from selection.pool.streams import COMPRESSIONS, DataFile
from selection.pool.tables import parquet_rows
from selection.records import PoolSource

_UNPACKED = 4  # bytes of text for one compressed byte, roughly


@dataclass(frozen=True, slots=True)
class Look:
    """What the first rows of a source say.

    shape:    shape of the first file.
    columns:  top-level columns seen, in order.
    n_rows:   number of rows in all files: exact for Parquet, else estimated from sizes; None for a
              dataset on the hub.
    is_exact: whether `n_rows` was counted.
    n_looked: how many rows were read.
    examples: those of them that are examples.
    roles:    role -> column that seems to play it, by its name; a proposal for `columns`.
    """

    shape: str
    columns: tuple[str, ...]
    n_rows: int | None
    is_exact: bool
    n_looked: int
    examples: tuple[Example, ...]
    roles: Mapping[str, str]


def look_at(source: PoolSource, n: int = 200) -> Look:
    """Read the first `n` rows of the first file.

    Raises InputError where reading the pool would, as far as these rows tell.
    """
    check_source(source)
    file, raws = next(open_parts(source))
    rows = list(itertools.islice(raws, n))
    shape = shape_of(file, rows, source)
    values = [row.value for row in rows if row.value is not None]
    results = [to_example(value, shape, source.columns) for value in values]
    n_rows, is_exact = (None, False) if is_dataset_name(source) else _count(source, rows, n)
    return Look(
        shape=shape,
        columns=tuple(dict.fromkeys(name for value in values for name in value)),
        n_rows=n_rows,
        is_exact=is_exact,
        n_looked=len(rows),
        examples=tuple(result for result in results if isinstance(result, Example)),
        roles=propose_roles(values),
    )


def _count(source: PoolSource, rows: Sequence[RawRow], n_asked: int) -> tuple[int, bool]:
    """Rows of all files, and whether that is exact."""
    files = find_files(source)
    if len(files) == 1 and len(rows) < n_asked:
        return len(rows), True  # the file ended before the sample was full
    known = [parquet_rows(file) for file in files]
    if None not in known:
        return sum(n_rows or 0 for n_rows in known), True
    n_bytes = sum(len(row.raw_json().encode()) + 1 for row in rows)
    per_row = max(1.0, n_bytes / len(rows))
    estimates = (
        _text_bytes(file) / per_row if n_rows is None else n_rows
        for file, n_rows in zip(files, known, strict=True)
    )
    return round(sum(estimates)), False


def _text_bytes(file: DataFile) -> int:
    """Bytes of text in a file, guessed where it is compressed."""
    packed = Path(file.path).suffix.lower() in COMPRESSIONS
    return file.path.stat().st_size * (_UNPACKED if packed else 1)
