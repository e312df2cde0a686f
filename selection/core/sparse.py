"""Building, joining and picking sparse rows. Numpy only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows


def from_lists(rows: Sequence[Mapping[int, int]], n_latents: int) -> SparseRows:
    """Rows from {latent: value} mappings; zeros are left out.

    Raises ValueError for a latent outside [0, n_latents) or a value outside [0, 65535].
    """
    cleaned = [sorted((latent, value) for latent, value in row.items() if value) for row in rows]
    flat = [pair for row in cleaned for pair in row]
    for latent, value in flat:
        if not (0 <= latent < n_latents and 0 <= value <= 0xFFFF):
            raise ValueError(f"latent {latent} with value {value} does not fit {n_latents} latents")
    return SparseRows(
        indptr_of([len(row) for row in cleaned]),
        np.array([latent for latent, _ in flat], np.int32),
        np.array([value for _, value in flat], np.uint16),
        n_latents,
    )


def empty(n_rows: int, n_latents: int) -> SparseRows:
    """`n_rows` rows without any latent."""
    return from_lists([{}] * n_rows, n_latents)


def concatenate(parts: Sequence[SparseRows]) -> SparseRows:
    """All rows of all parts, in order. Raises ValueError for no parts or unequal widths."""
    widths = {part.n_latents for part in parts}
    if len(widths) != 1:
        raise ValueError(f"expected parts of one number of latents, got {sorted(widths)}")
    return SparseRows(
        indptr_of(np.concatenate([np.diff(part.indptr) for part in parts])),
        np.concatenate([part.latents for part in parts]),
        np.concatenate([part.values for part in parts]),
        widths.pop(),
    )


def cut(rows: SparseRows, first: int, last: int) -> SparseRows:
    """Rows `first` to `last`, the last not included; their entries are not copied."""
    indptr = rows.indptr[first : last + 1]
    entries = slice(indptr[0], indptr[-1])
    return SparseRows(
        indptr - indptr[0], rows.latents[entries], rows.values[entries], rows.n_latents
    )


def take(rows: SparseRows, wanted: NDArray[np.integer]) -> SparseRows:
    """The rows at positions `wanted` (m,), in that order; positions may repeat.

    Raises IndexError for a position outside [0, n).
    """
    wanted = np.asarray(wanted, np.int64)
    if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(rows)):
        raise IndexError(f"row numbers must be in [0, {len(rows)})")
    starts = rows.indptr[wanted]
    indptr = indptr_of(rows.indptr[wanted + 1] - starts)
    entries = entries_of(starts, indptr)
    return SparseRows(indptr, rows.latents[entries], rows.values[entries], rows.n_latents)


def document_frequency(
    rows: SparseRows, times: NDArray[np.integer] | None = None
) -> NDArray[np.int64]:
    """In how many rows each latent is, (n_latents,) int64; row i counts `times[i]` times."""
    if times is None:
        return np.bincount(rows.latents, minlength=rows.n_latents).astype(np.int64)
    counts = np.zeros(rows.n_latents, np.int64)
    np.add.at(counts, rows.latents, np.repeat(times.astype(np.int64), np.diff(rows.indptr)))
    return counts


def to_dense(rows: SparseRows) -> NDArray[np.unsignedinteger[Any]]:
    """(n, n_latents) of the values' type; for small inputs."""
    dense = np.zeros((len(rows), rows.n_latents), rows.values.dtype)
    dense[np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.latents] = rows.values
    return dense


def indptr_of(lengths: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """(n + 1,) int64 row starts, and the end, of rows with these numbers of entries."""
    indptr = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return indptr


def entries_of(starts: NDArray[np.int64], indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the entries of rows that begin at `starts`, to be laid out by `indptr`."""
    return np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], np.diff(indptr))
