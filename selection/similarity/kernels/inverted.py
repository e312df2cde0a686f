"""The inverted kernel: candidates of a block by column, every query walks its own columns.

Columns that many candidates have are dense: LANES candidates at a time, one vector minimum serves
all of them, and CHUNK columns at a time, so that they stay in the first-level cache while all
queries use them. All others are postings (candidate, amount) of the whole block.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.similarity.kernels.layout import (
    CHUNK,
    NARROW,
    NO_COLUMN,
    ColumnQueries,
    Lookup,
    aligned,
)
from selection.similarity.kernels.minima import LANES, add_minima, add_multiplied_minima, count_bits
from selection.similarity.kernels.rows import RowArrays

MAX_BLOCK_ROWS = 1 << 16  # Postings name a candidate of a block by 16 bits.

_U = np.uint64  # Unsigned indices spare the loops numba's test for negative ones.


class Postings(NamedTuple):
    """Entries of a block that are in no dense column; first in order of rows, then by column.

    entries:     (capacity,) uint64, column * 2^32 + amount, as they came.
    ends:        (rows of a block,) uint64, where those of each row end.
    starts:      (n_columns - n_dense + 2,) uint32.
    own_rows, own_amounts: (capacity,) column n_dense + c is starts[c]:starts[c + 1].
    """

    entries: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    own_rows: NDArray[np.uint16]
    own_amounts: NDArray[np.uint32]


class Room(NamedTuple):
    """Memory of one thread, used again for every block.

    chunk:     (CHUNK * LANES,) uint32, CHUNK dense columns of LANES candidates.
    positions: (longest row + 1,) uint32.
    entries:   (LANES * longest row + 1,) uint64, the dense entries of LANES rows, as in Postings.
    begins, ends: (LANES,) uint64, where each row's are.
    """

    chunk: NDArray[np.uint32]
    positions: NDArray[np.uint32]
    entries: NDArray[np.uint64]
    begins: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    postings: Postings


def room_for(n_rows: int, n_entries: int, longest: int, queries: ColumnQueries) -> Room:
    """Room for blocks of at most `n_rows` rows and `n_entries` entries, `longest` in a row."""
    capacity = n_entries + 1 if queries.n_dense < queries.n_columns else 1
    return Room(
        aligned(CHUNK * LANES),
        np.empty(longest + 1, np.uint32),
        np.empty(longest * LANES + 1, np.uint64),
        np.empty(LANES, np.uint64),
        np.empty(LANES, np.uint64),
        Postings(
            np.empty(capacity, np.uint64),
            np.empty(n_rows, np.uint64),
            np.empty(queries.n_columns - queries.n_dense + 2, np.uint32),
            np.empty(capacity, np.uint16),
            np.empty(capacity, np.uint32),
        ),
    )


@njit(nogil=True, cache=True)
def inverted_sums(
    rows: RowArrays,
    lookup: Lookup,
    queries: ColumnQueries,
    first: int,
    last: int,
    room: Room,
    sums: NDArray[np.int64],
) -> None:
    """Fill sums (m, width) with the sums of minima of rows first..last - 1, one per column.

    width: a multiple of LANES, at least last - first; what lies beyond means nothing.
    """
    width, flat = sums.shape[1], sums.reshape(-1)
    flat[:] = 0
    n_postings = _U(0)
    for start in range(first, last, LANES):
        end = min(start + LANES, last)
        n_postings = _load_strip(rows, lookup, queries, first, start, end, room, n_postings)
        for chunk in range(len(queries.wide)):
            _fill_chunk(room, chunk, end - start)
            _add_chunk(queries, chunk, room.chunk, flat, width, start - first)
    if n_postings > 0:
        _sort_postings(room.postings, last - first, queries.n_dense)
        _add_postings(queries, room.postings, sums)


@njit(nogil=True, cache=True)
def _load_strip(
    rows: RowArrays,
    lookup: Lookup,
    queries: ColumnQueries,
    block: int,
    first: int,
    last: int,
    room: Room,
    n_postings: np.uint64,
) -> np.uint64:
    """Put the entries of rows first..last - 1 where they belong; returns the number of postings.

    block: first row of the block. Every entry is written to both places and only the counts decide
    whether it stays: no branch to mispredict.
    """
    # Fields of tuples are taken out before the loops: each time costs two atomic counts.
    indptr, latents, values = rows
    words, members, before = lookup
    positions, entries, begins, ends = room.positions, room.entries, room.begins, room.ends
    postings, posting_ends = room.postings.entries, room.postings.ends
    asked, only_dense = len(members) > 0, queries.n_dense == queries.n_columns
    after_dense, nowhere = _U(queries.n_dense) << _U(32), _U(NO_COLUMN) << _U(32)
    d, p = _U(0), _U(n_postings)
    for i in range(first, last):
        start, n = _U(indptr[i]), _U(indptr[i + 1] - indptr[i])
        if asked:
            n = select_members(latents, members, start, n, positions)
        begins[_U(i - first)] = d
        for q in range(n):
            e = start + (_U(positions[q]) if asked else q)
            latent = _U(latents[e])
            word = words[rank_of(members, before, latent) if asked else latent]
            amount = min(_U(values[e]) * (word >> _U(32)), _U(NARROW - 1))
            entry = (word << _U(32)) | amount
            entries[d] = entry
            d += _U(entry < after_dense)
            if not only_dense:
                postings[p] = entry
                p += _U((entry >= after_dense) & (entry < nowhere))
        ends[_U(i - first)] = d
        posting_ends[_U(i - block)] = p
    return p


@njit(nogil=True, cache=True)
def select_members(
    latents: NDArray[np.int32],
    members: NDArray[np.uint64],
    first: np.uint64,
    n: np.uint64,
    positions: NDArray[np.uint32],
) -> np.uint64:
    """Positions, counted from `first`, of those of n entries whose latent has a column."""
    found = _U(0)
    for q in range(n):
        latent = _U(latents[first + q])
        positions[found] = np.uint32(q)
        found += (members[latent >> _U(6)] >> (latent & _U(63))) & _U(1)
    return found


@njit(nogil=True, cache=True)
def rank_of(
    members: NDArray[np.uint64], before: NDArray[np.uint32], latent: np.uint64
) -> np.uint64:
    """How many smaller latents have a column."""
    here = latent >> _U(6)
    smaller = members[here] & ((_U(1) << (latent & _U(63))) - _U(1))
    return _U(before[here]) + count_bits(smaller)


@njit(nogil=True, cache=True)
def _fill_chunk(room: Room, chunk: int, n_lanes: int) -> None:
    """Write the entries of a chunk's columns; every row goes on where the last chunk ended."""
    lines, entries, begins, ends = room.chunk, room.entries, room.begins, room.ends
    lines[:] = 0
    first = _U(chunk * CHUNK)
    after = (first + _U(CHUNK)) << _U(32)
    for lane in range(_U(n_lanes)):
        d, end = begins[lane], ends[lane]
        while d < end and entries[d] < after:
            line = (entries[d] >> _U(32)) - first
            lines[line * _U(LANES) + lane] = np.uint32(entries[d] & _U(NARROW - 1))
            d += _U(1)
        begins[lane] = d


