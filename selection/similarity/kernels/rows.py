"""Sparse rows as compiled loops read them: their arrays, their norms, and sums over pairs.

The loops do not check bounds, so `row_arrays` does before it hands anything out.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.kernels.limits import ROW_BITS

WEIGHT_LIMIT = 1 << 32  # Weights share a 64-bit word with a column number.
WIDE_ROW_LIMIT = 1 << ROW_BITS  # No row of 32-bit values sums to more: `spaces` sees to it.

_U = np.uint64  # Unsigned indices spare the loops numba's test for negative ones.


class RowArrays(NamedTuple):
    """The arrays of SparseRows, all read-only: loops are compiled once, for these types.

    values: (nnz, 1) uint16, or (nnz, 2), low and high halves of 32-bit values; see `value_at`.
    """

    indptr: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.uint16]


def row_arrays(rows: SparseRows, first: int = 0, last: int | None = None) -> RowArrays:
    """Rows first..last - 1, by default all, as the loops expect them, without copies.

    Raises ValueError if a row or a latent lies outside the arrays: the data is damaged. And if
    values are not unsigned 16 or 32 bit: floats, NaN and negative numbers would wrap around.
    """
    if rows.values.dtype not in (np.uint16, np.uint32):
        raise ValueError(f"values must be uint16 or uint32, not {rows.values.dtype}")
    indptr = np.asarray(rows.indptr[first : None if last is None else last + 1], np.int64)
    n_entries = min(len(rows.latents), len(rows.values))
    if np.diff(indptr, prepend=0, append=n_entries).min() < 0:
        raise ValueError(f"rows must ascend within {n_entries} entries; the data is damaged")
    entries = slice(indptr[0], indptr[-1])
    latents = np.ascontiguousarray(rows.latents[entries], np.int32)
    if latents.view(np.uint32).max(initial=0) >= max(rows.n_latents, 1):  # Negatives are large.
        raise ValueError(f"latents must be in [0, {rows.n_latents}); the data is damaged")
    values = np.ascontiguousarray(rows.values[entries])
    halves = values.view(np.uint16).reshape(len(values), values.itemsize // 2)
    arrays = RowArrays(indptr - indptr[0], latents.view(), halves)
    for array in arrays:
        array.flags.writeable = False
    return arrays


@njit(nogil=True, cache=True)
def value_at(values: NDArray[np.uint16], entry: int) -> np.int64:
    """The value of an entry."""
    value = np.int64(values[entry, 0])
    return value + (np.int64(values[entry, 1]) << 16) if values.shape[1] > 1 else value


def weighted_norms(rows: SparseRows, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Weighted L1 norms (n,) int64; 0 for a row without a latent that has a weight."""
    check_weights(weights, rows)
    norms = np.empty(len(rows), np.int64)
    fill_norms(row_arrays(rows), weights, norms)
    return norms


def check_weights(weights: NDArray[np.int64], rows: SparseRows, multiplier: int = 1) -> None:
    """Refuse weights of the wrong shape or sign, or so large that a sum could wrap around."""
    n_latents = rows.n_latents
    row_limit = WIDE_ROW_LIMIT if rows.values.dtype == np.uint32 else 65_535 * n_latents
    if weights.shape != (n_latents,) or weights.dtype != np.int64:
        raise ValueError(f"weights must be int64 of shape ({n_latents},)")
    largest = int(weights.max(initial=0))
    if int(weights.min(initial=0)) < 0 or largest >= WEIGHT_LIMIT:
        raise ValueError("weights must be in [0, 2^32)")
    if largest * row_limit * multiplier >= 1 << 62:
        raise OverflowError(
            f"a weight of {largest} with {n_latents} latents and a multiplier of {multiplier} "
            "could exceed 64-bit sums; use smaller weights or fewer exemplars"
        )


@njit(nogil=True, cache=True)
def fill_norms(rows: RowArrays, weights: NDArray[np.int64], norms: NDArray[np.int64]) -> None:
    """Write the weighted norms (n,) of n rows."""
    for i in range(len(norms)):
        norm = np.int64(0)
        for p in range(_U(rows.indptr[i]), _U(rows.indptr[i + 1])):
            norm += value_at(rows.values, p) * weights[_U(rows.latents[p])]
        norms[i] = norm


@njit(nogil=True, cache=True)
def pair_minima(
    left: RowArrays,
    right: RowArrays,
    left_rows: NDArray[np.int64],
    right_rows: NDArray[np.int64],
    weights: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Sum of weighted minima of each pair (left_rows[p], right_rows[p]), by merging two rows."""
    for p in range(len(out)):
        a, a_end = left.indptr[left_rows[p]], left.indptr[left_rows[p] + 1]
        b, b_end = right.indptr[right_rows[p]], right.indptr[right_rows[p] + 1]
        total = np.int64(0)
        while a < a_end and b < b_end:
            f, g = left.latents[a], right.latents[b]
            if f == g:
                total += weights[f] * min(value_at(left.values, a), value_at(right.values, b))
            a += f <= g
            b += g <= f
        out[p] = total
