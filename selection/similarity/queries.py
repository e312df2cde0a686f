"""Exact generalized Jaccard of candidates against exemplars: sum of minima over sum of maxima.

With weights w and values a, b of two vectors, m = sum w min(a, b), |a| = sum w a, and the score is
m / (|a| + |b| - m): three exact integers and one IEEE division. Two vectors without any weight
give 0. Candidates are streamed, 6 bytes an entry, and no index is built; memory is what the
exemplars need, never exemplars x candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import indptr_of, take
from selection.records import SparseRows
from selection.similarity.kernels.dispatch import Method
from selection.similarity.kernels.layout import QueryEntries, joined
from selection.similarity.kernels.reduce import BEST_MEAN, GROUP_MEAN, MAX, MEAN, SCORE_BITS
from selection.similarity.kernels.rows import check_weights, pair_minima, row_arrays, weighted_norms
from selection.similarity.scorer import Scorer, Target, check_exact

Reduction = Literal["prototype", "max", "mean"]


@dataclass(frozen=True, eq=False)
class QueryBlock:
    """The exemplars of one target task, ready to score candidates. Made by `build_queries`.

    reduction: how scores against the exemplars become one score.
    weights:   (n_latents,) int64 weight of each latent; 0 excludes it.
    entries:   m queries, or 1 for a prototype.
    """

    reduction: Reduction
    weights: NDArray[np.int64]
    entries: QueryEntries

    def __len__(self) -> int:
        """Number of queries that a candidate is compared with."""
        return len(self.entries.norms)

    @property
    def target(self) -> Target:
        """For a `Scorer` of several target tasks."""
        kind = MEAN if self.reduction == "mean" else MAX
        return Target(self.entries, kind, 1, np.zeros(len(self), np.int64))

    @cached_property
    def scorer(self) -> Scorer:
        """Scores candidates for this target task alone."""
        return Scorer(self.weights, [self.target])


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
    owner = np.repeat(np.arange(m), np.diff(exemplars.indptr))
    latents = np.asarray(exemplars.latents)
    limits = weights[latents] * exemplars.values
    kept = limits > 0
    owner, latents, limits = owner[kept], latents[kept], limits[kept]
    counts = np.bincount(owner, minlength=m)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        raise InputError(
            f"{empty.size} of {m} exemplars have an empty vector (first: number {empty[0] + 1})",
            remedy="Remove them, or give exemplars with text that counts.",
        )
    multipliers = np.ones(m, np.int64)
    if reduction == "prototype":
        latents, limits = _summed(latents, limits)
        counts, multipliers = np.array([len(latents)]), np.array([m], np.int64)
    starts = indptr_of(counts)
    norms = np.add.reduceat(limits, starts[:-1])
    return QueryBlock(reduction, weights, QueryEntries(starts, latents, limits, norms, multipliers))


def _summed(
    latents: NDArray[np.int32], limits: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Every latent once, ascending, with the sum of its limits."""
    order = np.argsort(latents, kind="stable")
    latents = latents[order]
    firsts = np.flatnonzero(np.diff(latents, prepend=-1))
    return latents[firsts], np.add.reduceat(limits[order], firsts)


def score_rows(
    rows: SparseRows,
    queries: QueryBlock,
    *,
    norms: NDArray[np.int64] | None = None,
    threads: int = 1,
    block_rows: int | None = None,
    method: Method | None = None,
) -> NDArray[np.float64]:
    """Score every row against the exemplars.

    norms:  (n,) int64 weighted norms of the rows, where known already: spares reading the weights.
    method: which kernel; None tries both on the first rows.
    Returns (n,) float64 in [0, 1]; an empty row scores 0. The result does not depend on `threads`,
    `block_rows`, `method`, or on how rows were split over calls.
    Raises OverflowError if a sum reaches 2^53, where a score would no longer be exact.
    """
    (scores,) = queries.scorer.scores(
        rows, norms=norms, threads=threads, block_rows=block_rows, method=method
    )
    return np.asarray(scores)


