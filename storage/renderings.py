"""The rendered samples of a pool on disk: tokens, what counts, and the key of each.

`<pool>/renderings/<rendering_id>/part-*.parquet`, one row per pool row in pool order; the counted
mask as run lengths (the first run does not count). `manifest.json`, written last, has the totals.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.errors import InputError
from selection.records import Rendered
from storage.files import (
    MANIFEST,
    full_disk_explained,
    is_complete,
    publish_folder,
    read_json,
    remove_stale_temps,
    sync_file,
    temp_path,
    write_json,
)
from storage.rendering_rows import SCHEMA, from_table, to_table

log = logging.getLogger(__name__)

_FORMAT = 1
_STALE_SECONDS = 3600.0
_PART_ROWS = 1 << 16
_GROUP_ROWS = 1024  # the least that is read for one sample: about a megabyte of tokens


def write_rendering(
    folder: Path, batches: Iterable[Sequence[Rendered]], settings: Mapping[str, object]
) -> bool:
    """Store the samples of a pool, batch after batch in pool order; memory is one batch's.

    settings: how they were rendered, for the manifest.
    Returns False, without touching `batches`, when the folder is complete already. Raises
    InputError when the disk is full.
    """
    if is_complete(folder):
        return False
    temp = temp_path(folder)
    with full_disk_explained(folder):
        try:
            temp.mkdir(parents=True)
            remove_stale_temps(folder.parent, _STALE_SECONDS)
            totals = _write_parts(temp, batches)
            manifest = {"format": _FORMAT, "totals": totals, "settings": dict(settings)}
            write_json(temp / MANIFEST, manifest)
            return publish_folder(temp, folder)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise


def open_rendering(folder: Path) -> "RenderedPool":
    """Open what `write_rendering` wrote. Raises InputError when it is missing or altered."""
    if not is_complete(folder):
        raise InputError(
            "this pool was not rendered with these settings yet",
            file=folder,
            remedy="Run the embedding, or the whole job, first.",
        )
    return RenderedPool(folder)


class RenderedPool:
    """The rendered samples of n pool rows; tokens stay on disk until they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest and the parts' sizes."""
        manifest = read_json(folder / MANIFEST)
        totals, settings = manifest.get("totals"), manifest.get("settings")
        if manifest.get("format") != _FORMAT or not isinstance(totals, dict):
            raise _altered(folder / MANIFEST)
        self.folder = folder
        self.totals: dict[str, int] = totals
        """n_samples, n_tokens, n_counted, n_truncated, n_response_lost, n_nothing_counted."""
        self.settings: dict[str, object] = settings if isinstance(settings, dict) else {}
        self._parts = sorted(folder.glob("part-*.parquet"))
        self._groups = _row_groups(self._parts)
        if sum(n_rows for _, _, n_rows in self._groups) != len(self):
            raise _altered(folder)

    def __len__(self) -> int:
        """Number of pool rows."""
        return self.totals["n_samples"]

    def keys(self) -> NDArray[np.uint8]:
        """(n, 16) key of each row; equal tokens and counted mask have equal keys."""
        return self._keys

    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens after truncation."""
        return self._column("n_tokens").astype(np.int64)

    def full_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens before truncation."""
        return self._column("n_full").astype(np.int64)

    def n_counted(self) -> NDArray[np.int64]:
        """(n,) tokens that enter the aggregate."""
        return self._column("n_counted").astype(np.int64)

    def response_truncated(self) -> NDArray[np.bool_]:
        """(n,) the row has a response, and truncation cut all of it away."""
        return self._column("response_lost").astype(np.bool_)

    def usable(self) -> NDArray[np.bool_]:
        """(n,) rows that get a vector: something counts, and the response was not cut away."""
        return (self.n_counted() > 0) & ~self.response_truncated()

    @property
    def n_usable(self) -> int:
        """Number of usable rows."""
        return int(self.usable().sum())

    def samples(self, rows: NDArray[np.integer]) -> list[Rendered]:
        """The samples of pool rows, in the order given. Raises IndexError for unknown rows."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"row numbers must be in [0, {len(self)})")
        starts = np.cumsum([0, *(n_rows for _, _, n_rows in self._groups)])
        group = np.searchsorted(starts, rows, side="right") - 1
        found: dict[int, Rendered] = {}
        for number in np.unique(group).tolist():
            wanted = np.unique(rows[group == number])
            table = self._read(number)
            for row, sample in zip(
                wanted.tolist(), from_table(table, wanted - starts[number]), strict=True
            ):
                found[row] = sample
        return [found[row] for row in rows.tolist()]

    @cached_property
    def _keys(self) -> NDArray[np.uint8]:
        column = self._arrow("key")
        data = [
            np.frombuffer(chunk.buffers()[1], np.uint8) for chunk in column.chunks if len(chunk)
        ]
        keys = np.concatenate([np.zeros(0, np.uint8), *data])
        return keys.reshape(-1, 16)

    def _column(self, name: str) -> NDArray[np.generic]:
        if name not in self._columns:
            self._columns[name] = self._arrow(name).to_numpy()
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.generic]]:
        return {}

    def _arrow(self, name: str) -> pa.ChunkedArray:
        tables = [pq.read_table(part, columns=[name]) for part in self._parts]
        return pa.concat_tables([*tables, SCHEMA.empty_table().select([name])])[name]

    def _read(self, group: int) -> pa.Table:
        part, within, _ = self._groups[group]
        columns = ["tokens", "counted", "n_full", "truncated", "response_lost"]
        with pq.ParquetFile(self._parts[part]) as file:
            return file.read_row_group(within, columns=columns)


def _write_parts(folder: Path, batches: Iterable[Sequence[Rendered]]) -> dict[str, int]:
    """Write the parts, each synced, and return the totals."""
    names = ("n_tokens", "n_counted", "n_truncated", "n_response_lost", "n_nothing_counted")
    totals = dict.fromkeys(("n_samples", *names), 0)

    def tables() -> Iterator[pa.Table]:
        for batch in batches:
            table = to_table(batch, totals["n_samples"])
            _count(totals, batch)
            yield table

    for number, part in enumerate(_cut(tables(), _PART_ROWS)):
        file = folder / f"part-{number:05}.parquet"
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for table in part:
                writer.write_table(table, row_group_size=_GROUP_ROWS)
        sync_file(file)
    return totals


def _cut(tables: Iterator[pa.Table], n_rows: int) -> Iterator[Iterator[pa.Table]]:
    """Groups of tables with `n_rows` rows each, the last one with fewer; consumed in order."""
    left: list[pa.Table] = []

    def group() -> Iterator[pa.Table]:
        room = n_rows
        while room and (table := left.pop() if left else next(tables, None)) is not None:
            yield table.slice(0, room)
            if table.num_rows > room:
                left.append(table.slice(room))
            room -= min(room, table.num_rows)

    while left or (table := next(tables, None)) is not None:
        if not left:
            left.append(table)
        yield group()


def _count(totals: dict[str, int], batch: Sequence[Rendered]) -> None:
    totals["n_samples"] += len(batch)
    for sample in batch:
        n_counted = int(sample.counted.sum())
        totals["n_tokens"] += len(sample.tokens)
        totals["n_counted"] += n_counted
        totals["n_truncated"] += sample.truncated
        totals["n_response_lost"] += sample.response_lost
        totals["n_nothing_counted"] += n_counted == 0


def _row_groups(parts: Sequence[Path]) -> list[tuple[int, int, int]]:
    """(part, group within it, rows) of every row group, in pool order."""
    groups = []
    for number, part in enumerate(parts):
        try:
            metadata = pq.read_metadata(part)
        except (OSError, pa.ArrowInvalid):
            raise _altered(part) from None
        groups += [
            (number, group, metadata.row_group(group).num_rows)
            for group in range(metadata.num_row_groups)
        ]
    return groups


def _altered(file: Path) -> InputError:
    return InputError(
        "this is not what was written",
        file=file,
        remedy=f"Delete the folder {file.parent if file.suffix else file} and run again.",
    )
