"""Files to raw rows by their format. Memory is flat.

A row is counted from 1 in its file. What can be read as rows but not as a row is a `RawRow` with an
error, so that the caller decides; what is wrong with a whole file is refused here, by name.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from selection.core.errors import InputError
from selection.data.containers.arrow_files import columns_of, iter_arrow
from selection.data.containers.json_files import iter_json
from selection.data.containers.listing import ARROW, LINES, SUFFIXES, TABLES
from selection.data.containers.rows import RawRow
from selection.data.containers.streams import COMPRESSIONS, DataFile, refuse_empty, refuse_stranger
from selection.data.containers.tables import Dialect, header_of, iter_csv
from selection.records import PoolSource


def iter_file(file: DataFile, source: PoolSource) -> Iterator[RawRow]:
    """The rows of one file, by its suffix. Raises InputError for an unknown one or no content."""
    if file.suffix not in SUFFIXES:
        raise InputError(
            "the file's format is not known by its name",
            file=file.name,
            value=PurePosixPath(file.path).suffix,
            remedy=f"Known are {', '.join(SUFFIXES)}, all but .parquet and Arrow also with"
            f" {', '.join(COMPRESSIONS)}, and archives of them (.zip, .tar, .tar.gz).",
        )
    refuse_empty(file)
    refuse_stranger(file)
    if file.suffix in TABLES:
        rows = iter_csv(file, _dialect(source))
    elif file.suffix in (*LINES, ".json"):
        rows = iter_json(file, source.encoding, source.split)
    else:
        rows = iter_arrow(file)
    return _with_partition(rows, file) if file.partition else rows


def column_names(file: DataFile, source: PoolSource) -> list[str] | None:
    """All columns of a file whose format names them up front (CSV, Parquet, Arrow); else None."""
    refuse_empty(file)
    refuse_stranger(file)
    partition = [name for name, _ in file.partition]
    if file.suffix in TABLES:
        return header_of(file, _dialect(source)) + partition
    if file.suffix == ".parquet" or file.suffix in ARROW:
        return columns_of(file) + partition
    return None


def _dialect(source: PoolSource) -> Dialect:
    return Dialect(source.delimiter, source.quoting, source.encoding)


def _with_partition(rows: Iterator[RawRow], file: DataFile) -> Iterator[RawRow]:
    """Rows with the columns that folders name; a column of the file's own comes first."""
    named = dict(file.partition)
    for row in rows:
        if row.value is None:
            yield row
        else:
            yield replace(row, value={**named, **row.value}, text=None)
