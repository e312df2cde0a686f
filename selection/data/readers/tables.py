"""CSV and Parquet files to raw rows, and what they say of themselves before they are read."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selection.core.errors import InputError
from selection.data.readers.rows import RawRow, jsonable
from selection.data.readers.streams import DataFile, open_text, plain_suffix, refuse_empty

TABLES = (".csv", ".tsv")
_BATCH = 512  # rows of a Parquet file in memory at once
_FIELD_LIMIT = 1 << 30  # characters of one CSV field; the standard's 131,072 is short of long texts


def iter_csv(file: DataFile) -> Iterator[RawRow]:
    """Rows of a CSV or TSV file, every value a text; the header is not counted as a row."""
    csv.field_size_limit(_FIELD_LIMIT)
    with open_text(file.path, file.name) as stream, _bad_text_explained(file.name):
        reader = csv.reader(stream, delimiter=_delimiter(file), strict=True)
        try:
            header = next(reader, [])
            _check_header(header, file.name)
            for row, fields in enumerate((fields for fields in reader if fields), 1):
                if len(fields) == len(header):
                    values: dict[str, object] = dict(zip(header, fields, strict=True))
                    yield RawRow(file.name, row, values, line=reader.line_num)
                else:
                    problem = f"{len(fields)} fields, but the first line names {len(header)}"
                    yield RawRow(file.name, row, None, problem, line=reader.line_num)
        except csv.Error as error:
            raise _bad_table(file.name, reader.line_num, str(error)) from None


def _delimiter(file: DataFile) -> str:
    return "\t" if plain_suffix(file.path) == ".tsv" else ","


@contextmanager
def _bad_text_explained(name: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise _bad_table(name, None, f"not UTF-8 text ({error.reason})") from None


def _check_header(header: list[str], name: str) -> None:
    wrong = [column for column in header if not column.strip() or header.count(column) > 1]
    if wrong or not header:
        raise InputError(
            "the first line must name every column once",
            file=name,
            line=1,
            field=wrong[0] if wrong else None,
            value=header,
            remedy="Add a first line such as `instruction,output`.",
        )


def _bad_table(name: str, line: int | None, problem: str) -> InputError:
    return InputError(
        f"not readable as a table: {problem}",
        file=name,
        line=line,
        remedy="Save it as UTF-8 with standard quoting, or convert it to JSONL.",
    )


def _open_parquet(file: DataFile) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Streamed page by page: a file with one huge row group must not be read whole.
        return pq.ParquetFile(file.path, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _bad_parquet(file.name, error) from None


def iter_parquet(file: DataFile) -> Iterator[RawRow]:
    """Rows of a Parquet file, a few hundred in memory at once.

    What Arrow itself must hold is the dictionaries of one row group: a file written with one huge
    row group costs about twice the unpacked size of its repeated texts.
    """
    import pyarrow as pa

    with _open_parquet(file) as table:
        row = 0
        try:
            for batch in table.iter_batches(batch_size=_BATCH, use_threads=False):
                for value in batch.to_pylist():
                    row += 1
                    values = {key: jsonable(item) for key, item in value.items()}
                    text = json.dumps(values, ensure_ascii=False)
                    yield RawRow(file.name, row, values, text=text)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _bad_parquet(file.name, error) from None


def _bad_parquet(name: str, error: Exception) -> InputError:
    return InputError(
        f"not readable as Parquet ({str(error).splitlines()[0]})",
        file=name,
        remedy="Write or copy it again; a file that was cut off lacks its last bytes.",
    )


def column_names(file: DataFile) -> list[str] | None:
    """All columns of a file whose format names them up front (CSV, Parquet); else None."""
    refuse_empty(file)
    suffix = plain_suffix(file.path)
    if suffix == ".parquet":
        return list(_open_parquet(file).schema_arrow.names)
    if suffix in TABLES:
        with open_text(file.path, file.name) as stream, _bad_text_explained(file.name):
            return next(csv.reader(stream, delimiter=_delimiter(file)), [])
    return None


def parquet_rows(file: DataFile) -> int | None:
    """Number of rows of a Parquet file, from its metadata; None for other formats."""
    if plain_suffix(file.path) != ".parquet":
        return None
    with _open_parquet(file) as table:
        return int(table.metadata.num_rows)
