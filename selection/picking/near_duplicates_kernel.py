"""The compiled search of near-duplicates: one vector against those kept, integers and one division.

A score of t needs a sum of minima of t / (1 + t) of both norms together. Three things spare most of
the work, and none of them can lose a vector: kept vectors that share no head latent (see
`selection.picking.near_duplicates`) are never met; sums of amounts in a few bins bound the sum of
minima from above; and a comparison ends once what is left cannot reach the sum that is needed.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_BINS = 32  # 128 bytes of a kept vector instead of its entries.
_LARGEST = (1 << 32) - 1
_SLACK = 1e-9  # Relative; what is needed is a float product, and a little less misses nothing.


class One(NamedTuple):
    """A vector: (nnz,) latents and values, its weighted norm, (N_BINS,) bins, (h,) head latents."""

    latents: NDArray[np.int32]
    values: NDArray[np.uint32]
    norm: int
    bins: NDArray[np.uint32]
    head: NDArray[np.int32]


class Many(NamedTuple):
    """Kept vectors.

    indptr, latents, values: compressed rows. norms: (n,) weighted. bins: (n * N_BINS,) uint32.
    newest: (n_latents,) newest link of each latent, -1 for none; no length where there are no
            links. older: (links,) the next older link. vector: (links,) which kept vector.
    seen:   (n,) the last question in which each was met.
    """

    indptr: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.uint32]
    norms: NDArray[np.int64]
    bins: NDArray[np.uint32]
    newest: NDArray[np.int64]
    older: NDArray[np.int64]
    vector: NDArray[np.int32]
    seen: NDArray[np.int64]


@njit(nogil=True, cache=True)
def fill_bins(
    latents: NDArray[np.int32],
    values: NDArray[np.uint32],
    weights: NDArray[np.int64],
    shift: int,
    bins: NDArray[np.uint32],
) -> None:
    """Sums of weighted amounts by latent modulo N_BINS, in multiples of 2^shift, rounded down.

    All bins are the largest number where one of them does not fit: two such vectors tell nothing of
    each other, and are compared.
    """
    sums = np.zeros(N_BINS, np.int64)
    for p in range(len(latents)):
        sums[latents[p] % N_BINS] += weights[latents[p]] * np.int64(values[p])
    fits = True
    for b in range(N_BINS):
        fits &= (sums[b] >> shift) <= _LARGEST
    for b in range(N_BINS):
        bins[b] = np.uint32(sums[b] >> shift) if fits else np.uint32(_LARGEST)


@njit(nogil=True, cache=True)
def _not_ruled_out(
    norm: int,
    bins: NDArray[np.uint32],
    norms: NDArray[np.int64],
    kept_bins: NDArray[np.uint32],
    shift: int,
    threshold: float,
    others: NDArray[np.int64],
    n_others: int,
) -> int:
    """Leave in `others` those that norms and bins allow to be close; returns how many.

    One loop without calls: it sees every kept vector, everything behind it sees one in a hundred.
    """
    n_left, needs = 0, threshold / (1 + threshold) * (1 - _SLACK)
    least, unit = threshold * (1 - _SLACK), np.float64(np.int64(1) << shift)
    for k in range(n_others):
        other = others[k]
        own = norms[other]
        if min(norm, own) < least * max(norm, own):  # The largest score that the norms allow.
            continue
        first = np.uint64(other) * np.uint64(N_BINS)
        total = np.int64(N_BINS)  # Rounding took at most one from each bin.
        for b in range(np.uint64(N_BINS)):
            x, y = bins[b], kept_bins[first + b]
            total += np.int64(x if x < y else y)
        if total * unit >= needs * (np.float64(norm) + np.float64(own)) or (
            bins[0] == _LARGEST and kept_bins[first] == _LARGEST
        ):
            others[n_left] = other
            n_left += 1
    return n_left


@njit(nogil=True, cache=True)
def _shared(
    one: One, many: Many, other: int, weights: NDArray[np.int64], needed: float
) -> np.int64:
    """Sum of weighted minima with a kept vector; -1 where it is found to stay below `needed`."""
    a, a_end = 0, len(one.latents)
    b, b_end = many.indptr[other], many.indptr[other + 1]
    shared, left_a, left_b = np.int64(0), np.int64(one.norm), many.norms[other]
    while a < a_end and b < b_end:
        f, g = one.latents[a], many.latents[b]
        if f == g:
            x, y = np.int64(one.values[a]), np.int64(many.values[b])
            both = weights[f] * min(x, y)
            shared += both
            left_a -= weights[f] * x - both
            left_b -= weights[f] * y - both
        elif f < g:
            left_a -= weights[f] * np.int64(one.values[a])
        else:
            left_b -= weights[g] * np.int64(many.values[b])
        a += f <= g
        b += g <= f
        if min(left_a, left_b) < needed:  # Each norm without what found no partner.
            return np.int64(-1)
    return shared


@njit(nogil=True, cache=True)
def meet(
    one: One,
    many: Many,
    n: int,
    weights: NDArray[np.int64],
    shift: int,
    query: int,
    threshold: float,
    close: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> tuple[int, int]:
    """Write the kept vectors that are close, in any order.

    n: number of kept vectors. query: number of this question.
    Returns how many are close, and how many links were followed (0 without links).
    """
    others, n_others, n_links = close, 0, 0
    if one.norm == 0:
        return 0, 0
    if len(many.newest) == 0:
        for other in range(n):
            others[other] = other
        n_others = n
    for latent in one.head:  # None where there are no links.
        link = many.newest[latent]
        while link >= 0:
            met, link = many.vector[link], many.older[link]
            n_links += 1
            if many.seen[met] != query:
                many.seen[met] = query
                others[n_others] = met
                n_others += 1
    n_left = _not_ruled_out(
        one.norm, one.bins, many.norms, many.bins, shift, threshold, others, n_others
    )
    n_found = 0
    for k in range(n_left):  # `close` is `others`: what is written lies behind what is read.
        other = others[k]
        norm = np.int64(many.norms[other])
        needed = threshold / (1 + threshold) * (one.norm + norm) * (1 - _SLACK)
        shared = _shared(one, many, other, weights, needed)
        if shared < 0:
            continue
        score = shared / (one.norm + norm - shared)
        if score >= threshold:
            close[n_found], scores[n_found] = other, score
            n_found += 1
    return n_found, n_links
