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
from selection.evaluation.held_out import TAIL, chance_to_rank_so_high, samples_alike
from selection.evaluation.label_free import HeldOut
from selection.evaluation.random_draws import (
    PAIRS_LIMIT,
    Statistic,
    closeness,
    depth_interval,
    draw_samples,
    draw_sets,
    draw_thresholds,
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
    n_examined: ranks compared with them; depth: ranks that are informative, from the top;
                depth_lo, depth_hi: `random_draws.depth_interval`, where there is one.
    n_picks, n_beyond: the selection's picks for the target, and those of a lower rank.
    near:       (m,) share of the examined picks that are near each exemplar.
    nearest:    (m,) share of them whose nearest exemplar it is.
    """

    effective: float
    n_drawn: int
    n_examined: int
    depth: int
    depth_lo: int | None
    depth_hi: int | None
    n_picks: int
    n_beyond: int
    near: NDArray[np.float64]
    nearest: NDArray[np.float64]


@dataclass(frozen=True)
class _Reference:
    """Exemplars, then random samples, as queries.

    m: number of exemplars. rows: (b,) pool rows of the samples.
    """

    queries: ExemplarQueries
    m: int
    rows: NDArray[np.int64]
    threads: int

    def similarities(
        self, rows: NDArray[np.int64], joined: SparseRows
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(c, m) to the exemplars and (c, b) to the samples; 0 between a sample and itself."""
        scores, _ = score_each(joined, self.queries, threads=self.threads)
        own, drawn = scores[:, : self.m], scores[:, self.m :]
        drawn[rows[:, None] == self.rows] = 0.0
        return own, drawn


def n_indistinguishable(held_out: HeldOut | None, n_ranked: int) -> int:
    """Ranks from the top that pseudo-exemplars are not drawn from: samples like the exemplars.

    0 where held-out exemplars do not clearly rank above the middle; at most half of the ranked.
    """
    if held_out is None or chance_to_rank_so_high(held_out.shares_above) > TAIL:
        return 0
    alike = samples_alike(held_out.shares_above, n_ranked, n_ranked)
    return int(min(alike.median, n_ranked / 2))


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
    candidates = _candidates(ranking, target, below, seed)
    if len(candidates[0]) < FEWEST_CANDIDATES:
        return None
    reference = _reference(
        ranking, target, *candidates, example_ids, pseudo_exemplars, seed, threads
    )
    few = np.arange(min(SCALED, len(candidates[0])))
    effective = effective_exemplars(
        *reference.similarities(candidates[0][few], take(candidates[1], few))
    )
    statistic: Statistic = "max" if reduction in OF_NEAREST else "mean"
    n_drawn = len(reference.rows)
    wanted = reference.m if reduction in OF_NEAREST else round(effective)
    size = min(wanted, n_drawn, max(1, PAIRS_LIMIT // reference.m))
    sets = draw_sets(n_drawn, size, draws, seed_of(seed, "check", target, "sets"))
    walk = _walked(ranking, reference, rows[:max_rows], is_pick, sets, statistic, advance)
    interval = None
    if len(walk.close):
        own_seed = seed_of(seed, "check", target, "resamples")
        interval = depth_interval(walk.close, walk.limits, size, statistic, own_seed)
    lo, hi = (None, None) if interval is None else (interval[0], min(interval[1], len(rows)))
    n_examined = len(walk.close)
    n_seen = max(int(is_pick[:n_examined].sum()), 1)
    return RankingDepth(
        effective=effective,
        n_drawn=n_drawn,
        n_examined=n_examined,
        depth=walk.depth,
        depth_lo=lo,
        depth_hi=hi,
        n_picks=int(is_pick.sum()),
        n_beyond=int(is_pick[walk.depth :].sum()),
        near=walk.near / n_seen,
        nearest=walk.nearest / n_seen,
    )


@dataclass(frozen=True)
class _Walk:
    """The examined ranks, from the top.

    depth: of them, the informative ones. close: (r, m) similarities to the exemplars. limits: (r,)
    thresholds of the drawn sets. near, nearest: (m,) picks near each exemplar, and nearest to it.
    """

    depth: int
    close: NDArray[np.float64]
    limits: NDArray[np.int64]
    near: NDArray[np.int64]
    nearest: NDArray[np.int64]


def _walked(
    ranking: RankingInput,
    reference: _Reference,
    rows: NDArray[np.int64],
    is_pick: NDArray[np.bool_],
    sets: NDArray[np.int64],
    statistic: Statistic,
    advance: Callable[[int], object],
) -> _Walk:
    """Ranks compared with the drawn sets, to twice the depth that is found."""
    m, size = reference.m, sets.shape[1]
    close, limits = [np.zeros((0, m))], [np.zeros(0, np.int64)]
    beats, depth = np.zeros(0, np.bool_), 0
    near, nearest = np.zeros(m, np.int64), np.zeros(m, np.int64)
    for first in range(0, len(rows), BLOCK):
        chunk = rows[first : first + BLOCK]
        joined = ranking.joined(chunk)
        own, drawn = reference.similarities(chunk, joined)
        thresholds = draw_thresholds(drawn, sets, m, statistic)
        beats = np.concatenate([beats, closeness(own, size, statistic) > thresholds])
        picked = is_pick[first : first + len(chunk)]
        near += near_exemplars(own[picked], drawn[picked]).sum(axis=0)
        nearest += np.bincount(own[picked].argmax(axis=1), minlength=m)
        close.append(own)
        limits.append(thresholds)
        depth = informative_until(beats)
        advance(len(chunk))
        if len(beats) >= max(2 * depth, MIN_DEPTH):
            break
    return _Walk(depth, np.concatenate(close), np.concatenate(limits), near, nearest)


def _candidates(
    ranking: RankingInput, target: str, below: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], SparseRows]:
    """Random rows of those `below` that have a vector, and their vectors."""
    rng = np.random.default_rng(seed_of(seed, "check", target, "candidates"))
    rows = np.sort(rng.choice(below, min(CANDIDATES, len(below)), replace=False))
    joined = ranking.joined(rows)
    filled = np.flatnonzero(weighted_norms(joined, ranking.spaces.weights) > 0)
    return rows[filled], take(joined, filled)


def _reference(
    ranking: RankingInput,
    target: str,
    rows: NDArray[np.int64],
    joined: SparseRows,
    example_ids: NDArray[np.bytes_],
    pseudo_exemplars: int,
    seed: int,
    threads: int,
) -> _Reference:
    """The exemplars and, of the given rows, random samples of the exemplars' sizes."""
    exemplars = ranking.exemplars[target].rows
    chosen = draw_samples(
        np.diff(exemplars.indptr),
        np.diff(joined.indptr),
        example_ids[rows].astype(str).tolist(),
        pseudo_exemplars,
        seed_of(seed, "check", target, "samples"),
    )
    both = concatenate([exemplars, take(joined, chosen)])
    queries = exemplar_queries(both, ranking.spaces.weights, "max")
    return _Reference(queries, len(exemplars), rows[chosen], threads)
