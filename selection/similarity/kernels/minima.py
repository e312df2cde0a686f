"""The compiled loop of generalized Jaccard: sums of minima of every row with every query.

m = sum over latents of w min(a, b); `reduce` makes m / (|a| + |b| - m) of it, |.| a weighted sum.

A row is read once. A latent that many queries share is a line of limits, one for each query, and
LLVM turns the loop over them into vectors; four lines at a time, so that sums are loaded and stored
a quarter as often. A latent that few queries share is a short list of (query, limit).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.similarity.kernels.rows import RowArrays, value_at
from selection.similarity.kernels.tables import LINE_LIMIT, QueryTables

_U = np.uint64  # Unsigned indices spare the loops numba's test for negative ones.


class RowMemory(NamedTuple):
    """Memory of one thread, (longest row + 4,) uint32 each: entries with a column, lines of them.

    Every entry is written and only the count decides whether it stays: no branch to mispredict.
    """

    positions: NDArray[np.uint32]
    lines: NDArray[np.uint32]
    amounts: NDArray[np.uint32]


def row_memory(longest: int) -> RowMemory:
    """Memory for rows of at most `longest` entries."""
    return RowMemory(*np.empty((3, longest + 4), np.uint32))


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
    has_column, columns, weights, lines, starts, owners, limits, multipliers = tables
    positions, row_lines, amounts = memory
    n_lines, width = _U(lines.shape[0]), _U(lines.shape[1])
    for i in range(len(indptr) - 1):
        begin, n = _U(indptr[i]), _U(0)
        for q in range(_U(indptr[i + 1]) - begin):
            positions[n] = q
            n += _U(has_column[_U(latents[begin + q])])
        row_sums = sums[i]
        row_sums[:] = 0
        n_lined = _U(0)
        for p in range(n):
            e = begin + _U(positions[p])
            latent = _U(latents[e])
            column = _U(columns[latent])
            amount = value_at(values, e) * weights[column]
            if column < n_lines:
                row_lines[n_lined] = column
                amounts[n_lined] = min(amount, np.int64(LINE_LIMIT))
                n_lined += _U(1)
                continue
            for k in range(_U(starts[column - n_lines]), _U(starts[column - n_lines + _U(1)])):
                query = _U(owners[k])
                row_sums[query] += min(multipliers[query] * amount, limits[k])
        while n_lined & _U(3):  # A line too few for four: nothing is added for it.
            row_lines[n_lined], amounts[n_lined] = 0, 0
            n_lined += _U(1)
        for p in range(_U(0), n_lined, _U(4)):
            a, b, c, d = amounts[p], amounts[p + _U(1)], amounts[p + _U(2)], amounts[p + _U(3)]
            line_a, line_b = lines[_U(row_lines[p])], lines[_U(row_lines[p + _U(1)])]
            line_c, line_d = lines[_U(row_lines[p + _U(2)])], lines[_U(row_lines[p + _U(3)])]
            for j in range(width):
                left = np.uint32(min(a, line_a[j]) + min(b, line_b[j]))
                right = np.uint32(min(c, line_c[j]) + min(d, line_d[j]))
                row_sums[j] += np.int64(np.uint32(left + right))
