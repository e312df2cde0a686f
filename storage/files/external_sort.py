"""Sorting more rows than fit in memory: scatter by the first hex digits of an id, then sort each.

A bucket is a file of Arrow streams, one after another, so that 4,096 buckets need not be open at
once. What comes out is in the order of ids, whatever the number of buckets was.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BUCKET_BYTES = 32 << 20  # what one bucket should hold; it is sorted in memory
_BUFFER_BYTES = 8 << 20  # rows kept in memory before they are scattered
_MAX_DIGITS = 3


def digits_for(n_bytes: int) -> int:
    """How many hex digits of the id name a bucket, for this many bytes of rows."""
    digits = 0
    while digits < _MAX_DIGITS and n_bytes > BUCKET_BYTES * 16**digits:
        digits += 1
    return digits


class Buckets:
    """Rows on their way to being sorted by a column of hex ids."""

    def __init__(self, folder: Path, schema: pa.Schema, key: str, digits: int) -> None:
        """Start empty.

        folder: made here; the caller removes it.
        key:    string column of lower-case hex ids.
        digits: 16 ** digits buckets, see `digits_for`.
        """
        folder.mkdir(parents=True)
        self._folder, self._schema, self._key, self._digits = folder, schema, key, digits
        self._waiting: list[pa.RecordBatch] = []
        self._n_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows; they are written when enough have come together."""
        self._waiting.append(batch)
        self._n_bytes += batch.nbytes
        if self._n_bytes >= _BUFFER_BYTES:
            self._scatter()

    def sorted_tables(self, *then_by: str) -> Iterator[pa.Table]:
        """All rows in order of the key, then of `then_by`, then as they came; a bucket at a time.

        Each bucket's file is removed as soon as it is read.
        """
        self._scatter()
        order = [(name, "ascending") for name in (self._key, *then_by)]
        for path in sorted(self._folder.iterdir()):
            table = self._read(path)
            path.unlink()
            # The last key makes the order total: Arrow promises stability for few of its sorts.
            table = table.append_column("_came", pa.array(np.arange(table.num_rows)))
            rows = pc.sort_indices(table, sort_keys=[*order, ("_came", "ascending")])
            table = table.drop_columns("_came").take(rows)  # the unsorted one is let go
            yield table

    def _scatter(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting, schema=self._schema).combine_chunks()
        self._waiting, self._n_bytes = [], 0
        if not self._digits:
            self._append("all", table)
            return
        names = np.asarray(pc.utf8_slice_codeunits(table[self._key], 0, self._digits), object)
        order = np.argsort(names.astype(f"U{self._digits}"), kind="stable")
        buckets, starts = np.unique(names[order].astype(str), return_index=True)
        table = table.take(pa.array(order))
        ends = [*starts[1:], table.num_rows]
        for name, start, end in zip(buckets, starts, ends, strict=True):
            self._append(str(name), table.slice(int(start), int(end - start)))

    def _append(self, name: str, table: pa.Table) -> None:
        with (
            (self._folder / f"{name}.arrows").open("ab") as file,
            pa.ipc.new_stream(file, self._schema) as stream,
        ):
            stream.write_table(table)

    def _read(self, path: Path) -> pa.Table:
        """The streams of a bucket's file, as one table."""
        tables = []
        with path.open("rb") as file:
            size = path.stat().st_size
            while file.tell() < size:
                tables.append(pa.ipc.open_stream(file).read_all())
        return pa.concat_tables(tables).combine_chunks()
