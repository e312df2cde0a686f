"""The label-free check on pools whose truth is known: exemplars drawn anew from labelled rows.

A pool is made of n rows of one task and rows of other tasks; exemplars are m further rows of that
task, so they and the n rows are exchangeable. What the check says is then compared with n.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.api import load_model, read_samples, represent
from selection.core.sparse import take
from selection.evaluation.held_out import (
    TAIL,
    MedianInterval,
    chance_to_rank_so_high,
    samples_alike,
)
from selection.evaluation.label_free import check_held_out
from selection.evaluation.labelled import LabelledPool, LabelledTarget
from selection.evaluation.metrics import TOP_GRADE
from selection.evaluation.ranking_depth import RankingDepth, measure_depth, n_indistinguishable
from selection.picking.ranking import rank
from selection.records import SparseRows
from selection.similarity.ranking_input import RankingInput, ranking_input
from selection.similarity.sources import MemoryVectors, PoolSpaces
from selection.similarity.spaces import SpaceRule, join_spaces
from selection.similarity.weights import document_frequencies

MAX_LENGTH = 256


@dataclass(frozen=True)
class LabelledVectors:
    """Vectors of labelled rows, best preset. task: (n,) number of the row's task; -1 for others."""

    names: tuple[str, ...]
    rows: tuple[SparseRows, ...]
    ids: NDArray[np.str_]
    task: NDArray[np.int64]


@dataclass(frozen=True)
class Redraw:
    """What the check said of one draw.

    task: its number. n: rows of it in the pool of n_pool rows. alike: how many the check
    estimates, with its interval.
    p_random: as in the catalog; depth: None where the pool is too small for it.
    """

    task: int
    n: int
    n_pool: int
    alike: MedianInterval
    p_random: float
    depth: RankingDepth | None

    @property
    def holds(self) -> bool | None:
        """Whether the interval holds n; None where none is given."""
        if self.alike.lo is None or self.alike.hi is None:
            return None
        return self.alike.lo <= self.n <= self.alike.hi

    @property
    def says_absent(self) -> bool:
        """Whether the check says that the pool seems not to hold the task."""
        return self.p_random <= TAIL and round(self.alike.median) == 0

    @property
    def may_be_full(self) -> bool:
        """Whether the check says that the pool may be full of the task."""
        return self.p_random > TAIL or self.alike.median > 0.5 * self.n_pool


def labelled_vectors(
    pool: LabelledPool, targets: Sequence[LabelledTarget], folder: Path, n_others: int, seed: int
) -> LabelledVectors:
    """All rows of the targets' tasks and some others, by the packaged model."""
    task = np.full(len(pool), -1)
    for number, target in enumerate(targets):
        task[pool.grades(target) == TOP_GRADE] = number
    others = np.random.default_rng(seed).permutation(np.flatnonzero(task < 0))[:n_others]
    chosen = np.sort(np.concatenate([np.flatnonzero(task >= 0), others]))
    rows = []
    for i in chosen.tolist():
        [(user, assistant)] = pool.turns("full", i, 1)
        messages = [
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
        rows.append({"id": str(pool.ids[i]), "messages": messages})
    samples = read_samples(rows, columns={"id": "id"})
    vectors = represent(samples, load_model(max_length=MAX_LENGTH, threads=1), folder=folder)
    own_ids = samples.first_occurrences(np.arange(len(samples)))["own_id"].to_pylist()
    of_id = dict(zip(pool.ids[chosen].tolist(), task[chosen].tolist(), strict=True))
    numbers = np.array([of_id[str(own)] for own in own_ids])
    return LabelledVectors(vectors.names, vectors.rows, samples.ids, numbers)


def redraws(
    made: LabelledVectors, m: int, n: int, n_pool: int, n_draws: int, seed: int
) -> Iterator[Redraw]:
    """The check of m exemplars over pools that hold n rows of their task, task after task.

    n_pool: rows of the pool; a task of fewer than n + m rows has a smaller pool, in proportion.
    """
    rng = np.random.default_rng(seed)
    tasks = [t for t in range(int(made.task.max()) + 1) if (made.task == t).sum() >= n // 2 + m]
    for draw in range(n_draws):
        for task in tasks:
            own = rng.permutation(np.flatnonzero(made.task == task))
            others = rng.permutation(np.flatnonzero(made.task != task))
            n_own = min(n, len(own) - m)
            n_others = n_pool - n if n_own == n else (n_pool - n) * n_own // n
            rows = np.sort(np.concatenate([own[m : m + n_own], others[:n_others]]))
            yield _check(made, task, own[:m], rows, n_own, seed + draw)


def _check(
    made: LabelledVectors,
    task: int,
    exemplars: NDArray[np.int64],
    rows: NDArray[np.int64],
    n: int,
    seed: int,
) -> Redraw:
    ranking = _ranking(made, exemplars, rows)
    ids, everyone = made.ids[rows].astype("S"), np.ones(len(rows), np.bool_)
    [by_method] = check_held_out(
        ranking,
        "mean",
        np.arange(len(rows)),
        ids,
        lambda chosen: [""] * len(chosen),
        {"t": [""] * len(exemplars)},
        seed=seed,
    ).values()
    held_out = by_method["jaccard"]
    ranked = rank(ranking.scorer("mean").scores(ranking.vectors)["t"], everyone)
    depth = measure_depth(
        ranking,
        "mean",
        "t",
        (ranked.rows, np.arange(len(rows)) < 1),
        everyone,
        ids,
        n_alike=n_indistinguishable(held_out, len(rows)),
        seed=seed,
    )
    shares = held_out.shares_above
    alike = samples_alike(shares, len(rows), len(rows))
    return Redraw(task, n, len(rows), alike, chance_to_rank_so_high(shares), depth)


def _ranking(
    made: LabelledVectors, exemplars: NDArray[np.int64], rows: NDArray[np.int64]
) -> RankingInput:
    """As the preset `best` ranks: weights and norms are those of the drawn pool."""
    vectors = PoolSpaces(made.names, tuple(MemoryVectors(take(part, rows)) for part in made.rows))
    counts, _ = document_frequencies(vectors)
    spaces = join_spaces([SpaceRule(name) for name in made.names], counts, normalize="pool")
    parts = {"t": [take(part, exemplars) for part in made.rows]}
    return ranking_input(vectors, spaces, counts, {"t": made.ids[exemplars]}, parts)
