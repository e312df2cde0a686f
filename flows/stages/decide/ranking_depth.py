"""How far down a ranking its samples are closer to the exemplars than to random samples.

The ranking is walked from the top, each sample held against draws of random samples of the same
pool (`selection.evaluation.random_draws` says why that is fair), to twice the depth that was found:
the cost follows the answer, not the size of the pool.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.decide.decide import Decided, Race, seed_of
from flows.stages.represent.spaces import JointTarget, SpaceVectors
from selection.core.sparse import concatenate, take
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
from selection.records import SparseRows
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.queries import ExemplarQueries, exemplar_queries, score_each
from storage.pools.prepare import PreparedPool

BLOCK = 1024
LEAST_LOOKED = 2048  # Ranks that are looked at in any case.
CANDIDATES = 4096  # Random samples among which those of the exemplars' lengths are found.
SCALED = 512  # Of them, those that tell how many unrelated samples the exemplars are worth.
FEWEST_CANDIDATES = 20  # Fewer random samples cannot tell the best twentieth.
OF_NEAREST = ("max", "round_robin")


@dataclass(frozen=True)
class Reach:
    """What was found for one target of one selection.

    effective: unrelated samples that the exemplars are worth.
    n_drawn:   random samples that stood in for exemplars.
    n_looked:  ranks held against them; until: ranks that are informative, from the top.
    n_picks, n_beyond: the selection's picks for the target, and those of a lower rank.
    near:      (m,) share of the looked-at picks that are near each exemplar.
    nearest:   (m,) share of them whose nearest exemplar it is.
    """

    effective: float
    n_drawn: int
    n_looked: int
    until: int
    n_picks: int
    n_beyond: int
    near: NDArray[np.float64]
    nearest: NDArray[np.float64]


@dataclass(frozen=True)
class _Yardstick:
    """Exemplars, then random samples, as queries; and the draws made of the samples.

    m:       number of exemplars. rows: (b,) pool rows of the samples.
    """

    target: JointTarget
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


def look_down(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    name: str,
    main: Decided,
    n_alike: int,
) -> Reach | None:
    """Walk the ranking of a target; None where too few samples are left to draw from.

    n_alike: ranks from the top that pseudo-exemplars are not drawn from.
    """
    assert config.check is not None
    rows, is_pick = _ranked(main, name)
    with stage("reach", len(rows), "ranks") as handle:
        below = np.setdiff1d(np.flatnonzero(race.eligible), rows[:n_alike])
        yardstick = _yardstick(config, pool, vectors, race, name, below)
        if yardstick is None:
            handle.detail = "the pool is too small to draw random samples from"
            return None
        beats, until, n_looked = np.zeros(0, np.bool_), 0, 0
        near, nearest = np.zeros(yardstick.m), np.zeros(yardstick.m)
        for chunk, joined in _blocks(vectors, yardstick, rows[: config.check.max_rows]):
            own, drawn = yardstick.similarities(chunk, joined)
            more = beats_draws(own, drawn, yardstick.sets, yardstick.statistic)
            beats = np.concatenate([beats, more])
            picked = is_pick[n_looked : n_looked + len(chunk)]
            near += near_exemplars(own[picked], drawn[picked]).sum(axis=0)
            nearest += np.bincount(own[picked].argmax(axis=1), minlength=yardstick.m)
            n_looked, until = len(beats), informative_until(beats)
            handle.advance(len(chunk))
            if n_looked >= max(2 * until, LEAST_LOOKED):
                break
        n_seen = max(int(is_pick[:n_looked].sum()), 1)
        handle.detail = f"{name}: informative to rank {until:,} of {len(rows):,}"
    return Reach(
        yardstick.effective,
        len(yardstick.rows),
        n_looked,
        until,
        int(is_pick.sum()),
        int(is_pick[until:].sum()),
        near / n_seen,
        nearest / n_seen,
    )


def _ranked(main: Decided, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A target's ranked rows, best score first, and which of them were picked."""
    table = pq.read_table(main.scores_file, columns=["example_row", "score_rank", "target"])
    position = table["score_rank"].to_numpy() - 1
    rows = np.empty(len(position), np.int64)
    rows[position] = table["example_row"].to_numpy()
    is_pick = np.zeros(len(rows), np.bool_)
    is_pick[main.picks.positions] = True
    mine = np.zeros(len(rows), np.bool_)
    mine[position] = pc.equal(table["target"], name).to_numpy()
    return rows[mine], is_pick[mine]


def _yardstick(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    name: str,
    below: NDArray[np.int64],
) -> _Yardstick | None:
    """Random samples of the exemplars' lengths from the rows `below`, and draws of them."""
    rule, threads = config.check, config.compute.n_threads
    assert rule is not None
    target = race.targets[name]
    rng = np.random.default_rng(seed_of(config, "check", name, "candidates"))
    rows = np.sort(rng.choice(below, min(CANDIDATES, len(below)), replace=False))
    joined = target.joint.rows(vectors.gather(rows))
    filled = np.flatnonzero(weighted_norms(joined, target.joint.weights) > 0)
    rows, joined = rows[filled], take(joined, filled)
    if len(rows) < FEWEST_CANDIDATES:
        return None
    chosen = draw_samples(
        np.diff(target.rows.indptr),
        np.diff(joined.indptr),
        pool.example_ids()[rows].astype(str).tolist(),
        rule.pseudo_exemplars,
        seed_of(config, "check", name, "samples"),
    )
    both, m = concatenate([target.rows, take(joined, chosen)]), len(target.rows)
    queries = exemplar_queries(both, target.joint.weights, "max")
    few = np.arange(min(SCALED, len(rows)))
    similar = _similarities(take(joined, few), rows[few], queries, m, rows[chosen], threads)
    effective = effective_exemplars(*similar)
    is_nearest = config.ranking.exemplar_reduction in OF_NEAREST
    size = min(m if is_nearest else round(effective), len(chosen), max(1, PAIRS_LIMIT // m))
    sets = draw_sets(len(chosen), size, rule.draws, seed_of(config, "check", name, "sets"))
    statistic: Statistic = "max" if is_nearest else "mean"
    return _Yardstick(target, queries, m, rows[chosen], effective, sets, statistic, threads)


def _similarities(
    joined: SparseRows,
    rows: NDArray[np.int64],
    queries: ExemplarQueries,
    m: int,
    drawn_rows: NDArray[np.int64],
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores = score_each(joined, queries, threads=threads)[0]
    own, drawn = scores[:, :m], scores[:, m:]
    drawn[rows[:, None] == drawn_rows] = 0.0
    return own, drawn


def _blocks(
    vectors: SpaceVectors, yardstick: _Yardstick, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], SparseRows]]:
    """Rows in their order with their joined vectors, a block at a time."""
    for first in range(0, len(rows), BLOCK):
        chunk = rows[first : first + BLOCK]
        yield chunk, yardstick.target.joint.rows(vectors.gather(chunk))
