"""A pool as tokens: what the model will read of every example, kept once per rendering.

`pools/<pool_id>/renderings/<rendering_id>/part-*.parquet`, in pool order, and a manifest written
last. Parts are written whole, so a killed rendering goes on behind the last one.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.activations.prefixes import sorted_by_tokens
from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.records import Rendered
from selection.rendering.renderer import render_key
from storage.files.atomic import MANIFEST, is_complete, write_atomically, write_json
from storage.files.parquet_parts import damage_explained

SCHEMA = pa.schema(
    [
        ("key", pa.binary(16)),  # selection.rendering.renderer.render_key
        ("n_full", pa.int32()),  # tokens before truncation
        ("n_counted", pa.int32()),
        ("truncated", pa.bool_()),
        ("response_lost", pa.bool_()),
        ("tokens", pa.list_(pa.uint32())),
        ("runs", pa.list_(pa.uint32())),  # run lengths of `counted`, first the uncounted run
    ]
)
_COLUMNS = ("key", "n_full", "n_counted", "truncated", "response_lost")

HELD_TOKENS = 2**24
"""Tokens that are held (64 MB), so that rows may be asked for in another order than the pool's."""


def rows_done(folder: Path) -> int:
    """Rows of the parts that are there; a rendering goes on behind them."""
    return sum(pq.read_metadata(part).num_rows for part in _parts(folder))


def write_rendering(
    folder: Path, batches: Iterable[Sequence[Rendered]], settings: Mapping[str, object]
) -> None:
    """Append parts behind those that are there, then write the manifest.

    batches:  rendered examples in pool order, beginning at row `rows_done(folder)`.
    settings: of the renderer, for the manifest.
    """
    if is_complete(folder):
        return
    first = len(_parts(folder))
    for number, batch in enumerate(batches, start=first):
        write = partial(pq.write_table, _table(batch), compression="zstd")
        write_atomically(folder / f"part-{number:06}.parquet", write)
    totals = RenderedPool(folder).totals
    hashes = {part.name: file_sha256(part) for part in _parts(folder)}
    write_json(folder / MANIFEST, {"settings": settings, "totals": totals, "sha256": hashes})


def open_rendering(folder: Path) -> "RenderedPool":
    """A finished rendering. Raises InputError when it is missing or unfinished."""
    if not is_complete(folder):
        raise InputError(
            "the pool is not rendered", file=folder, remedy="Run it again; it goes on by itself."
        )
    return RenderedPool(folder)


