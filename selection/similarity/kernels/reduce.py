"""From sums of minima to scores, and from scores against many exemplars to one per target task.

A score is one IEEE division of two exact integers. Scores that are averaged are rounded half to
even to multiples of 2^-40 and added as integers, so no order of exemplars can matter. No fastmath.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

SCORE_BITS = 40
MAX, MEAN, BEST_MEAN, GROUP_MEAN = range(4)

_SCALE = float(1 << SCORE_BITS)


class TargetArrays(NamedTuple):
    """T target tasks over m queries.

    starts: (T + 1,) int64, target t has queries starts[t]:starts[t + 1].
    kinds:  (T,) int64, MAX, MEAN, BEST_MEAN or GROUP_MEAN.
    best:   (T,) int64, how many scores BEST_MEAN averages, at most the target's queries.
    groups: (m,) int64; for GROUP_MEAN the queries of a group follow one another.
    """

    starts: NDArray[np.int64]
    kinds: NDArray[np.int64]
    best: NDArray[np.int64]
    groups: NDArray[np.int64]


class Scores(NamedTuple):
    """One thread's memory for a block of n rows.

    one:   (n,) scores against one query.
    best:  (n,) largest so far.
    total: (n,) sum of fixed-point scores.
    top:   (r, n) the r largest fixed-point scores, descending.
    """

    one: NDArray[np.float64]
    best: NDArray[np.float64]
    total: NDArray[np.int64]
    top: NDArray[np.int64]


def scores_for(n: int, targets: TargetArrays) -> Scores:
    """Room for blocks of at most n rows."""
    depth = int(targets.best[targets.kinds == BEST_MEAN].max(initial=1))
    return Scores(
        np.empty(n, np.float64),
        np.empty(n, np.float64),
        np.empty(n, np.int64),
        np.empty((depth, n), np.int64),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_sums(
    sums: NDArray[np.int64],
    norms: NDArray[np.int64],
    query_norms: NDArray[np.int64],
    multipliers: NDArray[np.int64],
    targets: TargetArrays,
    room: Scores,
    out: NDArray[np.float64],
) -> np.int64:
    """Write the scores of a block to out (T, n); returns the largest sum of maxima met.

    sums: (m, >= n); norms: (n,) of the rows. Queries have a norm above 0. A sum of maxima below
    2^53 is exact in float64, and then so is the quotient up to its one rounding.
    """
    n, largest = len(norms), np.int64(0)
    one, best, total = room.one[:n], room.best[:n], room.total[:n]
    for t in range(len(targets.kinds)):
        kind, first, last = targets.kinds[t], targets.starts[t], targets.starts[t + 1]
        top = room.top[: targets.best[t] if kind == BEST_MEAN else 0, :n]
        best[:], total[:], top[:] = 0.0, 0, 0
        in_group = 0
        for j in range(first, last):
            found = divide(sums[j, :n], norms, query_norms[j], multipliers[j], one)
            largest = max(largest, found)
            if kind == MAX:
                _keep_largest(one, best)
            elif kind == BEST_MEAN:
                _keep_top(one, top)
            else:
                _add_fixed(one, total)
            in_group += 1
            if kind == GROUP_MEAN and _ends_group(targets.groups, j, last):
                _mean(total, in_group, one)
                _keep_largest(one, best)
                total[:] = 0
                in_group = 0
        for r in range(len(top)):
            total += top[r]
        if kind in (MEAN, BEST_MEAN):
            _mean(total, last - first if kind == MEAN else targets.best[t], best)
        out[t, :] = best
    return largest


@njit(nogil=True, cache=True)
def _ends_group(groups: NDArray[np.int64], j: int, last: int) -> bool:
    """Whether query j is the last of its group."""
    return bool(j + 1 == last or groups[j + 1] != groups[j])


@njit(nogil=True, cache=True, error_model="numpy")
def divide(
    minima: NDArray[np.int64],
    norms: NDArray[np.int64],
    query_norm: int,
    multiplier: int,
    scores: NDArray[np.float64],
) -> np.int64:
    """Write sum of minima over sum of maxima; returns the largest of the latter."""
    largest = np.int64(0)
    for i in range(len(scores)):
        maxima = multiplier * norms[i] + query_norm - minima[i]
        largest = max(largest, maxima)
        scores[i] = minima[i] / maxima
    return largest


@njit(nogil=True, cache=True)
def _keep_largest(scores: NDArray[np.float64], best: NDArray[np.float64]) -> None:
    for i in range(len(scores)):
        best[i] = scores[i] if scores[i] > best[i] else best[i]


@njit(nogil=True, cache=True)
def _add_fixed(scores: NDArray[np.float64], total: NDArray[np.int64]) -> None:
    for i in range(len(scores)):
        total[i] += np.int64(np.rint(scores[i] * _SCALE))


@njit(nogil=True, cache=True)
def _keep_top(scores: NDArray[np.float64], top: NDArray[np.int64]) -> None:
    """Insert fixed-point scores into the largest ones, which are in descending order."""
    for i in range(len(scores)):
        amount = np.int64(np.rint(scores[i] * _SCALE))
        for r in range(len(top)):
            larger = max(top[r, i], amount)
            amount = min(top[r, i], amount)
            top[r, i] = larger


@njit(nogil=True, cache=True, error_model="numpy")
def _mean(total: NDArray[np.int64], n: int, out: NDArray[np.float64]) -> None:
    for i in range(len(total)):
        out[i] = total[i] / (n * _SCALE)
