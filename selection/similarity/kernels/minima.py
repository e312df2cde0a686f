"""The compiled loop of generalized Jaccard: sums of minima of every row with every query.

m = sum over latents of w min(a, b); `reduce` makes m / (|a| + |b| - m) of it, |.| a weighted sum.

A row is read once. A latent that many queries share is a line of limits, one for each query, and
LLVM turns the loop over them into vectors; four lines at a time, so that sums are loaded and stored
a quarter as often, and in 32 bits for as long as they fit. A latent that few queries share is a
short list of (query, limit).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.similarity.kernels.rows import RowArrays, value_at
from selection.similarity.kernels.tables import LINE_LIMIT, QueryTables

_U = np.uint64  # Unsigned indices spare the loops numba's test for negative ones.
_FULL = np.int64((1 << 32) - 1)


class RowMemory(NamedTuple):
    """Memory of one thread for rows of at most `longest` entries.

    positions:      (longest + 4,) uint32, entries whose latent a query has.
    lined, listed:  (longest + 4,) uint32, their columns, of lines and of lists.
    line_amounts:   (longest + 4,) uint32, weighted values; list_amounts: the same in int64.
    part:           (width,) uint32, sums that are not yet in the row's.
    Every entry is written and only the count decides whether it stays: no branch to mispredict.
    """

    positions: NDArray[np.uint32]
    lined: NDArray[np.uint32]
    listed: NDArray[np.uint32]
    line_amounts: NDArray[np.uint32]
    list_amounts: NDArray[np.int64]
    part: NDArray[np.uint32]


def row_memory(longest: int, width: int) -> RowMemory:
    """Memory for rows of at most `longest` entries and lines of `width` queries."""
    positions, lined, listed, line_amounts = np.empty((4, longest + 4), np.uint32)
    list_amounts, part = np.empty(longest + 4, np.int64), np.empty(width, np.uint32)
    return RowMemory(positions, lined, listed, line_amounts, list_amounts, part)


@njit(nogil=True, cache=True)
def sum_minima(
    rows: RowArrays,
    tables: QueryTables,
    memory: RowMemory,
    sums: NDArray[np.int64],
) -> None:
    """Write sums (>= n, width) of weighted minima of n rows.

    width: of the tables' lines; sums beyond the m queries mean nothing. Latents are not checked.
    """
    # Fields of tuples are taken out before the loops: each time costs two atomic counts.
    indptr, latents, values = rows
    in_query, columns, weights, lines, starts, owners, limits, multipliers = tables
    positions, lined, listed, line_amounts, list_amounts, part = memory
    n_lines, width = _U(lines.shape[0]), _U(lines.shape[1])
    for i in range(len(indptr) - 1):
        begin, n = _U(indptr[i]), _U(0)
        for q in range(_U(indptr[i + 1]) - begin):
            latent = _U(latents[begin + q])
            positions[n] = q
            n += (_U(in_query[latent >> _U(3)]) >> (latent & _U(7))) & _U(1)
        n_lined, n_listed = _U(0), _U(0)
        for p in range(n):
            e = begin + _U(positions[p])
            column = _U(columns[_U(latents[e])])
            amount = value_at(values, e) * weights[column]
            lined[n_lined], line_amounts[n_lined] = column, min(amount, np.int64(LINE_LIMIT))
            listed[n_listed], list_amounts[n_listed] = column - n_lines, amount
            n_lined += _U(column < n_lines)
            n_listed += _U(column >= n_lines)
        row_sums = sums[i]
        row_sums[:] = 0
        for p in range(n_listed):
            column, amount = _U(listed[p]), list_amounts[p]
            for k in range(_U(starts[column]), _U(starts[column + _U(1)])):
                query = _U(owners[k])
                row_sums[query] += min(multipliers[query] * amount, limits[k])
        while n_lined & _U(3):  # A line too few for four: nothing is added for it.
            lined[n_lined], line_amounts[n_lined] = 0, 0
            n_lined += _U(1)
        part[:] = 0
        largest = np.int64(0)  # No sum of `part` is above it.
        for p in range(_U(0), n_lined, _U(4)):
            a, b = line_amounts[p], line_amounts[p + _U(1)]
            c, d = line_amounts[p + _U(2)], line_amounts[p + _U(3)]
            four = np.int64(a) + np.int64(b) + np.int64(c) + np.int64(d)
            largest += four
            if largest > _FULL:
                _move(part, row_sums)
                largest = four
            line_a, line_b = lines[_U(lined[p])], lines[_U(lined[p + _U(1)])]
            line_c, line_d = lines[_U(lined[p + _U(2)])], lines[_U(lined[p + _U(3)])]
            for j in range(width):
                left = np.uint32(min(a, line_a[j]) + min(b, line_b[j]))
                right = np.uint32(min(c, line_c[j]) + min(d, line_d[j]))
                part[j] += np.uint32(left + right)
        _move(part, row_sums)


@njit(nogil=True, cache=True)
def _move(part: NDArray[np.uint32], sums: NDArray[np.int64]) -> None:
    """Add the part to the sums, and empty it."""
    for j in range(_U(len(part))):
        sums[j] += np.int64(part[j])
        part[j] = 0
