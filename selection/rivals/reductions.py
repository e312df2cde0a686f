"""Several exemplars' scores of every candidate as one score, and cosines, dense and sparse."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.ranking import combine_targets
from selection.records import Ranking, SparseRows

Reduced = Literal["centroid", "max", "mean", "round_robin"]
REDUCTIONS: tuple[Reduced, ...] = get_args(Reduced)


def reduce_scores(
    matrix: NDArray[np.floating], how: Reduced, id_order: NDArray[np.int64]
) -> NDArray[np.float64]:
    """One score per candidate, (n,) float64, from scores against m exemplars, (n, m).

    max, mean:   over exemplars.
    round_robin: exemplars take turns, in order, each taking its best candidate not taken yet
                 (equal scores by id); a candidate's score is minus its place in that order.
    Raises ValueError for "centroid", which needs vectors, not scores.
    """
    if how == "max":
        return matrix.max(axis=1).astype(np.float64)
    if how == "mean":
        return matrix.mean(axis=1, dtype=np.float64)
    if how != "round_robin":
        raise ValueError(f"{how} cannot be had from scores")
    rankings = []
    for column in matrix.T:
        rows = id_order[np.argsort(-column[id_order], kind="stable")]
        rankings.append(Ranking(rows, column[rows].astype(np.float64)))
    places = np.empty(len(matrix))
    places[combine_targets(rankings, "round_robin").rows] = np.arange(len(matrix))
    return -places


def unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to length 1; a row of zeros stays."""
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
    rows, queries = unit_length(pool), unit_length(exemplars)
    centroid = unit_length(exemplars.mean(axis=0, keepdims=True))
    matrix = rows @ queries.T
    return {
        how: (rows @ centroid[0]).astype(np.float64)
        if how == "centroid"
        else reduce_scores(matrix, how, id_order)
        for how in wanted
    }


def sparse_cosine_scores(
    blocks: Iterable[SparseRows],
    exemplars: SparseRows,
    weights: NDArray[np.integer],
    wanted: Iterable[Reduced],
    id_order: NDArray[np.int64],
) -> Mapping[Reduced, NDArray[np.float64]]:
    """As `cosine_scores`, for sparse candidates that come in blocks; column values times weights.

    weights: (n_columns,). Only columns that an exemplar has are multiplied, so a block may be wide.
    """
    columns = np.unique(exemplars.latents)
    scale = np.asarray(weights, np.float64)
    queries = _over(exemplars, columns, scale)
    directions = np.concatenate([queries, queries.mean(axis=0, keepdims=True)])
    directions = unit_length(directions).astype(np.float64)
    parts = [_cosines(rows, columns, scale, directions) for rows in blocks]
    found = np.concatenate([np.zeros((0, len(directions))), *parts])
    return {
        how: found[:, -1] if how == "centroid" else reduce_scores(found[:, :-1], how, id_order)
        for how in wanted
    }


def _cosines(
    rows: SparseRows,
    columns: NDArray[np.int32],
    scale: NDArray[np.float64],
    directions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(b, m) cosines of rows and unit vectors over `columns`; a row of zeros has none with any."""
    amounts = rows.values * scale[rows.latents]
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    norms = np.sqrt(np.bincount(owner, amounts**2, len(rows)))
    dense = _over(rows, columns, scale)
    return np.asarray(dense @ directions.T / np.where(norms > 0, norms, 1)[:, None])


def _over(
    rows: SparseRows, columns: NDArray[np.int32], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(b, len(columns)) values times weights over some columns, ascending."""
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    known = np.isin(rows.latents, columns)
    dense = np.zeros((len(rows), len(columns)))
    place = np.searchsorted(columns, rows.latents[known])
    dense[owner[known], place] = rows.values[known] * scale[rows.latents[known]]
    return dense
