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

The interval is that of ranks, not of resamples. With m exemplars among n samples of their kind all
orders of the n + m are equally likely, so the number of samples above the k-th highest exemplar is
negative hypergeometric, and the n for which the observed number is not in a tail of 2.5 % are the
interval. Samples of other kinds only add to the numbers: that cannot make the upper end too small.
The lower end could become too large, so it is the least over all exemplars down to the median one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb, exp, lgamma
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.picking.controls import random_scores
from selection.similarity.kernels.reduce import SCORE_BITS

FoldStatistic = Literal["mean", "max"]

_SCALE = float(1 << SCORE_BITS)


FEWEST_ALIKE = 5  # Exemplars from which measured intervals of `samples_alike` cover 95 %.
TAIL = 0.025
APART, FEW = 5.0, 0.02  # Times the median share of samples above, and at least: measured.


@dataclass(frozen=True, slots=True)
class MedianInterval:
    """A median over exemplars with its 95 % interval; None where they are too few for one."""

    median: float
    lo: float | None
    hi: float | None


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


def median_interval(values: NDArray[np.float64]) -> MedianInterval:
    """Median of values per exemplar, and the interval between two of them that covers the true one.

    values: (m,). The r-th smallest and r-th largest, r as large as a coverage of 95 % allows; with
    fewer than 6 values there is none.
    """
    if not len(values):
        raise ValueError("there is no exemplar to take a median over")
    m = len(values)
    below = np.cumsum([comb(m, j) / 2.0**m for j in range(m // 2 + 1)])  # P(at most j below it)
    r = int(np.searchsorted(below, TAIL, side="right"))
    if r == 0:
        return MedianInterval(float(np.median(values)), None, None)
    ordered = np.sort(values)
    return MedianInterval(float(np.median(values)), float(ordered[r - 1]), float(ordered[m - r]))


def apart(shares_above: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(m,) which exemplars are unlike the others, by where they stand when held out.

    No better than a random sample; or with many times as many samples above it as the median
    exemplar has, and more than a few: an exemplar of another task mostly does (see the page).
    """
    usual = APART * float(np.median(shares_above))
    return (shares_above >= 0.5) | (shares_above > max(usual, FEW))


def chance_to_rank_so_high(shares_above: NDArray[np.float64]) -> float:
    """Probability that the median of random samples in the exemplars' place is as high.

    shares_above: (m,) of the held-out exemplars; those of random samples are uniform in [0, 1].
    """
    m, median = len(shares_above), float(np.median(shares_above))
    if median > 0.5:
        return 1.0 - _median_of_uniform(m, 1.0 - median)
    return _median_of_uniform(m, median)


def _median_of_uniform(m: int, x: float) -> float:
    """Probability, for x of at most 1/2, that the median of m uniform values is at most x."""
    k = m // 2
    if m % 2:
        return sum(comb(m, j) * x**j * (1 - x) ** (m - j) for j in range(k + 1, m + 1))
    # The middle values u < v have the density m! / (k - 1)!^2 u^(k - 1) (1 - v)^(k - 1); v goes
    # from u to 2 x - u, and what is left is a polynomial in u.
    nodes, weights = np.polynomial.legendre.leggauss(max(32, k + 1))
    u = (nodes + 1) * x / 2
    scale = lgamma(m + 1) - lgamma(k) - lgamma(k + 1)
    with np.errstate(divide="ignore"):  # x of 0
        log_u = scale + (k - 1) * np.log(u) if k > 1 else np.full(len(u), scale)
    inside = np.exp(log_u + k * np.log1p(-u)) - np.exp(log_u + k * np.log1p(u - 2 * x))
    return float((weights * inside).sum() * x / 2)


def samples_alike(shares_above: NDArray[np.float64], n_rows: int, n: int) -> MedianInterval:
    """About how many of n samples are as close to the exemplars as these are to each other.

    shares_above: (m,) of the held-out exemplars, among n_rows of the n samples. Twice the median
    number above, at most n, with an interval from FEWEST_ALIKE exemplars on. See the module.
    """
    m, scale = len(shares_above), n / n_rows
    alike = min(2.0 * float(np.median(shares_above)), 1.0) * n
    if m < FEWEST_ALIKE:
        return MedianInterval(alike, None, None)
    above = np.sort(shares_above) * n_rows  # Ties count half; ends are rounded outwards.
    k = m // 2 + 1
    hi = _most_alike(ceil(above[k - 1]), k, m, n_rows)
    lo = min(_least_alike(int(above[j - 1]), j, m, n_rows) for j in range(1, (m + 1) // 2 + 1))
    return MedianInterval(alike, min(lo * scale, alike), max(hi * scale, alike))


def share_within(n: int, m: int, k: int, above: int) -> float:
    """Probability that at most `above` of n samples alike stand above the k-th of m exemplars.

    That is: at least k of the m are among the first above + k of all n + m, in random order.
    """
    first, both = above + k, n + m
    if first >= both:
        return 1.0
    whole = _log_binomial(both, first)
    return sum(
        exp(_log_binomial(m, j) + _log_binomial(n, first - j) - whole)
        for j in range(k, min(m, first) + 1)
        if first - j <= n
    )


def _log_binomial(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _most_alike(above: int, k: int, m: int, n_rows: int) -> int:
    """The largest n, at most n_rows, of which so few above are not in the lower tail."""
    return bisect_right(range(n_rows + 1), -TAIL, key=lambda n: -share_within(n, m, k, above)) - 1


def _least_alike(above: int, k: int, m: int, n_rows: int) -> int:
    """The smallest n, at most n_rows, of which so many above are not in the upper tail."""
    if above == 0:
        return 0
    tail = bisect_left(range(n_rows + 1), TAIL, key=lambda n: 1 - share_within(n, m, k, above - 1))
    return min(tail, n_rows)