def score_matrix(
    rows: SparseRows,
    queries: QueryBlock,
    *,
    threads: int = 1,
    block_rows: int | None = None,
    method: Method | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score every row against every query; the result is dense.

    Returns (n, m) float64 scores and (n, m) int64 numerators, the sums of weighted minima.
    """
    minima, norms = queries.scorer.minima(
        rows, threads=threads, block_rows=block_rows, method=method
    )
    total = norms[:, None] * queries.entries.multipliers + queries.entries.norms
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


def _divide(minima: NDArray[np.int64], union: NDArray[np.int64]) -> NDArray[np.float64]:
    """The quotient, 0 where the union is 0."""
    check_exact(int(union.max(initial=0)))
    return np.divide(minima, union, out=np.zeros(minima.shape), where=union > 0)


ExemplarReduction = Literal[
    "prototype", "max", "mean", "best_mean", "subtask_mean", "clusters", "round_robin"
]
"""prototype: the similarity to the mean of the exemplars. max, mean: over the similarities to each.
best_mean: mean of the r largest. subtask_mean: mean within each subtask, then the largest.
clusters: exemplars are grouped, each group is a prototype, the largest counts. round_robin:
exemplars take turns, each taking its best candidate that is not taken yet.
"""

ROUND_ROBIN_LIMIT = 1 << 30  # Scores of all exemplars are held at once: 8 GB.

_SCALE = float(1 << SCORE_BITS)
_KINDS = {"mean": MEAN, "best_mean": BEST_MEAN, "subtask_mean": GROUP_MEAN}  # Others: the largest.


@dataclass(frozen=True, eq=False)
class Queries:
    """The exemplars of a target task under one reduction. Made by `prepare`.

    blocks: one for most reductions; one prototype per cluster.
    groups: (m,) subtask of each exemplar, ascending for "subtask_mean".
    best:   how many similarities "best_mean" averages.
    """

    reduction: ExemplarReduction
    blocks: tuple[QueryBlock, ...]
    groups: NDArray[np.integer]
    best: int

    @property
    def target(self) -> Target:
        """For a `Scorer` of several target tasks."""
        entries = joined([block.entries for block in self.blocks])
        groups = np.resize(self.groups, len(entries.norms))  # Clusters have none.
        return Target(entries, _KINDS.get(self.reduction, MAX), self.best, groups)

    @cached_property
    def scorer(self) -> Scorer:
        """Scores candidates for this target task alone."""
        return Scorer(self.blocks[0].weights, [self.target])


def prepare(
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    reduction: ExemplarReduction,
    *,
    groups: NDArray[np.integer] | None = None,
    best: int = 3,
    n_clusters: int = 4,
) -> Queries:
    """Exemplars, ready to score candidates.

    groups:     (m,) subtask number of each exemplar, for "subtask_mean"; None is one subtask.
    best:       for "best_mean"; with fewer exemplars, all of them.
    n_clusters: for "clusters"; with fewer exemplars, one each.
    Raises InputError as `build_queries` does.
    """
    if reduction not in get_args(ExemplarReduction):
        raise ValueError(f"reduction is one of {get_args(ExemplarReduction)}, not {reduction!r}")
    if best < 1 or n_clusters < 1:
        raise ValueError("best and n_clusters are at least 1")
    groups = np.zeros(len(exemplars), np.int32) if groups is None else groups
    if reduction == "clusters":
        labels = medoid_clusters(exemplars, weights, n_clusters)
        blocks = tuple(
            build_queries(take(exemplars, np.flatnonzero(labels == label)), weights, "prototype")
            for label in np.unique(labels)
        )
        return Queries(reduction, blocks, groups, best)
    if reduction == "subtask_mean":  # A subtask's exemplars follow one another.
        order = np.argsort(groups, kind="stable")
        exemplars, groups = take(exemplars, order), groups[order]
    own = reduction if reduction in ("prototype", "mean") else "max"
    block = build_queries(exemplars, weights, own)
    return Queries(reduction, (block,), groups, best)


def score(
    rows: SparseRows,
    queries: Queries,
    *,
    norms: NDArray[np.int64] | None = None,
    threads: int = 1,
    block_rows: int | None = None,
    method: Method | None = None,
) -> NDArray[np.float64]:
    """(n,) score of every row, for every reduction but "round_robin", which has no such score.

    norms: (n,) weighted norms of the rows, where known. The result depends on neither threads,
    blocks nor method. Several targets in one pass: `selection.similarity.scorer.Scorer`.
    """
    if queries.reduction == "round_robin":
        raise ValueError("round_robin orders candidates by turns; use score_each and take_turns")
    (scores,) = queries.scorer.scores(
        rows, norms=norms, threads=threads, block_rows=block_rows, method=method
    )
    return np.asarray(scores)


def score_each(
    rows: SparseRows, queries: Queries, *, threads: int = 1, block_rows: int | None = None
) -> NDArray[np.float64]:
    """(n, m) score of every row against every exemplar."""
    (block,) = queries.blocks
    return score_matrix(rows, block, threads=threads, block_rows=block_rows)[0]


def medoid_clusters(
    exemplars: SparseRows, weights: NDArray[np.int64], n_clusters: int
) -> NDArray[np.int64]:
    """Group exemplars around k of them by exact similarity; returns (m,) number of the group.

    k-medoids: medoids are added greedily, each the one that adds most similarity; then every group
    takes the member most similar to the others as its medoid until nothing changes. No seed: equal
    gains go to the exemplar that comes first.
    """
    m = len(exemplars)
    found, _ = score_matrix(exemplars, build_queries(exemplars, weights, "max"))
    similarity = np.rint(found * _SCALE).astype(np.int64)  # Integers: sums have no order.
    medoids: list[int] = []
    best = np.zeros(m, np.int64)
    for _ in range(min(n_clusters, m)):
        gains = np.maximum(similarity - best, 0).sum(axis=1)
        gains[medoids] = -1
        medoids.append(int(np.argmax(gains)))
        best = np.maximum(best, similarity[medoids[-1]])
    for _ in range(m):
        labels = _nearest(similarity, medoids)
        moved = [_centre(similarity, np.flatnonzero(labels == c)) for c in range(len(medoids))]
        if moved == medoids:
            break
        medoids = moved
    return _nearest(similarity, medoids)


def _nearest(similarity: NDArray[np.int64], medoids: Sequence[int]) -> NDArray[np.int64]:
    """Number of the most similar medoid of each exemplar; a medoid belongs to itself."""
    labels = np.argmax(similarity[:, list(medoids)], axis=1)
    labels[list(medoids)] = np.arange(len(medoids))
    return labels


def _centre(similarity: NDArray[np.int64], members: NDArray[np.int64]) -> int:
    """The member with the largest sum of similarities to the others."""
    return int(members[np.argmax(similarity[np.ix_(members, members)].sum(axis=0))])
