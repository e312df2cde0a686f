"""Rendered samples as table rows, and back."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selection.records import Rendered

SCHEMA = pa.schema(
    [
        ("example_row", pa.int64()),
        ("key", pa.binary(16)),
        ("n_tokens", pa.int32()),
        ("n_counted", pa.int32()),
        ("n_full", pa.int32()),
        ("truncated", pa.bool_()),
        ("response_lost", pa.bool_()),
        ("tokens", pa.list_(pa.uint32())),
        ("counted", pa.list_(pa.uint32())),
    ]
)
"""`counted` is the mask as lengths of its runs of False, True, False, ...; the first may be 0."""


def to_table(batch: Sequence[Rendered], first_row: int) -> pa.Table:
    """Samples as rows of SCHEMA, numbered from `first_row`."""
    from selection.rendering import render_key  # tokenizers are not needed to read

    tokens = [sample.tokens.astype(np.uint32) for sample in batch]
    runs = [_runs(sample.counted) for sample in batch]
    columns = [
        pa.array(np.arange(first_row, first_row + len(batch))),
        pa.array([render_key(sample) for sample in batch], pa.binary(16)),
        pa.array([len(sample.tokens) for sample in batch], pa.int32()),
        pa.array([int(sample.counted.sum()) for sample in batch], pa.int32()),
        pa.array([sample.n_full for sample in batch], pa.int32()),
        pa.array([bool(sample.truncated) for sample in batch]),
        pa.array([bool(sample.response_lost) for sample in batch]),
        _lists(tokens),
        _lists(runs),
    ]
    return pa.table(columns, schema=SCHEMA)


def _lists(rows: Sequence[NDArray[np.uint32]]) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.concatenate([np.zeros(0, np.uint32), *rows])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Lengths of the runs of False, True, False, ...; the first may be 0."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask])))
    return np.diff(np.concatenate([[0], changes, [len(mask)]])).astype(np.uint32)


def _mask(runs: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def from_table(table: pa.Table, rows: NDArray[np.int64]) -> Iterator[Rendered]:
    """Samples at positions of a table that has tokens, counted, n_full and both flags."""
    lists = {name: _flat(table[name]) for name in ("tokens", "counted")}
    plain = {name: table[name].to_numpy() for name in ("n_full", "truncated", "response_lost")}
    for row in rows.tolist():
        tokens, runs = (
            values[offsets[row] : offsets[row + 1]] for offsets, values in lists.values()
        )
        yield Rendered(
            tokens=tokens.copy(),
            counted=_mask(runs),
            n_full=int(plain["n_full"][row]),
            truncated=bool(plain["truncated"][row]),
            response_lost=bool(plain["response_lost"][row]),
        )


def _flat(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """(offsets, values) of a list column."""
    array = column.combine_chunks()
    return array.offsets.to_numpy(), array.values.to_numpy()
