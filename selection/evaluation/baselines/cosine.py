"""Several exemplars' scores of every candidate as one score, and cosines, dense and sparse."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.core.sparse import to_dense
from selection.picking.ranking import combine_targets
from selection.records import Ranking, SparseRows

Reduced = Literal["centroid", "max", "mean", "round_robin"]
REDUCTIONS: tuple[Reduced, ...] = get_args(Reduced)


def reduce_scores(
    matrix: NDArray[np.floating], reduction: Reduced, id_order: NDArray[np.int64]
) -> NDArray[np.float64]:
    """One score per candidate, (n,) float64, from scores against m exemplars, (n, m).

    max, mean:   over exemplars.
    round_robin: exemplars take turns, in order, each taking its best candidate not taken yet
                 (equal scores by id); a candidate's score is minus its position in that order.
    Raises ValueError for "centroid", which needs vectors, not scores.
    """
    if reduction == "max":
        return matrix.max(axis=1).astype(np.float64)
    if reduction == "mean":
        return matrix.mean(axis=1, dtype=np.float64)
    if reduction != "round_robin":
        raise ValueError(f"{reduction} cannot be had from scores")
    rankings = []
    for column in matrix.T:
        rows = id_order[np.argsort(-column[id_order], kind="stable")]
        rankings.append(Ranking(rows, column[rows].astype(np.float64)))
    positions = np.empty(len(matrix))
    positions[combine_targets(rankings).rows] = np.arange(len(matrix))
    return -positions


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to L2 norm 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def cosine_scores(
    pool: NDArray[np.float32],
    exemplars: NDArray[np.float32],
    wanted: Iterable[Reduced],
    id_order: NDArray[np.int64],
) -> Mapping[Reduced, NDArray[np.float64]]:
    """Cosine of candidates (n, d) and exemplars (m, d), by each wanted reduction.

    centroid: cosine with the mean of the exemplars as they are (the mean of their unit vectors
    would rank as "mean" does).
    """
    rows, queries = unit_rows(pool), unit_rows(exemplars)
    centroid = unit_rows(exemplars.mean(axis=0, keepdims=True))
    matrix = rows @ queries.T
    return {
        reduction: (rows @ centroid[0]).astype(np.float64)
        if reduction == "centroid"
        else reduce_scores(matrix, reduction, id_order)
        for reduction in wanted
    }


def sparse_cosine_scores(
    blocks: Iterable[SparseRows],
    exemplars: SparseRows,
    weights: NDArray[np.integer],
    wanted: Iterable[Reduced],
    id_order: NDArray[np.int64],
) -> Mapping[Reduced, NDArray[np.float64]]:
    """As `cosine_scores`, for sparse candidates that come in blocks; column values times weights.

    weights: (n_columns,). The blocks are worked on side by side.
    """
    scale = np.asarray(weights, np.float64)
    queries = to_dense(exemplars) * scale
    directions = np.concatenate([queries, queries.mean(axis=0, keepdims=True)])
    columns = np.ascontiguousarray(unit_rows(directions).T)
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(partial(_cosines, scale=scale, columns=columns), blocks))
    cosines = np.concatenate([np.zeros((0, len(directions))), *parts])
    return {
        reduction: cosines[:, -1]
        if reduction == "centroid"
        else reduce_scores(cosines[:, :-1], reduction, id_order)
        for reduction in wanted
    }


def _cosines(
    rows: SparseRows, scale: NDArray[np.float64], columns: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(b, m) cosines of rows and unit vectors, (n_latents, m); a row of zeros has none with any."""
    cosines = np.zeros((len(rows), columns.shape[1]))
    _fill_cosines(rows.indptr, rows.latents, rows.values, scale, columns, cosines)
    return cosines


@njit(nogil=True, cache=True)
def _fill_cosines(
    indptr: NDArray[np.int64],
    latents: NDArray[np.int32],
    values: NDArray[np.unsignedinteger[Any]],
    scale: NDArray[np.float64],
    columns: NDArray[np.float32],
    cosines: NDArray[np.float64],
) -> None:
    for row in range(len(cosines)):
        squares = 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            latent = latents[entry]
            value = values[entry] * scale[latent]
            squares += value * value
            for query in range(cosines.shape[1]):
                cosines[row, query] += value * columns[latent, query]
        if squares > 0:
            norm = np.sqrt(squares)
            for query in range(cosines.shape[1]):
                cosines[row, query] /= norm
