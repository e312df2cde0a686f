"""Parquet and Arrow files to raw rows, a few hundred in memory at once."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from selection.core.errors import InputError
from selection.data.containers.rows import RawRow, jsonable
from selection.data.containers.streams import DataFile, is_url, url_to_filesystem

_BATCH = 512  # rows of a file in memory at once


@contextmanager
def _opened(file: DataFile) -> Iterator[Any]:
    """A ParquetFile, or a reader of Arrow batches; what goes wrong while reading is explained."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        try:
            if file.suffix == ".parquet":
                # Streamed page by page: a file with one huge row group must not be read whole.
                where = stack.enter_context(_seekable(file)) if is_url(file.location) else None
                yield stack.enter_context(
                    pq.ParquetFile(where or file.location, buffer_size=1 << 20, pre_buffer=False)
                )
            else:
                yield stack.enter_context(_arrow_reader(file))
        except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
            kind = "Parquet" if file.suffix == ".parquet" else "Arrow"
            raise InputError(
                f"not readable as {kind} ({(str(error) or type(error).__name__).splitlines()[0]})",
                file=file.name,
                remedy="Write or copy it again; a file that was cut off lacks its last bytes.",
            ) from None


@contextmanager
def _seekable(file: DataFile) -> Iterator[Any]:
    filesystem, path = url_to_filesystem(file.location)
    with filesystem.open(path, "rb") as stream:
        yield stream


@contextmanager
def _arrow_reader(file: DataFile) -> Iterator[Any]:
    """Reader of an Arrow stream (as `datasets` saves it), or of an Arrow or Feather file."""
    import pyarrow as pa

    with ExitStack() as stack:
        if is_url(file.location):
            source: Any = stack.enter_context(_seekable(file))
        else:
            source = stack.enter_context(pa.memory_map(file.location))
        if source.read(6) in (b"ARROW1", b"FEA1"):
            source.seek(0)
            yield stack.enter_context(pa.ipc.open_file(source))
        else:
            source.seek(0)
            yield stack.enter_context(pa.ipc.open_stream(source))


def iter_arrow(file: DataFile) -> Iterator[RawRow]:
    """Rows of a Parquet or Arrow file, numbered from 1.

    What Arrow itself must hold of Parquet is the dictionaries of one row group: a file written with
    one huge row group costs about twice the unpacked size of its repeated texts.
    """
    with _opened(file) as table:
        row = 0
        for batch in _batches(table):
            for value in batch.to_pylist(maps_as_pydicts="strict"):
                row += 1
                values = {key: jsonable(item) for key, item in value.items()}
                text = json.dumps(values, ensure_ascii=False)
                yield RawRow(file.name, row, values, text=text)


def _batches(table: Any) -> Iterator[Any]:
    if hasattr(table, "iter_batches"):
        yield from table.iter_batches(batch_size=_BATCH, use_threads=False)
        return
    if hasattr(table, "num_record_batches"):
        batches = (table.get_batch(i) for i in range(table.num_record_batches))
    else:
        batches = iter(table)
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            yield batch.slice(start, _BATCH)


def columns_of(file: DataFile) -> list[str]:
    """The columns of a Parquet or Arrow file."""
    with _opened(file) as table:
        schema = table.schema_arrow if hasattr(table, "schema_arrow") else table.schema
        return list(schema.names)


def parquet_rows(file: DataFile) -> int | None:
    """Number of rows of a Parquet file, from its metadata; None for other formats."""
    if file.suffix != ".parquet":
        return None
    with _opened(file) as table:
        return int(table.metadata.num_rows)
