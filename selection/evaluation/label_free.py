"""The label-free check of a ranking: where held-out exemplars stand among the pool's samples.

Every target's exemplars are held out fold by fold and ranked by the method itself, by BM25 and at
random. How far down the ranking is better than random samples is `evaluation.ranking_depth`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import take
from selection.evaluation.bm25 import bm25_of_sets
from selection.evaluation.held_out import FoldStatistic, folds_of, scores_without, share_above
from selection.picking.controls import random_scores, seed_of
from selection.records import SparseRows
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.queries import (
    ExemplarReduction,
    exemplar_queries,
    score,
    score_each,
)
from selection.similarity.ranking_input import RankingInput
from selection.similarity.sources import ignore

BLOCK = 4096

Texts = Callable[[NDArray[np.int64]], Sequence[str]]
"""Pool rows -> their texts."""

Folds = Mapping[str, NDArray[np.int64]]
"""Target -> (m,) fold of each exemplar."""


class FoldScores(NamedTuple):
    """Scores by the exemplars outside a fold.

    samples: (n, folds) of sampled pool rows. held_out: (m,) of each held-out exemplar.
    """

    samples: NDArray[np.float64]
    held_out: NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """Where the different exemplars of a target stand by one method.

    positions:    (u,) int64 of the exemplars, copies left out. folds: (u,) int64.
    shares_above: (u,) float64, share of the samples that stand above each.
    """

    positions: NDArray[np.int64]
    folds: NDArray[np.int64]
    shares_above: NDArray[np.float64]


def different(exemplar_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """(u,) positions of the different exemplars, ascending; of copies the first."""
    return np.sort(np.unique(exemplar_ids, return_index=True)[1])


def sample_rows(eligible: NDArray[np.bool_], max_rows: int, seed: int) -> NDArray[np.int64]:
    """Ascending rows: all that are eligible, or a random `max_rows` of them."""
    rows = np.flatnonzero(eligible)
    if len(rows) <= max_rows:
        return rows
    seeded = np.random.default_rng(seed_of(seed, "check", "rows"))
    return np.sort(seeded.choice(rows, max_rows, replace=False))


def check_held_out(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    rows: NDArray[np.int64],
    example_ids: NDArray[np.bytes_],
    texts: Texts,
    exemplar_texts: Mapping[str, Sequence[str]],
    *,
    method: str = "jaccard",
    n_folds: int = 5,
    seed: int = 0,
    threads: int = 1,
    advance: Callable[[int], object] = ignore,
) -> dict[str, dict[str, HeldOut]]:
    """Target -> method -> where its held-out exemplars stand; targets of one exemplar are left out.

    method: the run's own, which comes first; "bm25" and "random" follow.
    rows:   (s,) ascending pool rows that exemplars are ranked among, see `sample_rows`.
    example_ids: (n,) of the whole pool, ascending.
    """
    folds = {
        target: folds_of(exemplars.ids.tolist(), n_folds, seed)
        for target, exemplars in ranking.exemplars.items()
    }
    folds = {target: each for target, each in folds.items() if each.any()}
    if not folds:
        return {}
    ids = example_ids[rows].astype(str)
    scored: dict[str, dict[str, FoldScores]] = {}
    for name in dict.fromkeys([method, "bm25", "random"]):
        if name == "jaccard":
            scored[name] = _by_similarity(ranking, reduction, folds, rows, threads, advance)
        elif name == "bm25":
            scored[name] = _by_words(texts, exemplar_texts, folds, rows)
        else:
            scored[name] = _at_random(ranking, folds, ids.tolist(), seed)
    return {
        target: {
            name: _standings(by_target[target], folds[target], ranking.exemplars[target].ids, ids)
            for name, by_target in scored.items()
        }
        for target in folds
    }


def _fold_scorer(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    target: str,
    fold_of: NDArray[np.int64],
    threads: int,
) -> Callable[[SparseRows], NDArray[np.float64]]:
    """Vectors -> their (c, folds) scores by the exemplars outside each fold."""
    # Taking turns gives an order but no score: nearness to the nearest exemplar stands for it.
    by_score: ExemplarReduction = "max" if reduction == "round_robin" else reduction
    if by_score == "prototype":
        exemplars, weights = ranking.exemplars[target].rows, ranking.spaces.weights
        kept = [np.flatnonzero(fold_of != fold) for fold in range(int(fold_of.max()) + 1)]
        folds = [exemplar_queries(take(exemplars, each), weights, by_score) for each in kept]
        return lambda rows: np.column_stack([score(rows, each, threads=threads) for each in folds])
    statistic: FoldStatistic = "mean" if by_score == "mean" else "max"
    queries = ranking.queries(target, by_score)
    return lambda rows: scores_without(
        score_each(rows, queries, threads=threads)[0], fold_of, statistic
    )


def _by_similarity(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    folds: Folds,
    rows: NDArray[np.int64],
    threads: int,
    advance: Callable[[int], object],
) -> dict[str, FoldScores]:
    """Target -> scores by generalized Jaccard, in one pass over the rows."""
    if ranking.join is not None:
        return _by_own_weights(ranking, reduction, folds, rows, threads, advance)
    scorers = {
        target: _fold_scorer(ranking, reduction, target, fold_of, threads)
        for target, fold_of in folds.items()
    }
    scored = {}
    for target, fold_of in folds.items():
        own = scorers[target](ranking.exemplars[target].rows)
        samples = np.zeros((len(rows), own.shape[1]))
        scored[target] = FoldScores(samples, own[np.arange(len(own)), fold_of])
    for first in range(0, len(rows), BLOCK):
        chunk = rows[first : first + BLOCK]
        joined = ranking.joined(chunk)
        for target, scorer in scorers.items():
            scored[target].samples[first : first + len(chunk)] = scorer(joined)
        advance(len(chunk))
    return scored


def _by_own_weights(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    folds: Folds,
    rows: NDArray[np.int64],
    threads: int,
    advance: Callable[[int], object],
) -> dict[str, FoldScores]:
    """Target -> scores where the weights, too, are those of the exemplars outside a fold."""
    by_score: ExemplarReduction = "max" if reduction == "round_robin" else reduction
    scored = {
        target: FoldScores(np.zeros((len(rows), int(each.max()) + 1)), np.zeros(len(each)))
        for target, each in folds.items()
    }
    scorers = {}
    for target, fold_of in folds.items():
        for fold in range(int(fold_of.max()) + 1):
            own = ranking.by(target, np.flatnonzero(fold_of != fold))
            exemplars, weights = own.exemplars[target].rows, own.spaces.weights
            # Without the held-out ones, another may be left with nothing that the pool lacks.
            kept = take(exemplars, np.flatnonzero(weighted_norms(exemplars, weights) > 0))
            queries = exemplar_queries(kept, weights, by_score)
            held = np.flatnonzero(fold_of == fold)
            parts = [take(part, held) for part in ranking.parts[target]]
            scored[target].held_out[held] = score(own.spaces.rows(parts), queries)
            scorers[target, fold] = own.spaces, queries
    for first in range(0, len(rows), BLOCK):
        chunk = slice(first, first + BLOCK)
        parts = ranking.vectors.gather(rows[chunk])
        for (target, fold), (spaces, queries) in scorers.items():
            scores = score(spaces.rows(parts), queries, threads=threads)
            scored[target].samples[chunk, fold] = scores
        advance(len(parts[0]))
    return scored


def _by_words(
    texts: Texts,
    exemplar_texts: Mapping[str, Sequence[str]],
    folds: Folds,
    rows: NDArray[np.int64],
) -> dict[str, FoldScores]:
    """Target -> BM25 scores, in one pass over the texts."""
    every: list[str] = []
    sets: list[NDArray[np.int64]] = []
    slices: dict[str, tuple[slice, slice]] = {}
    for target, fold_of in folds.items():
        first, n_folds = len(every), int(fold_of.max()) + 1
        every += exemplar_texts[target]
        slices[target] = slice(first, len(every)), slice(len(sets), len(sets) + n_folds)
        sets += [first + np.flatnonzero(fold_of != fold) for fold in range(n_folds)]
    chunks = (rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK))
    of_pool, of_exemplars = bm25_of_sets(
        (text for chunk in chunks for text in texts(chunk)), every, sets
    )
    return {
        target: FoldScores(
            of_pool[:, columns],
            of_exemplars[own, columns][np.arange(len(folds[target])), folds[target]],
        )
        for target, (own, columns) in slices.items()
    }


def _at_random(
    ranking: RankingInput, folds: Folds, ids: Sequence[str], seed: int
) -> dict[str, FoldScores]:
    """Target -> scores of the random control."""
    scored = {}
    for target, fold_of in folds.items():
        own_seed = seed_of(seed, target)
        scores = np.tile(random_scores(ids, own_seed)[:, None], int(fold_of.max()) + 1)
        of_exemplars = random_scores(ranking.exemplars[target].ids.tolist(), own_seed)
        scored[target] = FoldScores(scores, of_exemplars)
    return scored


def _standings(
    scores: FoldScores,
    folds: NDArray[np.int64],
    exemplar_ids: NDArray[np.str_],
    ids: NDArray[np.str_],
) -> HeldOut:
    """Each different exemplar among the samples. ids: (s,) ascending, of the sampled rows."""
    positions = different(exemplar_ids)
    shares = np.zeros(len(positions))
    for i, j in enumerate(positions):
        is_copy = np.zeros(len(ids), np.bool_)
        at = np.searchsorted(ids, exemplar_ids[j])
        is_copy[at : at + 1] = ids[at : at + 1] == exemplar_ids[j]
        shares[i] = share_above(scores.samples[:, folds[j]], scores.held_out[j], is_copy)
    return HeldOut(positions, folds[positions], shares)
