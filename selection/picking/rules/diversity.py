"""Maximal marginal relevance on the exact similarity: good candidates that differ from each other.

Each pick is the candidate with the largest trade * score - (1 - trade) * (largest generalized
Jaccard with a pick so far). That maximum can only grow, so an old value bounds the new one from
above, and only candidates at the top of the queue are compared with the picks they have not met.
The order is the same as if everything were compared each time.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.kernels.rows import RowArrays, row_arrays, value_at, weighted_norms
from selection.similarity.scorer import EXACT_LIMIT


@dataclass(frozen=True, slots=True)
class Diversity:
    """How alike picks may be.

    trade:    1 keeps the order of scores, 0 looks at differences alone.
    multiple: how many times the budget the candidates are that may change ranks.
    """

    trade: float = 0.7
    multiple: float = 4.0


def diverse_order(
    rows: SparseRows,
    scores: NDArray[np.float64],
    weights: NDArray[np.int64],
    *,
    trade: float,
    costs: NDArray[np.int64] | None = None,
    budget: int,
) -> NDArray[np.int64]:
    """Order candidates by maximal marginal relevance.

    rows, scores: the c candidates, best first. weights: (n_latents,) int64 of the ranking.
    trade:  1 keeps the order of scores, 0 looks at differences alone.
    costs:  (c,) int64 of each candidate, e.g. tokens; default 1 each.
    budget: stop once the costs have reached or passed it.
    Returns (p,) int64 positions in order of picking. Equal values go to the better candidate.
    """
    if not 0 <= trade <= 1:
        raise ValueError(f"trade is in [0, 1], not {trade}")
    arrays, norms = row_arrays(rows), weighted_norms(rows, weights)
    if 2 * int(norms.max(initial=0)) >= EXACT_LIMIT:
        raise OverflowError("norms are too large to compare exactly")
    price = np.ones(len(rows), np.int64) if costs is None else costs
    relevance = trade * scores.astype(np.float64)
    nearest, met = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    table = np.zeros(len(weights), np.int64)
    picks, spent = np.empty(len(rows), np.int64), 0
    n_picks = 0
    queue = [(-float(relevance[i]), i) for i in range(len(rows))]
    heapq.heapify(queue)
    while queue:
        _, i = heapq.heappop(queue)
        if met[i] < n_picks:
            nearest[i] = _nearest(
                arrays, norms, weights, i, picks[met[i] : n_picks], nearest[i], table
            )
            met[i] = n_picks
            value = float(relevance[i] - (1 - trade) * nearest[i])
            if queue and (-value, i) > queue[0]:
                heapq.heappush(queue, (-value, i))
                continue
        picks[n_picks] = i
        n_picks += 1
        spent += int(price[i])
        if spent >= budget:
            break
    return picks[:n_picks].copy()


@njit(nogil=True, cache=True)
def _nearest(
    rows: RowArrays,
    norms: NDArray[np.int64],
    weights: NDArray[np.int64],
    i: int,
    others: NDArray[np.int64],
    so_far: float,
    table: NDArray[np.int64],
) -> float:
    """The largest of `so_far` and the similarities of row i to the others.

    table: (n_latents,) zeros, and zeros again afterwards.
    """
    for p in range(rows.indptr[i], rows.indptr[i + 1]):
        table[rows.latents[p]] = value_at(rows.values, p)
    for other in others:
        low, high = min(norms[i], norms[other]), max(norms[i], norms[other])
        if high == 0 or low / high <= so_far:  # The norms allow nothing larger.
            continue
        shared = np.int64(0)
        for p in range(rows.indptr[other], rows.indptr[other + 1]):
            latent = rows.latents[p]
            shared += weights[latent] * min(table[latent], value_at(rows.values, p))
        so_far = max(so_far, shared / (norms[i] + norms[other] - shared))
    for p in range(rows.indptr[i], rows.indptr[i + 1]):
        table[rows.latents[p]] = 0
    return so_far
