"""Exact generalized Jaccard of candidates against exemplars: sum of minima over sum of maxima.

With weights w and values a, b of two vectors, m = sum w min(a, b), |a| = sum w a, and the score is
m / (|a| + |b| - m): three exact integers and one IEEE division. Two vectors without any weight
give 0. Candidates are streamed, 6 bytes an entry, and no index is built; memory is what the
exemplars need, never exemplars x candidates.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.errors import InputError
from selection.jaccard_kernels import (
    NARROW,
    NO_COLUMN,
    REDUCE_MAX,
    REDUCE_MEAN,
    QueryArrays,
    minima_block,
    score_block,
)
from selection.records import SparseRows
from selection.row_kernels import (
    check_weights,
    norm_block,
    pair_minima,
    row_arrays,
    weighted_norms,
)

Reduction = Literal["prototype", "max", "mean"]

EXACT_LIMIT = 1 << 53  # Integers below it are exact in float64.
LANES = 16  # Queries of a table line come in whole 64-byte vectors.
RARE = 32  # A latent in fewer than 1 of 32 queries is cheaper as a list (measured).


@dataclass(frozen=True, slots=True, eq=False)
class QueryBlock:
    """The exemplars of one target task, ready to score candidates. Made by `build_queries`.

    reduction: how scores against the exemplars become one score.
    weights:   (n_latents,) int64 weight of each latent; 0 excludes it.
    arrays:    what the loops read: m queries, or 1 for a prototype.
    """

    reduction: Reduction
    weights: NDArray[np.int64]
    arrays: QueryArrays

    def __len__(self) -> int:
        """Number of queries that a candidate is compared with."""
        return len(self.arrays.norms)


def build_queries(
    exemplars: SparseRows, weights: NDArray[np.int64], reduction: Reduction
) -> QueryBlock:
    """Prepare exemplars for `score_rows`.

    reduction: "prototype" compares with the mean of the m exemplars, exactly: their integer sum is
    compared with m times the candidate. "max" and "mean" compare with each exemplar; a mean rounds
    each score half to even to a multiple of 2^-40 and adds those as integers.
    Raises InputError if there is no exemplar, or one has no latent with a weight.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction is one of {get_args(Reduction)}, not {reduction!r}")
    m = len(exemplars)
    if m == 0:
        raise InputError(
            "there are no exemplars to rank against", remedy="Give at least one exemplar."
        )
    check_weights(weights, exemplars, multiplier=m)
    row_arrays(exemplars)  # Refuses damaged data.
    owner = np.repeat(np.arange(m, dtype=np.uint32), np.diff(exemplars.indptr))
    latents = np.asarray(exemplars.latents)
    limits = weights[latents] * exemplars.values
    kept = limits > 0
    owner, latents, limits = owner[kept], latents[kept], limits[kept]
    empty = np.setdiff1d(np.arange(m), owner)
    if empty.size:
        raise InputError(
            f"{empty.size} of {m} exemplars have an empty vector (first: number {empty[0] + 1})",
            remedy="Remove them, or give exemplars with text that counts.",
        )
    if reduction == "prototype":
        owner, multiplier, m = np.zeros_like(owner), m, 1
    else:
        multiplier = 1
    arrays = _query_arrays(latents, owner, limits, weights, m, multiplier)
    return QueryBlock(reduction, weights, arrays)


