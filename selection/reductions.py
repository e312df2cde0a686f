"""Many exemplars, one score per candidate: the reductions, each exact and order-free.

Scores that are averaged are rounded half to even to multiples of 2^-40 first and added as
integers, as in `selection.jaccard`, so no order of exemplars, threads or blocks can matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.errors import InputError
from selection.jaccard import QueryBlock, build_queries, score_matrix
from selection.kernel_choice import Method
from selection.query_arrays import joined
from selection.ranking import combine_targets, rank
from selection.records import Ranking, SparseRows
from selection.reduce_kernel import BEST_MEAN, GROUP_MEAN, MAX, MEAN, SCORE_BITS
from selection.scoring import Scorer, Target
from selection.sparse import take

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
    blocks nor method. Several targets in one pass: `selection.scoring.Scorer`.
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


def take_turns(scores: NDArray[np.float64], eligible: NDArray[np.bool_]) -> Ranking:
    """Round robin over exemplars: (n, m) scores to one order in which no candidate is twice.

    Returns all eligible candidates; `scores` are the similarities to the exemplar whose turn it
    was, so they are not monotone. Raises InputError where candidates x exemplars are too many.
    """
    if scores.size > ROUND_ROBIN_LIMIT:
        raise InputError(
            f"{scores.shape[0]:,} candidates times {scores.shape[1]:,} exemplars are too many",
            field="ranking.exemplar_reduction",
            value="round_robin",
            remedy="Use `max`, `mean` or `clusters`, or fewer exemplars.",
        )
    joint = combine_targets([rank(column, eligible) for column in scores.T])
    return Ranking(rows=joint.rows, scores=joint.scores)


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
