"""Exemplars as the compiled loops read them: entries by query, columns by latent, tables, lists."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.similarity.kernels.minima import LANES

NO_COLUMN = 0xFFFFFFFF  # In a lookup: no query has this latent.
NARROW = 1 << 32  # Amounts and sums below it fit 32 bits.
MULTIPLIER_LIMIT = 1 << 31
CHUNK = 256  # Dense columns at a time: LANES candidates of them are 32 KB.
RARE = 32  # A latent in fewer than 1 of 32 queries is cheaper as a list than as a table line.


class QueryEntries(NamedTuple):
    """m queries, entry by entry.

    starts:      (m + 1,) int64, query j is entries starts[j]:starts[j + 1].
    latents:     (n_entries,) int32, ascending within a query.
    limits:      (n_entries,) int64, weighted values; for a prototype summed over the exemplars.
    norms:       (m,) int64, sums of limits.
    multipliers: (m,) int64, what a candidate is multiplied by before it is compared.
    """

    starts: NDArray[np.int64]
    latents: NDArray[np.int32]
    limits: NDArray[np.int64]
    norms: NDArray[np.int64]
    multipliers: NDArray[np.int64]


class Lookup(NamedTuple):
    """From latents to columns; a column is a latent that at least one query has.

    words:   weight * 2^32 + column. By latent (n_latents,) with NO_COLUMN where there is none; or,
             where `members` has words, only those that have a column, in order of latent.
    members: (ceil(n_latents / 64),) uint64, one bit per latent: has it a column? No words where
             many latents have one and asking first would not pay.
    before:  (ceil(n_latents / 64),) uint32, members of all earlier words.
    """

    words: NDArray[np.uint64]
    members: NDArray[np.uint64]
    before: NDArray[np.uint32]


class ColumnQueries(NamedTuple):
    """Queries for the inverted kernel: entries by query; dense columns first, then all others.

    starts:      (m + 1,) int64.
    columns:     (n_entries,) uint32, ascending within a query; in order of latent among the dense
                 and among the others, as the rows have them.
    lines:       (n_entries,) uint32, columns modulo CHUNK.
    limits:      (n_entries,) int64.
    clipped:     (n_entries,) uint32, the limits again, at most 2^32 - 1.
    multipliers: (m,) int64.
    bounds:      (n_chunks + 1, m) int64, query j meets chunk c of the dense columns with entries
                 bounds[c, j]:bounds[c + 1, j].
    wide:        (n_chunks, m) bool, where 32 bits do not hold those limits' sum.
    n_dense:     columns 0..n_dense - 1 are dense.
    n_columns:   of all queries together.
    """

    starts: NDArray[np.int64]
    columns: NDArray[np.uint32]
    lines: NDArray[np.uint32]
    limits: NDArray[np.int64]
    clipped: NDArray[np.uint32]
    multipliers: NDArray[np.int64]
    bounds: NDArray[np.int64]
    wide: NDArray[np.bool_]
    n_dense: int
    n_columns: int


class RowQueries(NamedTuple):
    """Queries for the forward kernel: columns that many queries share are lines of tables.

    tables:      (n_groups, n_table * LANES) uint32, limits of LANES queries per line.
    n_table:     columns 0..n_table - 1 have a line; all others have a list.
    starts:      (n_columns + 1,) int64, column c is listed as starts[c]:starts[c + 1]; also those
                 that have a line.
    owners:      (n_entries,) uint32, the query of the entry.
    limits:      (n_entries,) int64.
    multipliers: (m,) int64.
    """

    tables: NDArray[np.uint32]
    n_table: int
    starts: NDArray[np.int64]
    owners: NDArray[np.uint32]
    limits: NDArray[np.int64]
    multipliers: NDArray[np.int64]


def joined(parts: Sequence[QueryEntries]) -> QueryEntries:
    """The queries of several target tasks, one after the other."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    return QueryEntries(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        *(np.concatenate([part[field] for part in parts]) for field in range(1, 5)),
    )


def fits_narrow(entries: QueryEntries) -> bool:
    """Whether clipping a candidate's amounts to 32 bits changes no minimum."""
    largest = np.repeat(entries.multipliers, np.diff(entries.starts)) * (NARROW - 1)
    small = bool((entries.limits <= largest).all())
    return small and int(entries.multipliers.max(initial=0)) < MULTIPLIER_LIMIT


