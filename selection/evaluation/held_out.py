"""Does the pool hold what the exemplars show? Asked without labels, of the exemplars themselves.

Some exemplars are held out, the others rank them among the pool's samples. Two things are read from
where a held-out exemplar stands. Its percentile says how well the ranking tells the target task
from the pool; random scores give 50. A percentile near 100 alone does not say that the pool holds
the task: where it does not, nothing competes with the exemplar and it stands above everything.

That is what the samples above it say. If n samples of the pool are of the exemplars' kind, a
held-out exemplar is one of n + 1 that nothing distinguishes, so on average half of the n stand
above it: twice the median number above estimates n. It is an estimate from above: what the ranking
confuses with the task is counted too (the same bound as for mixture proportions, Blanchard, Lee and
Scott, JMLR 2010).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.evaluation.metrics import N_RESAMPLES
from selection.picking.controls import random_scores
from selection.similarity.kernels.reduce import SCORE_BITS

FoldStatistic = Literal["mean", "max"]

_SCALE = float(1 << SCORE_BITS)


@dataclass(frozen=True, slots=True)
class MedianInterval:
    """A median over exemplars with its 95 % bootstrap interval."""

    median: float
    lo: float
    hi: float


def folds_of(exemplar_ids: Sequence[str], n_folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Fold of each exemplar, (m,) int64, 0 to min(n_folds, different exemplars) - 1.

    A pure function of content and seed, whatever the order in the file. Exact copies share a fold,
    so that no exemplar is ranked by its own copy. Sizes of folds, counted without copies, differ by
    at most one.
    """
    if n_folds < 2:
        raise ValueError(f"{n_folds} folds hold nothing out; give at least 2")
    unique, position = np.unique(np.array(exemplar_ids, dtype=np.str_), return_inverse=True)
    order = np.argsort(random_scores(unique.tolist(), seed), kind="stable")
    folds = np.empty(len(unique), np.int64)
    folds[order] = np.arange(len(unique)) % min(n_folds, len(unique))
    return folds[position]


def scores_without(
    each: NDArray[np.float64], folds: NDArray[np.int64], statistic: FoldStatistic
) -> NDArray[np.float64]:
    """(n, folds) scores of samples by the exemplars outside each fold, from those by each.

    each: (n, m). A mean adds multiples of 2^-40, as `similarity.queries` does: equal to the bit.
    """
    n_folds = int(folds.max()) + 1
    scores = np.empty((len(each), n_folds))
    amounts = np.rint(each * _SCALE).astype(np.int64) if statistic == "mean" else each
    for fold in range(n_folds):
        rest = amounts[:, folds != fold]
        if statistic == "mean":
            scores[:, fold] = rest.sum(axis=1) / (rest.shape[1] * _SCALE)
        else:
            scores[:, fold] = rest.max(axis=1)
    return scores


def share_above(scores: NDArray[np.float64], own: float, is_copy: NDArray[np.bool_]) -> float:
    """Share of the pool's samples that stand above one that scores `own`; a tie counts half.

    scores:  (n,) float64 of the samples, by the same exemplars. is_copy: (n,) bool, exact copies of
             the held-out exemplar, which are left out.
    Raises ValueError where no sample is left.
    """
    others = scores[~is_copy]
    if not len(others):
        raise ValueError("there is no sample to stand above or below")
    n_above = int((others > own).sum()) + 0.5 * int((others == own).sum())
    return n_above / len(others)


def median_interval(
    values: NDArray[np.float64], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> MedianInterval:
    """Median of values per exemplar, and the 2.5 and 97.5 % points of medians of resamples.

    values: (m,). With a handful of exemplars the interval is coarse: its ends are their values.
    """
    if not len(values):
        raise ValueError("there is no exemplar to take a median over")
    drawn = np.random.default_rng(seed).integers(0, len(values), (n_resamples, len(values)))
    lo, hi = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
    return MedianInterval(float(np.median(values)), float(lo), float(hi))


def samples_alike(shares_above: NDArray[np.float64], n: int) -> MedianInterval:
    """About how many of n samples are as close to the exemplars as these are to each other.

    shares_above: (m,) of the held-out exemplars. Twice the median number above, at most n; the
    interval is that of the median. See the module for why, and why it errs upwards.
    """
    interval = median_interval(shares_above)
    return MedianInterval(
        *(min(2.0 * share, 1.0) * n for share in (interval.median, interval.lo, interval.hi))
    )
