"""The forward kernel: one row after the other, each read once against all queries.

A latent that many queries share is a line of a table: LANES queries at a time, one vector minimum
serves all of them. A latent that few queries share is a short list of (query, limit). No
preparation of the candidates, and no limit on amounts: whatever fits int64 is exact.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.similarity.kernels.inverted import rank_of, select_members
from selection.similarity.kernels.layout import NARROW, NO_COLUMN, Lookup, RowQueries
from selection.similarity.kernels.minima import LANES, add_minima
from selection.similarity.kernels.rows import RowArrays

_U = np.uint64  # Unsigned indices spare the loops numba's test for negative ones.


class RowRoom(NamedTuple):
    """One row's entries, split by how their column is held, and its sums; one thread's memory."""

    positions: NDArray[np.uint32]
    lines: NDArray[np.uint32]
    line_amounts: NDArray[np.uint32]
    columns: NDArray[np.uint32]
    amounts: NDArray[np.int64]
    sums: NDArray[np.int64]


def row_room_for(longest: int, queries: RowQueries) -> RowRoom:
    """Room for rows of at most `longest` entries."""
    n_sums = max(1, len(queries.tables)) * LANES
    return RowRoom(
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 1, np.int64),
        np.empty(n_sums, np.int64),
    )


@njit(nogil=True, cache=True)
def forward_sums(
    rows: RowArrays,
    lookup: Lookup,
    queries: RowQueries,
    norms: NDArray[np.int64],
    first: int,
    last: int,
    room: RowRoom,
    sums: NDArray[np.int64],
) -> None:
    """Fill sums (m, width) with the sums of minima of rows first..last - 1, one per column.

    norms: (last - first,) weighted norms of these rows.
    """
    m = len(queries.multipliers)
    starts, owners, limits = queries.starts, queries.owners, queries.limits
    multipliers, columns, amounts, own = queries.multipliers, room.columns, room.amounts, room.sums
    for i in range(first, last):
        n_lines, n_listed = _load_row(rows, lookup, queries.n_table, i, room)
        own[:] = 0
        if n_lines > 0:
            _add_lines(queries.tables, room, n_lines, norms[i - first])
        for p in range(_U(n_listed)):
            column, amount = _U(columns[p]), amounts[p]
            for e in range(_U(starts[column]), _U(starts[column + _U(1)])):
                owner = _U(owners[e])
                own[owner] += min(multipliers[owner] * amount, limits[e])
        for j in range(_U(m)):
            sums[j, _U(i - first)] = own[j]


@njit(nogil=True, cache=True)
def _load_row(
    rows: RowArrays, lookup: Lookup, n_table: int, i: int, room: RowRoom
) -> tuple[np.int64, np.int64]:
    """Weigh the entries of row i that any query has; returns how many have a line, how many not.

    Every entry is written to both and only the counts decide whether it stays.
    """
    indptr, latents, values = rows
    words, members, before = lookup
    positions, lines, line_amounts = room.positions, room.lines, room.line_amounts
    columns, amounts = room.columns, room.amounts
    first, n = _U(indptr[i]), _U(indptr[i + 1] - indptr[i])
    asked = len(members) > 0
    if asked:
        n = select_members(latents, members, first, n, positions)
    with_line = np.uint32(n_table)
    n_lines, n_listed = _U(0), _U(0)
    for q in range(n):
        e = first + (_U(positions[q]) if asked else q)
        latent = _U(latents[e])
        word = words[rank_of(members, before, latent) if asked else latent]
        amount = np.int64(values[e]) * np.int64(word >> _U(32))
        column = np.uint32(word & _U(NO_COLUMN))
        lines[n_lines] = column
        line_amounts[n_lines] = np.uint32(min(amount, np.int64(NARROW - 1)))
        n_lines += _U(column < with_line)
        columns[n_listed] = column
        amounts[n_listed] = amount
        n_listed += _U((column >= with_line) & (column != np.uint32(NO_COLUMN)))
    return np.int64(n_lines), np.int64(n_listed)


@njit(nogil=True, cache=True)
def _add_lines(tables: NDArray[np.uint32], room: RowRoom, n: int, norm: int) -> None:
    """Add the minima with the tables' lines, in pieces whose sums fit 32 bits."""
    lines, amounts, sums = room.lines, room.line_amounts, room.sums
    start, total = 0, np.int64(0)
    if norm >= NARROW:
        for p in range(n):
            if total + np.int64(amounts[p]) >= NARROW:
                for group in range(len(tables)):
                    add_minima(
                        tables[group], lines, amounts, _U(start), _U(p), sums, _U(group * LANES)
                    )
                start, total = p, np.int64(0)
            total += np.int64(amounts[p])
    for group in range(len(tables)):
        add_minima(tables[group], lines, amounts, _U(start), _U(n), sums, _U(group * LANES))