@njit(nogil=True, cache=True)
def _add_chunk(
    queries: ColumnQueries,
    chunk: int,
    lines: NDArray[np.uint32],
    sums: NDArray[np.int64],
    width: int,
    at: int,
) -> None:
    """Add the minima with a chunk of columns; query j's start at sums[j * width + at]."""
    numbers, limits, clipped = queries.lines, queries.limits, queries.clipped
    begins, ends = queries.bounds[chunk], queries.bounds[chunk + 1]
    wide, multipliers = queries.wide[chunk], queries.multipliers
    for j in range(_U(len(multipliers))):
        begin, end, place = _U(begins[j]), _U(ends[j]), j * _U(width) + _U(at)
        if begin == end:
            continue
        if wide[j]:
            factor = _U(multipliers[j])
            add_multiplied_minima(lines, numbers, limits, factor, begin, end, sums, place)
        else:
            add_minima(lines, numbers, clipped, begin, end, sums, place)


@njit(nogil=True, cache=True)
def _sort_postings(postings: Postings, n_rows: int, n_dense: int) -> None:
    """Postings by column, within a column by row: a counting sort."""
    entries, ends, starts = postings.entries, postings.ends, postings.starts
    own_rows, own_amounts, dense = postings.own_rows, postings.own_amounts, _U(n_dense)
    starts[:] = 0
    for p in range(ends[_U(n_rows - 1)]):
        starts[(entries[p] >> _U(32)) - dense + _U(2)] += np.uint32(1)
    total = np.uint32(0)
    for c in range(2, len(starts)):
        total += starts[c]
        starts[c] = total
    e = _U(0)
    for row in range(_U(n_rows)):
        while e < ends[row]:
            column = (entries[e] >> _U(32)) - dense + _U(1)
            place = _U(starts[column])
            own_rows[place] = np.uint16(row)
            own_amounts[place] = np.uint32(entries[e] & _U(NARROW - 1))
            starts[column] += np.uint32(1)
            e += _U(1)


@njit(nogil=True, cache=True)
def _add_postings(queries: ColumnQueries, postings: Postings, sums: NDArray[np.int64]) -> None:
    """Add the minima of all queries with the columns that are not dense."""
    columns, limits, multipliers = queries.columns, queries.limits, queries.multipliers
    starts, own_rows, own_amounts = postings.starts, postings.own_rows, postings.own_amounts
    firsts, dense = queries.bounds[len(queries.wide)], np.uint32(queries.n_dense)
    for j in range(len(multipliers)):
        own, factor = sums[j], multipliers[j]
        for e in range(_U(firsts[j]), _U(queries.starts[j + 1])):
            column, limit = _U(columns[e] - dense), limits[e]
            for p in range(_U(starts[column]), _U(starts[column + _U(1)])):
                own[_U(own_rows[p])] += min(factor * np.int64(own_amounts[p]), limit)
