"""The compiled search of near-duplicates: one vector against those kept, integers and one division.

A score of t needs a sum of minima of t / (1 + t) of both norms together. Two things spare most of
the work, and neither can lose a vector: sums of amounts in a few bins bound the sum of minima from
above, and a comparison ends once what is left cannot reach the sum that is needed.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_BINS = 32  # 128 bytes of a kept vector instead of its entries.
_LARGEST = (1 << 32) - 1
_SLACK = 1e-9  # Relative; what is needed is a float product, and a little less misses nothing.


class Vectors(NamedTuple):
    """n vectors.

    indptr, latents, values: compressed rows. norms: (n,) weighted. bins: (n, N_BINS) uint32.
    """

    indptr: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.uint32]
    norms: NDArray[np.int64]
    bins: NDArray[np.uint32]


@njit(nogil=True, cache=True)
def close_vectors(
    one: Vectors,
    kept: Vectors,
    n: int,
    weights: NDArray[np.int64],
    shift: int,
    threshold: float,
    numbers: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> int:
    """Write which of n kept vectors are close to the first of `one`, ascending; returns how many.

    shift: bins are sums in multiples of 2^shift, rounded down.
    """
    norm, n_close = one.norms[0], 0
    n_left = _rule_out(norm, one.bins[0], kept.norms, kept.bins, n, shift, threshold, numbers)
    for k in range(n_left):  # What is written lies behind what is read.
        other = numbers[k]
        both = norm + kept.norms[other]
        shared = _sum_minima(one, kept, other, weights, _needed(threshold) * both)
        if shared >= 0 and shared / (both - shared) >= threshold:
            numbers[n_close], scores[n_close] = other, shared / (both - shared)
            n_close += 1
    return n_close


@njit(nogil=True, cache=True)
def _needed(threshold: float) -> float:
    """Share of both norms that a sum of minima needs."""
    return threshold / (1 + threshold) * (1 - _SLACK)


@njit(nogil=True, cache=True)
def _rule_out(
    norm: int,
    bins: NDArray[np.uint32],
    norms: NDArray[np.int64],
    kept_bins: NDArray[np.uint32],
    n: int,
    shift: int,
    threshold: float,
    numbers: NDArray[np.int64],
) -> int:
    """Write those of n vectors that norms and bins allow to be close; returns how many.

    One loop without calls: it sees every kept vector, everything behind it sees one in a hundred.
    """
    n_left, needed, least = 0, _needed(threshold), threshold * (1 - _SLACK)
    unit = np.float64(np.int64(1) << shift)
    for other in range(np.uint64(n) if norm > 0 else np.uint64(0)):
        low, high = min(norm, norms[other]), max(norm, norms[other])
        if low < least * high:  # The largest score that the norms allow.
            continue
        total = np.int64(N_BINS)  # Rounding took at most one from each bin.
        for b in range(N_BINS):
            total += np.int64(min(bins[b], kept_bins[other, b]))
        if total * unit >= needed * (np.float64(low) + np.float64(high)) or (
            bins[0] == _LARGEST and kept_bins[other, 0] == _LARGEST
        ):
            numbers[n_left] = other
            n_left += 1
    return n_left


@njit(nogil=True, cache=True)
def _sum_minima(
    one: Vectors, kept: Vectors, other: int, weights: NDArray[np.int64], needed: float
) -> np.int64:
    """Sum of weighted minima with a kept vector; -1 where it is found to stay below `needed`."""
    a, a_end = one.indptr[0], one.indptr[1]
    b, b_end = kept.indptr[other], kept.indptr[other + 1]
    shared, left_a, left_b = np.int64(0), one.norms[0], kept.norms[other]
    while a < a_end and b < b_end:
        f, g = one.latents[a], kept.latents[b]
        x, y = np.int64(one.values[a]), np.int64(kept.values[b])
        if f == g:
            both = weights[f] * min(x, y)
            shared += both
            left_a -= weights[f] * x - both
            left_b -= weights[f] * y - both
        elif f < g:
            left_a -= weights[f] * x
        else:
            left_b -= weights[g] * y
        a += f <= g
        b += g <= f
        if min(left_a, left_b) < needed:  # Each norm without what found no partner.
            return np.int64(-1)
    return shared
