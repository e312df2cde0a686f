"""Why a candidate scored: the latents it shares with its nearest exemplars, and how much each gave.

Contributions are integers, in units of 2^-10 times the representation's unit, and those of a pair
add up exactly to the pair's numerator.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selection.jaccard import build_queries, score_matrix
from selection.records import SparseRows

REST = -1
"""In place of a latent: all shared latents beyond the listed ones together."""

EXPLANATION_SCHEMA = pa.schema(
    [
        ("candidate", pa.int64()),  # position among the candidates that were given
        ("exemplar", pa.int32()),  # position among the exemplars
        ("score", pa.float64()),  # generalized Jaccard of the pair
        ("latent", pa.int32()),  # or REST
        ("contribution", pa.int64()),  # weight times the smaller of the two values
        ("numerator", pa.int64()),  # sum of the pair's contributions
        ("share", pa.float64()),  # contribution / numerator
    ]
)


def explain_pairs(
    candidates: SparseRows,
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    *,
    top: int = 20,
    n_nearest: int = 1,
) -> pa.Table:
    """Explain each candidate by its nearest exemplars.

    weights:   (n_latents,) int64, those of the ranking.
    top:       latents listed per pair, largest contribution first, equal ones by smaller latent.
    n_nearest: exemplars per candidate, best first, equal ones by smaller position.
    Returns EXPLANATION_SCHEMA in order of candidate, exemplar (best first), contribution; the rest
    last. A pair without a shared latent has no rows.
    """
    queries = build_queries(exemplars, weights, "max")
    scores, numerators = score_matrix(candidates, queries)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :n_nearest]
    columns: list[list[NDArray[np.generic]]] = [[] for _ in EXPLANATION_SCHEMA]
    for i, rank in np.ndindex(nearest.shape):
        j = int(nearest[i, rank])
        latents, amounts = shared_latents(candidates, i, exemplars, j, weights)
        latents, amounts = _top_and_rest(latents, amounts, top)
        pair = [np.full(len(latents), value) for value in (i, j, scores[i, j])]
        numerator = np.full(len(latents), numerators[i, j])
        for column, values in zip(
            columns, [*pair, latents, amounts, numerator, amounts / numerator], strict=True
        ):
            column.append(values)
    arrays = [
        pa.array(np.concatenate(column) if column else [], field.type)
        for column, field in zip(columns, EXPLANATION_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=EXPLANATION_SCHEMA)


def shared_latents(
    left: SparseRows, i: int, right: SparseRows, j: int, weights: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Latents of both row i of `left` and row j of `right`, and their weighted minima.

    Returns (s,) int32 ascending and (s,) int64; latents of weight 0 are left out.
    """
    a = slice(left.indptr[i], left.indptr[i + 1])
    b = slice(right.indptr[j], right.indptr[j + 1])
    latents, in_left, in_right = np.intersect1d(
        left.latents[a], right.latents[b], assume_unique=True, return_indices=True
    )
    minima = np.minimum(left.values[a][in_left], right.values[b][in_right])
    amounts = weights[latents] * minima
    return latents[amounts > 0], amounts[amounts > 0]


def _top_and_rest(
    latents: NDArray[np.int32], amounts: NDArray[np.int64], top: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The largest contributions first, then everything else as one."""
    order = np.argsort(-amounts, kind="stable")
    latents, amounts = latents[order], amounts[order]
    if len(latents) <= top:
        return latents, amounts
    rest = amounts[top:].sum()
    return np.append(latents[:top], np.int32(REST)), np.append(amounts[:top], rest)
