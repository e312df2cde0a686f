"""How good a ranking is against graded relevance, and how sure one can be of a mean over targets.

Arrays in, numbers out. A grade is 3, 2, 1 (relevant, the highest most), 0 (not relevant) or -1
(unjudged: taken out of the ranking before anything is measured). Where a measure knows only
relevant or not, a candidate is relevant if it has the highest grade that the pool holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEPTH = 1000
TOP_GRADE = 3
UNJUDGED = -1
N_SPLITS = 500
N_RESAMPLES = 2000
_PERCENTS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one ranking, each in [0, 1], higher is better.

    ndcg:              nDCG of the first 1,000, gain 2^grade - 1, discount log2(rank + 1); ideal is
                       the best order of the judged candidates of the same pool.
    r_precision:       share of the highest grade among the first R, R being how many have it.
    recall_1, recall_5, recall_10: share of the highest grade found in the first 1, 5, 10 % of the
                       judged candidates (rounded up to whole candidates).
    average_precision: graded average precision (Robertson, Kanoulas and Yilmaz, SIGIR 2010) with a
                       reader who is content with grade 1, 2 or 3 equally likely; for one grade it
                       is average precision.
    """

    ndcg: float
    r_precision: float
    recall_1: float
    recall_5: float
    recall_10: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over targets with its 95 % bootstrap interval."""

    mean: float
    lo: float
    hi: float


def grade_pool(
    task: NDArray[np.str_],
    family: NDArray[np.str_],
    category: NDArray[np.str_],
    is_weak: NDArray[np.bool_],
    *,
    tasks: Sequence[str],
    families: Sequence[str],
    target_category: str,
) -> NDArray[np.int8]:
    """Grade of every pool row for one target, (n,) int8.

    3 for one of the target's tasks, whatever its label quality; else -1 where labels are weak;
    else 2 for the same category in one of the target's families, 1 for the same category, 0.
    """
    grades = np.zeros(len(task), np.int8)
    same = category == target_category
    grades[same] = 1
    grades[same & np.isin(family, list(families))] = 2
    grades[is_weak] = UNJUDGED
    grades[np.isin(task, list(tasks))] = TOP_GRADE
    return grades


def order_by_score(
    scores: NDArray[np.floating], id_order: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Rows, best score first, equal scores by id.

    id_order: (n,) rows in ascending order of their ids. Raises ValueError for a score that is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnan(scores))[0])} has no score (NaN)")
    return id_order[np.argsort(-scores[id_order], kind="stable")].astype(np.int64)


def measure(grades: NDArray[np.integer]) -> Quality:
    """Quality of a ranking.

    grades: (n,) grade of each candidate in ranked order; unjudged ones are taken out here.
    Raises ValueError when nothing relevant is in the pool.
    """
    judged = grades[grades > UNJUDGED].astype(np.int64)
    best = int(judged.max(initial=0))
    if best == 0:
        raise ValueError("no candidate is relevant, so no ranking is better than another")
    is_best = judged == best
    n_best = int(is_best.sum())
    recalls = [
        float(is_best[: -(-percent * len(judged) // 100)].sum() / n_best) for percent in _PERCENTS
    ]
    return Quality(
        ndcg=_dcg(judged) / _dcg(np.sort(judged)[::-1]),
        r_precision=float(is_best[:n_best].mean()),
        recall_1=recalls[0],
        recall_5=recalls[1],
        recall_10=recalls[2],
        average_precision=_graded_average_precision(judged),
    )


def _dcg(grades: NDArray[np.int64]) -> float:
    top = grades[:DEPTH]
    return float(((2.0**top - 1) / np.log2(np.arange(2, len(top) + 2))).sum())


def _graded_average_precision(grades: NDArray[np.int64]) -> float:
    """Precision summed over hits for every contentment threshold, over the number of hits."""
    total, n_hits = 0.0, 0
    for threshold in range(1, TOP_GRADE + 1):
        positions = np.flatnonzero(grades >= threshold)
        total += float((np.arange(1, len(positions) + 1) / (positions + 1)).sum())
        n_hits += len(positions)
    return total / n_hits


def bootstrap_mean(
    values: NDArray[np.float64], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of values per target, and the 2.5 and 97.5 % points of means of resampled targets.

    values: (t,). For two methods give the differences per target: a paired bootstrap. The same t
    and seed draw the same targets.
    """
    if not len(values):
        raise ValueError("there is no target to take a mean over")
    drawn = np.random.default_rng(seed).integers(0, len(values), (n_resamples, len(values)))
    means = values[drawn].mean(axis=1)
    lo, hi = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(lo), float(hi))


def nested_mean(values: NDArray[np.float64], n_splits: int = N_SPLITS, seed: int = 0) -> float:
    """What choosing the best of several settings gives on targets that had no say in the choice.

    values: (s, t) of settings on targets. The targets are halved at random; the setting that is
    best on one half is measured on the other, both ways. One target cannot be halved: the largest.
    """
    n = values.shape[1]
    if n < 2:
        return float(values.mean(axis=1).max())
    rng = np.random.default_rng(seed)
    first = np.zeros((n_splits, n), np.bool_)
    for row in first:
        row[rng.permutation(n)[: n // 2]] = True
    halves = np.concatenate([first, ~first])
    sums = values @ halves.T  # (s, 2 n_splits)
    chosen = sums.argmax(axis=0)
    rest = values.sum(axis=1)[chosen] - sums[chosen, np.arange(len(halves))]
    return float((rest / (~halves).sum(axis=1)).mean())
