"""From sums of minima to scores, and from scores against many exemplars to one per target task.

A score is one IEEE division of two exact integers. Scores that are averaged are rounded half to
even to multiples of 2^-40 and added as integers, so no order of exemplars can matter. No fastmath.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

SCORE_BITS = 40

_SCALE = float(1 << SCORE_BITS)
_U = np.uint64


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_sums(
    sums: NDArray[np.int64],
    norms: NDArray[np.int64],
    query_norms: NDArray[np.int64],
    multipliers: NDArray[np.int64],
    starts: NDArray[np.int64],
    averaged: NDArray[np.bool_],
    first: int,
    out: NDArray[np.float64],
) -> np.int64:
    """Write the scores of n rows for T target tasks; returns the largest sum of maxima met.

    sums:     (>= n, >= m) of minima; norms: (n,) of the rows. Queries have a norm above 0.
    starts:   (T + 1,) target t has queries starts[t]:starts[t + 1].
    averaged: (T,) whether its score is the mean of those against its queries, or the largest.
    out:      (T, N), these rows are its columns first..first + n - 1.
    Exact, up to the one rounding of each quotient, while sums of maxima are below 2^53.
    """
    largest, scores = np.int64(0), np.empty(len(query_norms))
    for i in range(len(norms)):
        for j in range(_U(len(scores))):
            maxima = multipliers[j] * norms[i] + query_norms[j] - sums[i, j]
            largest = max(largest, maxima)
            scores[j] = sums[i, j] / maxima
        for t in range(len(averaged)):
            begin, end = _U(starts[t]), _U(starts[t + 1])
            best, total = 0.0, np.int64(0)
            if averaged[t]:
                for j in range(begin, end):
                    total += np.int64(np.rint(scores[j] * _SCALE))
                best = total / ((end - begin) * _SCALE)
            else:
                for j in range(begin, end):
                    best = scores[j] if scores[j] > best else best
            out[t, first + i] = best
    return largest
