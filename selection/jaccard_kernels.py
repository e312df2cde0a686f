"""The compiled loops of generalized Jaccard: integers in, integers or one division per pair out.

Sums of minima and norms are integers, so their order cannot matter: a result is the same bit for
bit on any thread count, block split or shard split. No fastmath, and no parallel loops of numba:
the callers run these over blocks of rows in threads of their own, the GIL is released meanwhile.

A row is read once, against all queries. A latent that many queries share is a line of a dense
table, so that its minima are vector instructions; a latent that few queries share is a short list
of (query, limit), so that rare latents cost what they are.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.row_kernels import RowArrays

NO_COLUMN = 0xFFFFFFFF  # In the lookup: no query has this latent.
NARROW = 1 << 32  # Sums of minima below this fit the 32-bit accumulators.
SCORE_BITS = 40  # A mean adds scores as multiples of 2^-40, which is order-free.
REDUCE_MAX, REDUCE_MEAN = 0, 1
UNROLL = 4  # Table lines added at once; fewer stores of the accumulators.

_SCALE = float(1 << SCORE_BITS)
_U = np.uint64  # Unsigned indices spare the loops numba's test for negative ones.


class QueryArrays(NamedTuple):
    """m queries as the loops read them; a column is a latent that at least one query has.

    lookup:      (n_latents,) uint64, weight * 2^32 + column, NO_COLUMN where there is none.
    starts:      (n_columns + 1,) int64, column c is entries starts[c]:starts[c + 1].
    owner:       (n_entries,) uint32, the query of the entry.
    limits:      (n_entries,) int64, the query's weighted value.
    table:       (n_dense, lanes) uint32, the limits of columns 0..n_dense - 1 once more, clipped to
                 2^32 - 1; 0 where a query lacks the latent.
    norms:       (m,) int64, weighted L1 norm of the query.
    multipliers: (m,) int64, what a candidate is multiplied by before it is compared.
    members:     (ceil(n_latents / 64),) uint64, one bit per latent: has it a column? No words
                 where most latents have one and asking first would not pay.
    """

    lookup: NDArray[np.uint64]
    starts: NDArray[np.int64]
    owner: NDArray[np.uint32]
    limits: NDArray[np.int64]
    table: NDArray[np.uint32]
    norms: NDArray[np.int64]
    multipliers: NDArray[np.int64]
    members: NDArray[np.uint64]


class _Scratch(NamedTuple):
    """One row's entries, split by how their column is held, and the 32-bit accumulators."""

    positions: NDArray[np.uint32]
    table_columns: NDArray[np.uint32]
    table_amounts: NDArray[np.int64]
    list_columns: NDArray[np.uint32]
    list_amounts: NDArray[np.int64]
    narrow: NDArray[np.uint32]


@njit(nogil=True, cache=True)
def _scratch(rows: RowArrays, queries: QueryArrays, first: int, last: int) -> _Scratch:
    """Room for the longest row of a block, and for UNROLL entries more (see `_load_row`)."""
    longest = 0
    for i in range(first, last):
        longest = max(longest, rows.indptr[i + 1] - rows.indptr[i])
    return _Scratch(
        np.empty(longest + 1, np.uint32),
        np.empty(longest + UNROLL, np.uint32),
        np.empty(longest + UNROLL, np.int64),
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 1, np.int64),
        np.empty(max(queries.table.shape[1], len(queries.norms)), np.uint32),
    )


@njit(nogil=True, cache=True)
def _load_row(
    rows: RowArrays, queries: QueryArrays, i: int, scratch: _Scratch
) -> tuple[np.int64, np.int64]:
    """Weigh the entries of row i that any query has, and sort them into the scratch.

    Returns the numbers of table entries and of list entries. Every entry is written and only the
    counts decide whether it stays: no branch to mispredict. Table entries of amount 0 follow, so
    that they can be read in groups of UNROLL.
    """
    first, n = _U(rows.indptr[i]), _U(rows.indptr[i + 1] - rows.indptr[i])
    asked = len(queries.members) > 0
    if asked:
        n_members = _U(0)
        for q in range(n):
            latent = _U(rows.latents[first + q])
            scratch.positions[n_members] = np.uint32(q)
            n_members += (queries.members[latent >> _U(6)] >> (latent & _U(63))) & _U(1)
        n = n_members
    n_dense = np.uint32(queries.table.shape[0])
    n_table, n_list = _U(0), _U(0)
    for q in range(n):
        p = first + (_U(scratch.positions[q]) if asked else q)
        entry = queries.lookup[_U(rows.latents[p])]
        amount = np.int64(rows.values[p]) * np.int64(entry >> _U(32))
        column = np.uint32(entry & _U(NO_COLUMN))
        scratch.table_columns[n_table] = column
        scratch.table_amounts[n_table] = amount
        n_table += _U(column < n_dense)
        scratch.list_columns[n_list] = column
        scratch.list_amounts[n_list] = amount
        n_list += _U((column >= n_dense) & (column != np.uint32(NO_COLUMN)))
    for q in range(n_table, n_table + _U(UNROLL)):
        scratch.table_columns[q] = 0
        scratch.table_amounts[q] = 0
    return np.int64(n_table), np.int64(n_list)


