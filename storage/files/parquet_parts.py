"""One long table as Parquet parts of fixed size, so that a row number leads straight to its place.

`STEM-00000.parquet`, `STEM-00001.parquet`, ...: every part has `PART_ROWS` rows and every row group
`GROUP_ROWS`, but the last. The bytes depend on the rows alone, not on how they were handed over.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.core.errors import InputError
from storage.files.atomic import sync_file

GROUP_ROWS = 1024
PART_ROWS = 128 * GROUP_ROWS
_MUCH = 32 << 20  # bytes of a row group behind which pyarrow gives back what reading it took


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged or missing Parquet file into InputError."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"not readable as Parquet ({str(error).strip().splitlines()[0]})",
            file=path,
            remedy=f"It was changed or damaged. Remove the folder {path.parent}, and run again what"
            " made it.",
        ) from None


class PartWriter:
    """Writes a table that comes in pieces; `close` must be called once, after the last piece."""

    def __init__(
        self, folder: Path, stem: str, schema: pa.Schema, *, one_file: bool = False
    ) -> None:
        """Start with no rows; `folder` must exist.

        one_file: write `STEM.parquet` alone, which `PartReader` does not read.
        """
        self._folder, self._stem, self._schema = folder, stem, schema
        self._one_file = one_file
        self._waiting: list[pa.Table] = []
        self._n_waiting = self.n_rows = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Take rows; whole row groups are written at once."""
        self._waiting.append(table)
        self._n_waiting += table.num_rows
        if self._n_waiting >= GROUP_ROWS:
            rest = self._n_waiting % GROUP_ROWS
            self._write(self._n_waiting - rest)

    def close(self) -> None:
        """Write what is left, and wait until it is on the disk. An empty table has one part."""
        self._write(self._n_waiting)
        if self._writer is None:
            self._writer = self._open()
        self._finish_part()

    def _write(self, n_rows: int) -> None:
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting])
        for start in range(0, n_rows, GROUP_ROWS):
            group = table.slice(start, min(GROUP_ROWS, n_rows - start)).combine_chunks()
            if self._writer is None or (self.n_rows % PART_ROWS == 0 and not self._one_file):
                self._finish_part()
                self._writer = self._open()
            self._writer.write_table(group, row_group_size=GROUP_ROWS)
            self.n_rows += group.num_rows
        rest = table.slice(n_rows)
        self._waiting, self._n_waiting = [rest] if rest.num_rows else [], rest.num_rows

    def _open(self) -> pq.ParquetWriter:
        number = "" if self._one_file else f"-{self.n_rows // PART_ROWS:05d}"
        self._path = self._folder / f"{self._stem}{number}.parquet"
        return pq.ParquetWriter(self._path, self._schema, compression="zstd")

    def _finish_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            sync_file(self._path)
        self._writer = None


class PartReader:
    """Reads what `PartWriter` wrote, by row number or in order. Holds no row."""

    def __init__(self, folder: Path, stem: str) -> None:
        """Find the parts of a table; raises FileNotFoundError when there are none."""
        self._paths = sorted(folder.glob(f"{stem}-*.parquet"))
        if not self._paths:
            raise FileNotFoundError(f"{folder} has no {stem}-*.parquet")

    @cached_property
    def schema(self) -> pa.Schema:
        """The table's columns."""
        return pq.read_schema(self._paths[0])

    def iter_batches(
        self, columns: Sequence[str] | None = None, start_row: int = 0, batch_rows: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """The rows from `start_row` on, in order, at most `batch_rows` at a time."""
        first, skip = divmod(start_row, GROUP_ROWS)
        with damage_explained(self._paths[-1]):
            n_groups = pq.read_metadata(self._paths[-1]).num_row_groups
        n_groups += (len(self._paths) - 1) * (PART_ROWS // GROUP_ROWS)
        for table in self._read_groups(np.arange(first, n_groups), columns):
            yield from table.slice(skip).to_batches(batch_rows)
            skip = 0

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The given rows in the given order; each row group that holds one is read once."""
        wanted, places = np.unique(rows, return_inverse=True)
        groups, starts = np.unique(wanted // GROUP_ROWS, return_index=True)
        inside = np.split(wanted % GROUP_ROWS, starts[1:])
        tables = [self._empty(columns)]
        for table, local in zip(self._read_groups(groups, columns), inside, strict=False):
            tables.append(table.take(pa.array(local)))
        return pa.concat_tables(tables).take(pa.array(places))

    def ranges(self, column: str) -> NDArray[np.int64]:
        """(n_groups, 2) smallest and largest value of an integer column in every row group."""
        ranges = []
        for path in self._paths:
            with damage_explained(path):
                meta = pq.read_metadata(path)
            at = meta.schema.names.index(column)
            for group in range(meta.num_row_groups):
                statistics = meta.row_group(group).column(at).statistics
                ranges.append((statistics.min, statistics.max))
        return np.array(ranges, np.int64).reshape(-1, 2)

    def groups(self, groups: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """Whole row groups, by number over all parts, in order."""
        return pa.concat_tables([self._empty(columns), *self._read_groups(groups, columns)])

    def _read_groups(
        self, groups: NDArray[np.int64], columns: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        """One table per group; a part stays open while its groups are read."""
        parts = groups // (PART_ROWS // GROUP_ROWS)
        for part in np.unique(parts):
            path = self._paths[part]
            with damage_explained(path), pq.ParquetFile(path, pre_buffer=False) as file:
                for group in groups[parts == part] % (PART_ROWS // GROUP_ROWS):
                    table = file.read_row_group(int(group), columns=columns, use_threads=False)
                    if table.nbytes > _MUCH:
                        pa.default_memory_pool().release_unused()
                    yield table

    def _empty(self, columns: Sequence[str] | None) -> pa.Table:
        names = self.schema.names if columns is None else columns
        return pa.schema([self.schema.field(name) for name in names]).empty_table()