def lookup_of(
    latents: NDArray[np.integer], columns: NDArray[np.integer], weights: NDArray[np.int64]
) -> Lookup:
    """Lookup of latents, ascending, that have these columns."""
    words = (weights[latents].astype(np.uint64) << np.uint64(32)) | columns.astype(np.uint64)
    if len(latents) * 4 > len(weights):
        everywhere = np.full(len(weights), NO_COLUMN, np.uint64)
        everywhere[latents] = words
        return Lookup(everywhere, np.empty(0, np.uint64), np.empty(0, np.uint32))
    bits = np.zeros(-(-len(weights) // 64) * 64, np.bool_)
    bits[latents] = True
    members = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
    counts = np.bitwise_count(members).astype(np.uint32)
    return Lookup(words, members, np.cumsum(counts, dtype=np.uint32) - counts)


def column_queries(
    entries: QueryEntries, weights: NDArray[np.int64], dense: NDArray[np.bool_]
) -> tuple[Lookup, ColumnQueries]:
    """Arrays of the inverted kernel. dense: (n_latents,) which latents shall be dense columns."""
    latents = _named(entries.latents, len(weights))
    place = np.empty(len(weights), np.int64)
    order = np.concatenate([latents[dense[latents]], latents[~dense[latents]]])
    place[order] = np.arange(len(order))
    n_dense, m = int(dense[latents].sum()), len(entries.norms)
    columns = place[entries.latents]
    owner = np.repeat(np.arange(m), np.diff(entries.starts))
    order = _sorted_by(2 * owner + (columns >= n_dense))  # Entries ascend by latent already.
    columns, limits = columns[order], entries.limits[order]
    edges = np.append(np.arange(0, n_dense, CHUNK), n_dense)
    position = owner * np.int64(len(latents)) + columns
    bounds = np.searchsorted(position, np.arange(m) * np.int64(len(latents)) + edges[:, None])
    clipped = np.minimum(limits, NARROW - 1).astype(np.uint32)
    total = np.concatenate([[0], np.cumsum(clipped, dtype=np.int64)])[bounds]
    return lookup_of(latents, place[latents], weights), ColumnQueries(
        entries.starts,
        columns.astype(np.uint32),
        (columns % CHUNK).astype(np.uint32),
        limits,
        clipped,
        entries.multipliers,
        bounds.astype(np.int64),
        (np.diff(total, axis=0) >= NARROW) | (entries.multipliers != 1),
        n_dense,
        len(latents),
    )


def row_queries(entries: QueryEntries, weights: NDArray[np.int64]) -> tuple[Lookup, RowQueries]:
    """Arrays of the forward kernel."""
    m = len(entries.norms)
    owner = np.repeat(np.arange(m, dtype=np.uint32), np.diff(entries.starts))
    latents = _named(entries.latents, len(weights))
    counts = np.bincount(entries.latents, minlength=len(weights))[latents]
    n_groups = -(-m // LANES)
    # A line compares undivided 32-bit amounts, so where a query has a multiplier there are none.
    lined = (counts * RARE >= m) & (counts > 1) & bool((entries.multipliers == 1).all())
    lined &= fits_narrow(entries)
    place = np.empty(len(weights), np.int64)
    place[np.concatenate([latents[lined], latents[~lined]])] = np.arange(len(latents))
    column = place[entries.latents]
    order = _sorted_by(column)
    column, owner, limits = column[order], owner[order], entries.limits[order]
    n_table = int(lined.sum())
    tables = aligned(n_groups * n_table * LANES).reshape(n_groups, n_table, LANES)
    inside = column < n_table
    group, lane = np.divmod(owner[inside], LANES)
    tables[group, column[inside], lane] = limits[inside]
    return lookup_of(latents, place[latents], weights), RowQueries(
        tables.reshape(n_groups, -1),
        n_table,
        np.searchsorted(column, np.arange(len(latents) + 1)).astype(np.int64),
        owner,
        limits,
        entries.multipliers,
    )


def _named(latents: NDArray[np.int32], n_latents: int) -> NDArray[np.int64]:
    """Every latent once, ascending."""
    present = np.zeros(n_latents, np.bool_)
    present[latents] = True
    return np.flatnonzero(present)


def _sorted_by(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stable order of numbers of at least 0; numpy sorts 16 bits in linear time."""
    small = int(numbers.max(initial=0)) < 1 << 16
    return np.argsort(numbers.astype(np.uint16) if small else numbers, kind="stable")


def aligned(n: int) -> NDArray[np.uint32]:
    """Zeros (n,) that start at a multiple of 64 bytes: no vector lies across two cache lines."""
    room = np.zeros(n + 16, np.uint32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + n]
