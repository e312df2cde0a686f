"""Exemplars as the compiled loops read them: queries entry by entry, and tables by latent."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 32  # Queries of a line are padded to a multiple: the loop over them has no remainder.
LINE_LIMIT = (1 << 30) - 1  # The sum of four amounts of at most this fits 32 bits.
LINE_SHARE = 20  # A latent in at least 1 of 20 queries is cheaper as a line than as a list.


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


class QueryTables(NamedTuple):
    """The same entries by column; a column is a latent that at least one query has.

    in_query:    (n_latents / 8,) uint8, one bit a latent: whether a query has it.
    columns:     (n_latents,) uint32, where there is one.
    weights:     (n_columns,) int64 weight of its latent.
    lines:       (n_lines, width) uint32, limits of all queries for columns below n_lines.
    starts:      (n_columns - n_lines + 1,) int64; column n_lines + c is listed as
                 starts[c]:starts[c + 1].
    owners:      (n_listed,) uint32, the query of a listed entry.
    limits:      (n_listed,) int64.
    multipliers: (m,) int64.
    """

    in_query: NDArray[np.uint8]
    columns: NDArray[np.uint32]
    weights: NDArray[np.int64]
    lines: NDArray[np.uint32]
    starts: NDArray[np.int64]
    owners: NDArray[np.uint32]
    limits: NDArray[np.int64]
    multipliers: NDArray[np.int64]


def join_entries(parts: Sequence[QueryEntries]) -> QueryEntries:
    """The queries of several target tasks, one after the other."""
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    return QueryEntries(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        *(np.concatenate([part[field] for part in parts]) for field in range(1, 5)),
    )


def query_tables(entries: QueryEntries, weights: NDArray[np.int64]) -> QueryTables:
    """Tables of queries whose entries were weighted with these weights, (n_latents,) int64."""
    m, latents = len(entries.norms), entries.latents
    owners = np.repeat(np.arange(m, dtype=np.uint32), np.diff(entries.starts))
    counts = np.bincount(latents, minlength=len(weights))
    lined = (counts * LINE_SHARE >= m) & (counts > 1)
    lined[latents[(entries.limits > LINE_LIMIT) | (entries.multipliers[owners] != 1)]] = False
    named = np.concatenate([np.flatnonzero(lined), np.flatnonzero((counts > 0) & ~lined)])
    columns = np.zeros(len(weights), np.uint32)
    columns[named] = np.arange(len(named))
    n_lines, in_line = int(lined.sum()), lined[latents]
    lines = np.zeros((n_lines, -(-m // LANES) * LANES), np.uint32)
    lines[columns[latents[in_line]], owners[in_line]] = entries.limits[in_line]
    listed = np.flatnonzero(~in_line)
    listed = listed[np.argsort(columns[latents[listed]], kind="stable")]
    sizes = counts[named[n_lines:]]
    return QueryTables(
        np.packbits(counts > 0, bitorder="little"),
        columns,
        weights[named],
        lines,
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        owners[listed],
        entries.limits[listed],
        entries.multipliers,
    )