@njit(nogil=True, cache=True)
def _narrow_minima(
    queries: QueryArrays, scratch: _Scratch, n_table: int, n_list: int, minima: NDArray[np.int64]
) -> None:
    """Sums of minima of the loaded row in 32-bit accumulators; multipliers must be 1.

    Exact because a sum of minima is at most the smaller of the two norms, and the caller has
    checked that one of them is below 2^32. For the same reason clipping cannot change a minimum.
    """
    table, lanes, narrow = queries.table, _U(queries.table.shape[1]), scratch.narrow
    columns, amounts = scratch.table_columns, scratch.table_amounts
    narrow[:] = 0
    for p in range(_U(n_table)):
        amounts[p] = min(amounts[p], NARROW - 1)
    for p in range(_U(0), _U(n_table), _U(UNROLL)):
        amount0, amount1 = np.uint32(amounts[p]), np.uint32(amounts[p + _U(1)])
        amount2, amount3 = np.uint32(amounts[p + _U(2)]), np.uint32(amounts[p + _U(3)])
        line0, line1 = table[_U(columns[p])], table[_U(columns[p + _U(1)])]
        line2, line3 = table[_U(columns[p + _U(2)])], table[_U(columns[p + _U(3)])]
        for j in range(lanes):
            first_two = min(amount0, line0[j]) + min(amount1, line1[j])
            narrow[j] += first_two + min(amount2, line2[j]) + min(amount3, line3[j])
    for p in range(_U(n_list)):
        column = _U(scratch.list_columns[p])
        for e in range(_U(queries.starts[column]), _U(queries.starts[column + _U(1)])):
            shared = min(scratch.list_amounts[p], queries.limits[e])
            narrow[_U(queries.owner[e])] += np.uint32(shared)
    for j in range(len(minima)):
        minima[j] = np.int64(narrow[j])


@njit(nogil=True, cache=True)
def _wide_minima(
    queries: QueryArrays,
    columns: NDArray[np.uint32],
    amounts: NDArray[np.int64],
    n: int,
    minima: NDArray[np.int64],
) -> None:
    """Add min(multiplier * amount, limit) of n entries to the sums, in int64 throughout."""
    for p in range(_U(n)):
        column = _U(columns[p])
        for e in range(_U(queries.starts[column]), _U(queries.starts[column + _U(1)])):
            owner = _U(queries.owner[e])
            minima[owner] += min(queries.multipliers[owner] * amounts[p], queries.limits[e])


@njit(nogil=True, cache=True)
def _row_minima(
    rows: RowArrays,
    queries: QueryArrays,
    i: int,
    norm: int,
    fits_narrow: bool,
    scratch: _Scratch,
    minima: NDArray[np.int64],
) -> None:
    """Fill `minima` (m,) for row i of weighted norm `norm`."""
    n_table, n_list = _load_row(rows, queries, i, scratch)
    if queries.multipliers[0] == 1 and (fits_narrow or norm < NARROW):
        _narrow_minima(queries, scratch, n_table, n_list, minima)
    else:
        minima[:] = 0
        _wide_minima(queries, scratch.table_columns, scratch.table_amounts, n_table, minima)
        _wide_minima(queries, scratch.list_columns, scratch.list_amounts, n_list, minima)


@njit(nogil=True, cache=True)
def score_block(
    rows: RowArrays,
    norms: NDArray[np.int64],
    queries: QueryArrays,
    reduction: int,
    first: int,
    last: int,
    out: NDArray[np.float64],
) -> np.int64:
    """Write the reduced scores of rows first..last - 1 to `out`; return the largest union met.

    norms: (n,) weighted norms of the rows.
    A union below 2^53 is exact in float64, and then so is the quotient up to its one rounding.
    """
    m, largest = len(queries.norms), np.int64(0)
    scratch, minima = _scratch(rows, queries, first, last), np.empty(m, np.int64)
    fits_narrow = queries.norms.max() < NARROW
    for i in range(first, last):
        _row_minima(rows, queries, i, norms[i], fits_narrow, scratch, minima)
        best, total = 0.0, np.int64(0)
        for j in range(m):
            union = queries.multipliers[j] * norms[i] + queries.norms[j] - minima[j]
            largest = max(largest, union)
            score = minima[j] / union if union > 0 else 0.0
            best = max(best, score)
            total += np.int64(np.rint(score * _SCALE))
        out[i] = best if reduction == REDUCE_MAX else total / (m * _SCALE)
    return largest


@njit(nogil=True, cache=True)
def minima_block(
    rows: RowArrays,
    norms: NDArray[np.int64],
    queries: QueryArrays,
    first: int,
    last: int,
    minima: NDArray[np.int64],
) -> None:
    """Write sums of minima (n, m) of rows first..last - 1; norms (n,) as in `score_block`."""
    scratch = _scratch(rows, queries, first, last)
    fits_narrow = queries.norms.max() < NARROW
    for i in range(first, last):
        _row_minima(rows, queries, i, norms[i], fits_narrow, scratch, minima[i])
