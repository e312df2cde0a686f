"""The label-free check of a run: where held-out exemplars stand among the pool's samples.

Every target's exemplars are held out fold by fold, ranked by the run's own method (weights
included), by BM25 and by the random control. How far down the ranking is better than chance is
`flows.stages.decide.ranking_depth`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.config.rules import CheckConfig
from flows.orchestration.progress import Advance, stage
from flows.stages.decide.decide import JOINT, Decided, Race, seed_of
from flows.stages.decide.ranking_depth import Reach, look_down
from flows.stages.prepare.rules import texts_of
from flows.stages.rank.score import queries_of
from flows.stages.represent.spaces import JointTarget, SpaceVectors
from selection.core.sparse import take
from selection.evaluation.bm25 import bm25_of_sets
from selection.evaluation.held_out import (
    FoldStatistic,
    folds_of,
    median_interval,
    samples_alike,
    scores_without,
    share_above,
)
from selection.picking.controls import random_scores
from selection.records import Exemplars, SparseRows
from selection.similarity.queries import ExemplarQueries, score, score_each
from storage.pools.prepare import PreparedPool

BLOCK = 4096

Scored = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(n, folds) scores of sampled rows by the exemplars outside a fold; (m,) those of the held-out."""


@dataclass(frozen=True)
class HeldOut:
    """Where the different exemplars of a target stand by one method.

    positions:    (u,) int64 of the exemplars, copies left out. folds: (u,) int64.
    shares_above: (u,) float64, share of the samples that stand above each.
    """

    positions: NDArray[np.int64]
    folds: NDArray[np.int64]
    shares_above: NDArray[np.float64]


@dataclass(frozen=True)
class TargetCheck:
    """What the check found for one target of one main selection.

    n_rows:   samples that exemplars were ranked among; n_ranked: all that could be picked.
    held_out: method -> standings, the run's own method first; empty with a single exemplar.
    reach:    None where the ranking is not by similarity, or the pool is too small for it.
    """

    selection_id: str
    target: str
    exemplars: Exemplars
    n_rows: int
    n_ranked: int
    held_out: Mapping[str, HeldOut]
    reach: Reach | None


def check_label_free(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    decided: Sequence[Decided],
) -> list[TargetCheck]:
    """The check of every target of every main selection; empty where the config turns it off."""
    rule = config.check
    if rule is None:
        return []
    rows = _sampled(race.eligible, rule, seed_of(config, "check", "rows"))
    with stage("held-out exemplars", len(rows), "samples") as handle:
        folds = {
            name: folds_of(exemplars.ids.tolist(), rule.folds, config.seed)
            for name, (_, exemplars) in targets.items()
        }
        folds = {name: each for name, each in folds.items() if each.any()}
        scored = _by_method(config, pool, vectors, race, targets, folds, rows, handle.advance)
        ids = pool.example_ids()[rows].astype(str)
        held_out = {
            name: {
                method: _standings(found[name], folds[name], targets[name][1], ids)
                for method, found in scored.items()
            }
            for name in folds
        }
        handle.detail = _in_short(held_out, config.ranking.method)
    return [
        TargetCheck(
            main.selection_id,
            name,
            targets[name][1],
            len(rows),
            int(race.eligible.sum()),
            held_out.get(name, {}),
            _reach(config, pool, vectors, race, name, main, held_out.get(name, {})),
        )
        for main in decided
        if main.role == "main"
        for name in (targets if main.target == JOINT and len(targets) > 1 else [main.target])
    ]


def _sampled(eligible: NDArray[np.bool_], rule: CheckConfig, seed: int) -> NDArray[np.int64]:
    """Ascending rows: all that are eligible, or a random `max_rows` of them."""
    rows = np.flatnonzero(eligible)
    if len(rows) <= rule.max_rows:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, rule.max_rows, replace=False))


def _by_method(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    folds: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.int64],
    advance: Advance,
) -> dict[str, dict[str, Scored]]:
    """Method -> target -> scores; the run's own method first, each once."""
    found: dict[str, dict[str, Scored]] = {}
    if not folds:
        return found
    for method in dict.fromkeys([config.ranking.method, "bm25", "random"]):
        if method == "jaccard":
            found[method] = _by_similarity(config, vectors, race, folds, rows, advance)
        elif method == "bm25":
            found[method] = _by_words(pool, targets, folds, rows)
        else:
            found[method] = _at_random(config, pool, targets, folds, rows)
    return found


@dataclass(frozen=True)
class _Asked:
    """One question to every block of rows.

    folds: (m,) of the target's exemplars, where their scores one by one give those of all folds.
    fold:  else the fold that `part` leaves out.
    """

    name: str
    part: JointTarget
    queries: ExemplarQueries
    folds: NDArray[np.int64] | None = None
    fold: int = 0

    def scores(self, joined: SparseRows, threads: int) -> NDArray[np.float64]:
        """(c, folds) or (c, 1) scores of the rows."""
        if self.folds is None:
            return score(joined, self.queries, threads=threads)[:, None]
        statistic: FoldStatistic = "mean" if self.queries.reduction == "mean" else "max"
        return scores_without(
            score_each(joined, self.queries, threads=threads)[0], self.folds, statistic
        )


