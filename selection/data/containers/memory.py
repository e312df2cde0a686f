"""Rows that are in memory: lists of dicts, tables of polars, pandas and Arrow, datasets."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from selection.core.errors import InputError
from selection.data.containers.rows import RawRow, jsonable

_BATCH = 1024  # rows of a table that become dicts at once


def iter_memory(data: object, name: str) -> Iterator[RawRow]:
    """Rows of a table or of an iterable of mappings, counted from 1.

    data: a polars, pandas or Arrow table (frame, reader, record batch), a `datasets.Dataset`, or
          any iterable of mappings. A missing value of any of them is null.
    name: what `file` says of these rows.
    Raises InputError for a row that is no mapping.
    """
    for row, value in enumerate(_mappings(data), 1):
        if not isinstance(value, Mapping):
            raise InputError(
                "a sample in memory must be a mapping of columns",
                file=name,
                line=row,
                value=value,
                remedy='Give dicts such as {"messages": [...]}, or a table.',
            )
        values = {str(key): jsonable(item) for key, item in value.items()}
        yield RawRow(name, row, values, text=json.dumps(values, ensure_ascii=False))


def _mappings(data: Any) -> Iterable[Any]:
    kind = type(data).__module__.split(".")[0]
    if kind == "polars":
        frame = data.collect() if hasattr(data, "collect") else data
        return frame.iter_rows(named=True)
    if kind == "pandas":
        import pyarrow as pa  # reads pandas' several missing values as null

        data, kind = pa.Table.from_pandas(data, preserve_index=False), "pyarrow"
    if kind == "pyarrow":
        batches = data.to_batches(_BATCH) if hasattr(data, "to_batches") else data
        batches = [data] if hasattr(data, "to_pylist") and batches is data else batches
        return (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
    return data
