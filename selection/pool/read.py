"""Sources to batches of the pool's schema; every row ends as an example or as a drop."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from selection.errors import InputError
from selection.pool.batches import BatchBuilder, ReadBatch
from selection.pool.checks import (
    check_mapped,
    check_source,
    check_tables,
    no_shape,
    refuse_broken,
)
from selection.pool.columns import ColumnKinds, propose_roles
from selection.pool.readers import find_files, is_dataset_name, open_parts
from selection.pool.rows import RawRow
from selection.pool.shapes import Drop, Example, detect_shape, to_example
from selection.pool.streams import DataFile
from selection.pool.tables import parquet_rows
from selection.records import DropReason, PoolSource

N_PEEK = 200  # rows of a file that decide its shape
_UNPACKED = {".gz": 4, ".zst": 4, ".parquet": 8}  # bytes of text for one byte of file, roughly


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


def read_pool(source: PoolSource) -> Iterator[ReadBatch]:
    """Read a source in batches; the shape is decided for each file.

    Raises InputError for settings that cannot be right, files that cannot be read or hold no row in
    a known shape, broken rows (unless `broken_rows` says drop), and mapped columns that no row has.
    """
    check_source(source)
    check_tables(source)
    seen = ColumnKinds()
    for file, raws in open_parts(source):
        for batch in _read_file(file, raws, source):
            seen.merge(batch.kinds)
            yield batch
    check_mapped(source, seen.names)


def _read_file(file: str, raws: Iterator[RawRow], source: PoolSource) -> Iterator[ReadBatch]:
    peeked = list(itertools.islice(raws, N_PEEK))
    shape = shape_of(file, peeked, source)
    builder = BatchBuilder(source, shape)
    for raw in itertools.chain(peeked, raws):
        builder.add(raw)
        if builder.is_full:
            yield builder.take()
    if not builder.is_empty:
        yield builder.take()


def shape_of(file: str, peeked: Sequence[RawRow], source: PoolSource) -> str:
    """The shape of a file by its first rows. Raises InputError when none of them has it."""
    if not peeked:
        raise InputError(
            "the file holds no rows", file=file, remedy="Check the step that wrote it."
        )
    if source.broken_rows == "refuse":
        for raw in peeked:
            refuse_broken(raw)
    values = [raw.value for raw in peeked if raw.value is not None]
    if not values:
        raise InputError(
            f"none of the first {len(peeked)} rows is readable ({peeked[0].error})",
            file=file,
            line=peeked[0].line,
            remedy="Check the format; the file's suffix must say what it is.",
        )
    if source.shape == "auto":
        shape = detect_shape(values, source.columns)
    else:
        drops = (to_example(value, source.shape, source.columns) for value in values)
        known = any(not _is_strange(drop) for drop in drops)
        shape = source.shape if known else None
    if shape is None:
        raise no_shape(file, values, source)
    return shape


def _is_strange(result: Example | Drop) -> bool:
    return isinstance(result, Drop) and result.reason == DropReason.NOT_RECOGNIZED


def look_at(source: PoolSource, n: int = 200) -> Look:
    """Read the first `n` rows of the first file.

    Raises InputError where reading the pool would, as far as these rows tell.
    """
    check_source(source)
    check_tables(source)
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
        text_bytes(file) / per_row if n_rows is None else n_rows
        for file, n_rows in zip(files, known, strict=True)
    )
    return round(sum(estimates)), False


def text_bytes(file: DataFile) -> int:
    """Bytes of text in a file, guessed from its size."""
    return file.path.stat().st_size * _UNPACKED.get(file.path.suffix.lower(), 1)