def _by_similarity(
    config: SelectConfig,
    vectors: SpaceVectors,
    race: Race,
    folds: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.int64],
    advance: Advance,
) -> dict[str, Scored]:
    """Target -> scores by the run's method, weights made without the held-out exemplars."""
    threads = config.compute.n_threads
    asked = [
        each for name, fold_of in folds.items() for each in _questions(config, race, name, fold_of)
    ]
    found = {
        name: (np.zeros((len(rows), int(fold_of.max()) + 1)), np.zeros(len(fold_of)))
        for name, fold_of in folds.items()
    }
    for each in asked:
        scores = each.scores(each.part.joint.rows(race.targets[each.name].parts), threads)
        for column in range(scores.shape[1]):
            held = np.flatnonzero(folds[each.name] == each.fold + column)
            found[each.name][1][held] = scores[held, column]
    for first in range(0, len(rows), BLOCK):
        chunk = rows[first : first + BLOCK]
        joined = asked[0].part.joint.rows(vectors.gather(chunk))
        for each in asked:
            scores = each.scores(joined, threads)
            columns = slice(each.fold, each.fold + scores.shape[1])
            found[each.name][0][first : first + len(chunk), columns] = scores
        advance(len(chunk))
    return found


def _questions(
    config: SelectConfig, race: Race, name: str, folds: NDArray[np.int64]
) -> Iterator[_Asked]:
    """What has to be scored for a target: all folds at once where one pass can tell."""
    target, reduction = race.targets[name], config.ranking.exemplar_reduction
    # Taking turns gives an order but no score: nearness to the nearest exemplar stands for it.
    how = "max" if reduction == "round_robin" else reduction
    if how in ("mean", "max"):
        yield _Asked(name, target, queries_of(config, name, target, how), folds)
        return
    for fold in range(int(folds.max()) + 1):
        kept = np.flatnonzero(folds != fold)
        parts = tuple(take(part, kept) for part in target.parts)
        part = replace(target, parts=parts, rows=take(target.rows, kept))
        yield _Asked(name, part, queries_of(config, name, part, how), fold=fold)


def _by_words(
    pool: PreparedPool,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    folds: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.int64],
) -> dict[str, Scored]:
    """Target -> BM25 scores, in one pass over the texts."""
    texts: list[str] = []
    sets: list[NDArray[np.int64]] = []
    places: dict[str, tuple[slice, slice]] = {}
    for name, fold_of in folds.items():
        first, n_folds = len(texts), int(fold_of.max()) + 1
        texts += texts_of(targets[name][0])
        places[name] = slice(first, len(texts)), slice(len(sets), len(sets) + n_folds)
        sets += [first + np.flatnonzero(fold_of != fold) for fold in range(n_folds)]
    of_pool, of_exemplars = bm25_of_sets(_texts_at(pool, rows), texts, sets)
    return {
        name: (
            of_pool[:, columns],
            of_exemplars[mine, columns][np.arange(len(folds[name])), folds[name]],
        )
        for name, (mine, columns) in places.items()
    }


def _texts_at(pool: PreparedPool, rows: NDArray[np.int64]) -> Iterator[str]:
    for first in range(0, len(rows), BLOCK):
        yield from texts_of(pool.examples_at(rows[first : first + BLOCK]))


def _at_random(
    config: SelectConfig,
    pool: PreparedPool,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    folds: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.int64],
) -> dict[str, Scored]:
    """Target -> scores of the random control."""
    ids = pool.example_ids()[rows].astype(str).tolist()
    found = {}
    for name, fold_of in folds.items():
        seed = seed_of(config, name)
        scores = np.tile(random_scores(ids, seed)[:, None], int(fold_of.max()) + 1)
        found[name] = scores, random_scores(targets[name][1].ids.tolist(), seed)
    return found


def _standings(
    scored: Scored, folds: NDArray[np.int64], exemplars: Exemplars, ids: NDArray[np.str_]
) -> HeldOut:
    """Each different exemplar among the samples. ids: (n,) ascending, of the sampled rows."""
    scores, own = scored
    _, positions = np.unique(exemplars.ids, return_index=True)
    shares = np.zeros(len(positions))
    for i, j in enumerate(positions):
        is_copy = np.zeros(len(ids), np.bool_)
        place = np.searchsorted(ids, exemplars.ids[j])
        is_copy[place : place + 1] = ids[place : place + 1] == exemplars.ids[j]
        shares[i] = share_above(scores[:, folds[j]], own[j], is_copy)
    order = np.argsort(positions)
    return HeldOut(positions[order], folds[positions[order]], shares[order])


def _reach(
    config: SelectConfig,
    pool: PreparedPool,
    vectors: SpaceVectors,
    race: Race,
    name: str,
    main: Decided,
    held_out: Mapping[str, HeldOut],
) -> Reach | None:
    """How far down; samples that exemplars cannot be told from are kept out of the draws."""
    if main.method != "jaccard":
        return None
    n_ranked, n_alike = int(race.eligible.sum()), 0.0
    if main.method in held_out:
        shares = held_out[main.method].shares_above
        if median_interval(100 * (1 - shares)).lo > 50:
            n_alike = samples_alike(shares, n_ranked).median
    return look_down(config, pool, vectors, race, name, main, int(min(n_alike, n_ranked / 2)))


def _in_short(held_out: Mapping[str, Mapping[str, HeldOut]], method: str) -> str:
    if not held_out:
        return "a single exemplar cannot be held out"
    medians = [
        f"{name} above {100 * (1 - float(np.median(found[method].shares_above))):.1f} %"
        for name, found in held_out.items()
    ]
    return f"{', '.join(medians)} of the pool"