def _query_arrays(
    latents: NDArray[np.int32],
    owner: NDArray[np.uint32],
    limits: NDArray[np.int64],
    weights: NDArray[np.int64],
    m: int,
    multiplier: int,
) -> QueryArrays:
    """Column form of (latent, owner, limit) entries; entries of one column and owner are summed."""
    entry, position = np.unique(latents.astype(np.int64) * m + owner, return_inverse=True)
    summed = np.zeros(len(entry), np.int64)
    np.add.at(summed, position, limits)
    names, column, counts = np.unique(entry // m, return_inverse=True, return_counts=True)
    lanes = -(-m // LANES) * LANES
    # A table compares undivided 32-bit amounts, so a prototype (multiplier > 1) has none.
    dense = counts * RARE >= lanes if multiplier == 1 else np.zeros(len(names), bool)
    place = np.empty(len(names), np.int64)
    place[np.argsort(~dense, kind="stable")] = np.arange(len(names))
    order = np.argsort(place[column], kind="stable")
    column, owner, limits = place[column][order], (entry % m)[order], summed[order]
    table = np.zeros((int(dense.sum()), lanes), np.uint32)
    in_table = column < len(table)
    table[column[in_table], owner[in_table]] = np.minimum(limits[in_table], NARROW - 1)
    columns = np.full(len(weights), NO_COLUMN, np.uint64)
    columns[names] = place
    norms = np.zeros(m, np.int64)
    np.add.at(norms, owner, limits)
    return QueryArrays(
        lookup=(weights.astype(np.uint64) << np.uint64(32)) | columns,
        starts=np.searchsorted(column, np.arange(len(names) + 1)).astype(np.int64),
        owner=owner.astype(np.uint32),
        limits=limits,
        table=table,
        norms=norms,
        multipliers=np.full(m, multiplier, np.int64),
        members=_member_bits(names, len(weights)),
    )


def _member_bits(latents: NDArray[np.int64], n_latents: int) -> NDArray[np.uint64]:
    """One bit per latent, set for the given ones; no words if those are most of all."""
    if len(latents) * 4 > n_latents:
        return np.empty(0, np.uint64)
    bits = np.zeros(-(-n_latents // 64) * 64, np.bool_)
    bits[latents] = True
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def score_rows(
    rows: SparseRows,
    queries: QueryBlock,
    *,
    norms: NDArray[np.int64] | None = None,
    threads: int = 1,
    block_rows: int = 512,
) -> NDArray[np.float64]:
    """Score every row against the exemplars.

    norms: (n,) int64 weighted norms of the rows, where known already: spares a pass.
    Returns (n,) float64 in [0, 1]; an empty row scores 0. The result does not depend on `threads`,
    `block_rows`, or on how rows were split over calls.
    Raises OverflowError if a sum reaches 2^53, where a score would no longer be exact.
    """
    _check_fit(rows, queries)
    arrays, scores = row_arrays(rows), np.empty(len(rows), np.float64)
    known = np.empty(len(rows), np.int64) if norms is None else norms
    reduction = REDUCE_MEAN if queries.reduction == "mean" else REDUCE_MAX

    def score(block: tuple[int, int]) -> int:
        if norms is None:
            norm_block(arrays, queries.weights, *block, known)
        return int(score_block(arrays, known, queries.arrays, reduction, *block, scores))

    blocks = list(_blocks(len(rows), block_rows))
    if threads == 1 or len(blocks) < 2:
        largest = max(map(score, blocks), default=0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            largest = max(pool.map(score, blocks))
    _check_exact(largest)
    return scores


def score_matrix(
    rows: SparseRows, queries: QueryBlock
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score every row against every query, for few rows: the result is dense.

    Returns (n, m) float64 scores and (n, m) int64 numerators, the sums of weighted minima.
    """
    _check_fit(rows, queries)
    arrays, norms = row_arrays(rows), weighted_norms(rows, queries.weights)
    minima = np.empty((len(rows), len(queries)), np.int64)
    minima_block(arrays, norms, queries.arrays, 0, len(rows), minima)
    total = norms[:, None] * queries.arrays.multipliers + queries.arrays.norms
    return _divide(minima, total - minima), minima


def score_pairs(
    left: SparseRows,
    right: SparseRows,
    left_rows: NDArray[np.int64],
    right_rows: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Score of each pair (left_rows[p], right_rows[p]).

    left_rows, right_rows: (p,) int64 row numbers. Returns (p,) float64; two empty rows score 0.
    """
    check_weights(weights, left)
    if left.n_latents != right.n_latents:
        raise ValueError(f"{left.n_latents} latents cannot meet {right.n_latents} latents")
    for rows, numbers in ((left, left_rows), (right, right_rows)):
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(rows)):
            raise ValueError(f"row numbers must be in [0, {len(rows)})")
    minima = np.empty(len(left_rows), np.int64)
    pair_minima(row_arrays(left), row_arrays(right), left_rows, right_rows, weights, minima)
    total = weighted_norms(left, weights)[left_rows]
    total += weighted_norms(right, weights)[right_rows]
    return _divide(minima, total - minima)


def _blocks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, last) of consecutive blocks of at most `size` rows."""
    for first in range(0, n, size):
        yield first, min(first + size, n)


def _divide(minima: NDArray[np.int64], union: NDArray[np.int64]) -> NDArray[np.float64]:
    """The quotient, 0 where the union is 0."""
    _check_exact(int(union.max(initial=0)))
    return np.divide(minima, union, out=np.zeros(minima.shape), where=union > 0)


def _check_fit(rows: SparseRows, queries: QueryBlock) -> None:
    """Rows and queries must be of one representation."""
    if rows.n_latents != len(queries.weights):
        raise ValueError(f"rows of {rows.n_latents} latents, queries of {len(queries.weights)}")


def _check_exact(largest: int) -> None:
    """Refuse sums that float64 cannot hold exactly."""
    if largest >= EXACT_LIMIT:
        raise OverflowError(
            f"a sum of maxima of {largest} is above 2^53; use smaller weights or fewer exemplars"
        )
