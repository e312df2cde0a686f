"""Exact generalized Jaccard of candidates against exemplars: sum of minima over sum of maxima.

With weights w and values a, b of two vectors, m = sum w min(a, b), |a| = sum w a, and the score is
m / (|a| + |b| - m): three exact integers and one IEEE division. Two vectors without any weight
give 0. Candidates are streamed, 6 bytes an entry, and no index is built; memory is what the
exemplars need, never exemplars x candidates.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import indptr_of
from selection.records import SparseRows
from selection.similarity.kernels.rows import check_weights, pair_minima, row_arrays, weighted_norms
from selection.similarity.kernels.tables import QueryEntries
from selection.similarity.scorer import Scorer, Target, check_exact

ExemplarReduction = Literal["prototype", "max", "mean", "round_robin"]
"""prototype: the similarity to the mean of the exemplars. max, mean: over the similarities to each.
round_robin: exemplars take turns, each taking its best candidate that is not taken yet.
"""

ROUND_ROBIN_LIMIT = 1 << 30  # Scores of all exemplars are held at once: 8 GB.


@dataclass(frozen=True, eq=False)
class ExemplarQueries:
    """The exemplars of one target task, ready to score candidates. Made by `exemplar_queries`.

    reduction: how scores against the exemplars become one score.
    weights:   (n_latents,) int64 weight of each latent; 0 excludes it.
    entries:   m queries, or 1 for a prototype.
    """

    reduction: ExemplarReduction
    weights: NDArray[np.int64]
    entries: QueryEntries

    def __len__(self) -> int:
        """Number of queries that a candidate is compared with."""
        return len(self.entries.norms)

    @property
    def target(self) -> Target:
        """For a `Scorer` of several target tasks."""
        return Target(self.entries, self.reduction == "mean")

    @cached_property
    def scorer(self) -> Scorer:
        """Scores candidates for this target task alone."""
        return Scorer(self.weights, [self.target])


def exemplar_queries(
    exemplars: SparseRows, weights: NDArray[np.int64], reduction: ExemplarReduction
) -> ExemplarQueries:
    """Prepare exemplars for `score` and `score_each`.

    reduction: "prototype" compares with the mean of the m exemplars, exactly: their integer sum is
    compared with m times the candidate. Others compare with each exemplar; a "mean" rounds each
    score half to even to a multiple of 2^-40 and adds those as integers.
    Raises InputError if there is no exemplar, or one has no latent with a weight.
    """
    if reduction not in get_args(ExemplarReduction):
        raise ValueError(f"reduction is one of {get_args(ExemplarReduction)}, not {reduction!r}")
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
        if np.diff(exemplars.indptr)[empty[0]]:
            raise InputError(
                f"exemplar {empty[0] + 1} of {m} has only latents of weight 0",
                remedy="Raise `ranking.max_document_frequency`, take other `ranking.weights`, or"
                " remove the exemplar.",
            )
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
    entries = QueryEntries(starts, latents, limits, norms, multipliers)
    return ExemplarQueries(reduction, weights, entries)


def _summed(
    latents: NDArray[np.int32], limits: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Every latent once, ascending, with the sum of its limits."""
    order = np.argsort(latents, kind="stable")
    latents = latents[order]
    firsts = np.flatnonzero(np.diff(latents, prepend=-1))
    return latents[firsts], np.add.reduceat(limits[order], firsts)


def score(
    rows: SparseRows,
    queries: ExemplarQueries,
    *,
    norms: NDArray[np.int64] | None = None,
    threads: int = 1,
    block_rows: int | None = None,
) -> NDArray[np.float64]:
    """Score every row against the exemplars. Several targets in one pass: `Scorer`.

    norms:  (n,) int64 weighted norms of the rows, where known already: spares reading the weights.
    Returns (n,) float64 in [0, 1]; an empty row scores 0. The result does not depend on `threads`,
    `block_rows`, or on how rows were split over calls.
    Raises OverflowError if a sum reaches 2^53, where a score would no longer be exact, and
    ValueError for "round_robin", which orders candidates but gives them no score.
    """
    if queries.reduction == "round_robin":
        raise ValueError("round_robin orders candidates by turns; use score_each and take_turns")
    (scores,) = queries.scorer.scores(rows, norms=norms, threads=threads, block_rows=block_rows)
    return np.asarray(scores)


def score_each(
    rows: SparseRows,
    queries: ExemplarQueries,
    *,
    threads: int = 1,
    block_rows: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score every row against every query; the result is dense.

    Returns (n, m) float64 scores and (n, m) int64 numerators, the sums of weighted minima.
    """
    minima, norms = queries.scorer.minima(rows, threads=threads, block_rows=block_rows)
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