class RenderedPool:
    """Tokens of a prepared pool's n examples; rows are those of the pool.

    Small columns are held (about 30 bytes a row); tokens are read part by part when asked for.
    """

    def __init__(self, folder: Path) -> None:
        """Use `open_rendering`, which checks that the rendering is finished."""
        self.folder = folder
        self._files = _parts(folder)
        tables = [_read(file, list(_COLUMNS)) for file in self._files]
        self._first = np.cumsum([0, *(len(table) for table in tables)])
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(_COLUMNS)
        self._keys = np.frombuffer(b"".join(table["key"].to_pylist()), np.uint8).reshape(-1, 16)
        self._columns = {name: table[name].to_numpy() for name in _COLUMNS[1:]}
        self._lengths = self._read_lengths()
        self._held: dict[int, tuple[NDArray[np.uint32], ...]] = {}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._keys)

    def keys(self) -> NDArray[np.uint8]:
        """(n, 16) key of each row's tokens and mask; equal renderings share it."""
        return self._keys

    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens after truncation, template included: what the model reads."""
        return self._lengths

    def full_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens before truncation."""
        return self._columns["n_full"].astype(np.int64)

    def n_counted(self) -> NDArray[np.int64]:
        """(n,) tokens that enter the aggregate."""
        return self._columns["n_counted"].astype(np.int64)

    def usable(self) -> NDArray[np.bool_]:
        """(n,) whether anything of the row counts, so that it has a vector."""
        return self._columns["n_counted"] > 0

    def response_truncated(self) -> NDArray[np.bool_]:
        """(n,) truncation cut the whole response away, and nothing else of the row counts."""
        return self._columns["response_lost"] & ~self.usable()

    @property
    def n_usable(self) -> int:
        """Number of different renderings of usable rows: the vectors that the pool needs."""
        return len(self.first_rows())

    def first_usable(self, n: int) -> NDArray[np.int64]:
        """The first n usable rows."""
        return np.flatnonzero(self.usable())[:n]

    def first_rows(self) -> NDArray[np.int64]:
        """Rows, ascending: the first usable one of every key."""
        return first_of_each(self._keys, self.usable())

    @property
    def totals(self) -> dict[str, int]:
        """Sums for reports: tokens, counted tokens, truncated rows, responses cut away whole."""
        return {
            "n_tokens": int(self._lengths.sum()),
            "n_counted": int(self._columns["n_counted"].sum()),
            "n_truncated": int(self._columns["truncated"].sum()),
            "n_response_lost": int(self._columns["response_lost"].sum()),
        }

    def samples(self, rows: NDArray[np.int64]) -> list[Rendered]:
        """The given rows as the model reads them, in the order given."""
        numbers = np.searchsorted(self._first, rows, side="right") - 1
        samples: dict[int, Rendered] = {}
        for position in np.argsort(numbers, kind="stable").tolist():  # each part is read once
            row, number = int(rows[position]), int(numbers[position])
            tokens, starts, runs, run_starts = self._part(number)
            i = row - int(self._first[number])
            samples[position] = Rendered(
                tokens=tokens[starts[i] : starts[i + 1]],
                content_mask=_from_runs(runs[run_starts[i] : run_starts[i + 1]]),
                n_full=int(self._columns["n_full"][row]),
                truncated=bool(self._columns["truncated"][row]),
                response_lost=bool(self._columns["response_lost"][row]),
            )
        return [samples[position] for position in range(len(rows))]

    def in_token_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, so that those whose tokens begin alike stand together.

        rows: ascending. They are sorted by their tokens within stretches of the pool of
        HELD_TOKENS / 2 tokens, so that memory does not grow with the pool, and what a stretch needs
        is mostly held while its rows are read in any order.
        """
        ends = np.cumsum(self._lengths)[rows]
        parts, start = [np.zeros(0, np.int64)], 0
        while start < len(rows):
            end = int(np.searchsorted(ends, ends[start] + HELD_TOKENS // 2, side="right"))
            stretch = rows[start:end]
            parts.append(stretch[sorted_by_tokens([s.tokens for s in self.samples(stretch)])])
            start = end
        return np.concatenate(parts)

    def _part(self, number: int) -> tuple[NDArray[np.uint32], ...]:
        if number not in self._held:
            part = self._read_part(number)
            n_tokens = len(part[0])
            while self._held and n_tokens + self._n_held() > HELD_TOKENS:
                del self._held[next(iter(self._held))]
            self._held[number] = part
        return self._held[number]

    def _n_held(self) -> int:
        return sum(len(tokens) for tokens, *_ in self._held.values())

    def _read_part(self, number: int) -> tuple[NDArray[np.uint32], ...]:
        table = _read(self._files[number], ["tokens", "runs"]).combine_chunks()
        return (*_flat(table["tokens"]), *_flat(table["runs"]))

    def _read_lengths(self) -> NDArray[np.int64]:
        """Token counts from the run lengths, which are much shorter than the tokens."""
        lengths = [np.zeros(0, np.int64)]
        for file in self._files:
            runs, starts = _flat(_read(file, ["runs"]).combine_chunks()["runs"])
            summed = np.concatenate([[0], np.cumsum(runs, dtype=np.int64)])
            lengths.append(summed[starts[1:]] - summed[starts[:-1]])
        return np.concatenate(lengths)


def first_of_each(keys: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows, ascending: the first usable one of every key (n, 16)."""
    rows = np.flatnonzero(usable)
    _, first = np.unique(keys[rows].view("V16").ravel(), return_index=True)
    return rows[np.sort(first)]


def _read(file: Path, columns: list[str]) -> pa.Table:
    with damage_explained(file):
        return pq.read_table(file, columns=columns)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _table(batch: Sequence[Rendered]) -> pa.Table:
    columns = {
        "key": [render_key(sample) for sample in batch],
        "n_full": [sample.n_full for sample in batch],
        "n_counted": [int(sample.content_mask.sum()) for sample in batch],
        "truncated": [sample.truncated for sample in batch],
        "response_lost": [sample.response_lost for sample in batch],
        "tokens": _lists([sample.tokens for sample in batch]),
        "runs": _lists([_runs(sample.content_mask) for sample in batch]),
    }
    return pa.table(columns, schema=SCHEMA)


def _lists(arrays: Sequence[NDArray[np.uint32]]) -> pa.ListArray:
    offsets = np.cumsum([0, *(len(array) for array in arrays)]).astype(np.int32)
    values = np.concatenate(arrays) if arrays else np.zeros(0)
    return pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.uint32)))


def _flat(column: pa.ChunkedArray) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Values and offsets of a list column of one chunk."""
    chunks = column.chunks
    if not chunks:
        return np.zeros(0, np.uint32), np.zeros(1, np.uint32)
    (chunk,) = chunks
    return chunk.values.to_numpy(), chunk.offsets.to_numpy()


def _runs(counted: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Run lengths of a mask, beginning with the (maybe empty) run of False."""
    if not len(counted):
        return np.zeros(0, np.uint32)
    bounds = np.flatnonzero(np.diff(counted)) + 1
    runs = np.diff(np.concatenate([[0], bounds, [len(counted)]]))
    return np.concatenate([[0], runs] if counted[0] else [runs]).astype(np.uint32)


def _from_runs(runs: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs.astype(np.int64))
