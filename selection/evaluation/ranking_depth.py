"""Ranking depth: down to which rank samples are closer to the exemplars than to random samples.

The ranking is walked from the top, each sample compared with draws of random samples of the same
pool (`selection.evaluation.random_draws` says why that is fair), to twice the depth that was found:
the cost follows the answer, not the size of the pool.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import concatenate, take
from selection.evaluation.held_out import median_interval, samples_alike
from selection.evaluation.label_free import HeldOut
from selection.evaluation.random_draws import (
    PAIRS_LIMIT,
    Statistic,
    beats_draws,
    draw_samples,
    draw_sets,
    effective_exemplars,
    informative_until,
    near_exemplars,
)
from selection.picking.controls import seed_of
from selection.records import SparseRows
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.queries import (
    ExemplarQueries,
    ExemplarReduction,
    exemplar_queries,
    score_each,
)
from selection.similarity.ranking_input import RankingInput
from selection.similarity.sources import ignore

BLOCK = 1024
MIN_DEPTH = 2048  # Ranks that are examined in any case.
CANDIDATES = 4096  # Random samples among which those of the exemplars' sizes are found.
SCALED = 512  # Of them, those that tell how many unrelated samples the exemplars are worth.
FEWEST_CANDIDATES = 20  # Fewer random samples cannot tell the best twentieth.
OF_NEAREST = ("max", "round_robin")


@dataclass(frozen=True)
class RankingDepth:
    """What was measured for one target of one selection.

    effective:  unrelated samples that the exemplars are worth.
    n_drawn:    random samples that stood in for exemplars.
    n_examined: ranks compared with them; depth: ranks that are informative, from the top.
    n_picks, n_beyond: the selection's picks for the target, and those of a lower rank.
    near:       (m,) share of the examined picks that are near each exemplar.
    nearest:    (m,) share of them whose nearest exemplar it is.
    """

    effective: float
    n_drawn: int
    n_examined: int
    depth: int
    n_picks: int
    n_beyond: int
    near: NDArray[np.float64]
    nearest: NDArray[np.float64]


@dataclass(frozen=True)
class _Reference:
    """Exemplars, then random samples, as queries; and the draws made of the samples.

    m: number of exemplars. rows: (b,) pool rows of the samples.
    """

    queries: ExemplarQueries
    m: int
    rows: NDArray[np.int64]
    effective: float
    sets: NDArray[np.int64]
    statistic: Statistic
    threads: int

    def similarities(
        self, rows: NDArray[np.int64], joined: SparseRows
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(c, m) to the exemplars and (c, b) to the samples; 0 between a sample and itself."""
        return _similarities(joined, rows, self.queries, self.m, self.rows, self.threads)


def n_indistinguishable(held_out: HeldOut | None, n_ranked: int) -> int:
    """Ranks from the top that pseudo-exemplars are not drawn from: samples like the exemplars.

    0 where held-out exemplars do not clearly rank above the middle; at most half of the ranked.
    """
    if held_out is None or median_interval(100 * (1 - held_out.shares_above)).lo <= 50:
        return 0
    return int(min(samples_alike(held_out.shares_above, n_ranked).median, n_ranked / 2))


def measure_depth(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    target: str,
    ranked: tuple[NDArray[np.int64], NDArray[np.bool_]],
    eligible: NDArray[np.bool_],
    example_ids: NDArray[np.bytes_],
    *,
    n_alike: int = 0,
    pseudo_exemplars: int = 128,
    draws: int = 100,
    max_rows: int = 200_000,
    seed: int = 0,
    threads: int = 1,
    advance: Callable[[int], object] = ignore,
) -> RankingDepth | None:
    """Walk the ranking of a target; None where too few samples are left to draw from.

    ranked:  (r,) pool rows, best first, and whether each was picked: `Selection.of_target`.
    n_alike: `n_indistinguishable` of the held-out exemplars.
    pseudo_exemplars, draws: random samples that stand in for exemplars, and sets of them.
    """
    rows, is_pick = ranked
    below = np.setdiff1d(np.flatnonzero(eligible), rows[:n_alike])
    reference = _reference(
        ranking, reduction, target, below, example_ids, pseudo_exemplars, draws, seed, threads
    )
    if reference is None:
        return None
    beats, depth, n_examined = np.zeros(0, np.bool_), 0, 0
    near, nearest = np.zeros(reference.m), np.zeros(reference.m)
    walked = rows[:max_rows]
    for first in range(0, len(walked), BLOCK):
        chunk = walked[first : first + BLOCK]
        joined = ranking.spaces.rows(ranking.vectors.gather(chunk))
        own, drawn = reference.similarities(chunk, joined)
        more = beats_draws(own, drawn, reference.sets, reference.statistic)
        beats = np.concatenate([beats, more])
        picked = is_pick[first : first + len(chunk)]
        near += near_exemplars(own[picked], drawn[picked]).sum(axis=0)
        nearest += np.bincount(own[picked].argmax(axis=1), minlength=reference.m)
        n_examined, depth = len(beats), informative_until(beats)
        advance(len(chunk))
        if n_examined >= max(2 * depth, MIN_DEPTH):
            break
    n_seen = max(int(is_pick[:n_examined].sum()), 1)
    return RankingDepth(
        reference.effective,
        len(reference.rows),
        n_examined,
        depth,
        int(is_pick.sum()),
        int(is_pick[depth:].sum()),
        near / n_seen,
        nearest / n_seen,
    )


def _reference(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    target: str,
    below: NDArray[np.int64],
    example_ids: NDArray[np.bytes_],
    pseudo_exemplars: int,
    draws: int,
    seed: int,
    threads: int,
) -> _Reference | None:
    """Random samples of the exemplars' sizes from the rows `below`, and draws of them."""
    exemplars, weights = ranking.exemplars[target].rows, ranking.spaces.weights
    rng = np.random.default_rng(seed_of(seed, "check", target, "candidates"))
    rows = np.sort(rng.choice(below, min(CANDIDATES, len(below)), replace=False))
    joined = ranking.spaces.rows(ranking.vectors.gather(rows))
    filled = np.flatnonzero(weighted_norms(joined, weights) > 0)
    rows, joined = rows[filled], take(joined, filled)
    if len(rows) < FEWEST_CANDIDATES:
        return None
    chosen = draw_samples(
        np.diff(exemplars.indptr),
        np.diff(joined.indptr),
        example_ids[rows].astype(str).tolist(),
        pseudo_exemplars,
        seed_of(seed, "check", target, "samples"),
    )
    m = len(exemplars)
    queries = exemplar_queries(concatenate([exemplars, take(joined, chosen)]), weights, "max")
    few = np.arange(min(SCALED, len(rows)))
    similar = _similarities(take(joined, few), rows[few], queries, m, rows[chosen], threads)
    effective = effective_exemplars(*similar)
    is_nearest = reduction in OF_NEAREST
    size = min(m if is_nearest else round(effective), len(chosen), max(1, PAIRS_LIMIT // m))
    sets = draw_sets(len(chosen), size, draws, seed_of(seed, "check", target, "sets"))
    statistic: Statistic = "max" if is_nearest else "mean"
    return _Reference(queries, m, rows[chosen], effective, sets, statistic, threads)


def _similarities(
    joined: SparseRows,
    rows: NDArray[np.int64],
    queries: ExemplarQueries,
    m: int,
    drawn_rows: NDArray[np.int64],
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores, _ = score_each(joined, queries, threads=threads)
    own, drawn = scores[:, :m], scores[:, m:]
    drawn[rows[:, None] == drawn_rows] = 0.0
    return own, drawn
