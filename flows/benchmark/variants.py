"""Every reduction of exemplars that a rival's variants name, from sparse vectors in blocks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flows.benchmark.field import BenchField
from flows.benchmark.lexical import Scores
from flows.benchmark.methods import Method
from selection.jaccard import build_queries, score_matrix
from selection.records import SparseRows
from selection.rivals.reductions import Reduced, reduce_scores, sparse_cosine_scores


def jaccard_variants(
    variants: Sequence[str],
    blocks: Sequence[SparseRows],
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    field: BenchField,
    prefix: str = "",
) -> Scores:
    """Generalized Jaccard by every reduction that the variants name after the prefix."""
    each = build_queries(exemplars, weights, "max")
    center = build_queries(exemplars, weights, "prototype")
    matrices, centers = [], []
    for rows in blocks:
        matrices.append(score_matrix(rows, each)[0])
        centers.append(score_matrix(rows, center)[0][:, 0])
    matrix = np.concatenate(matrices)
    for variant in variants:
        how: Reduced = variant.rpartition("/")[2]  # type: ignore[assignment]
        if how == "centroid":
            yield prefix + how, field.spread(np.concatenate(centers))
        else:
            yield prefix + how, field.spread(reduce_scores(matrix, how, example_order(field)))


def cosine_variants(
    method: Method,
    prefix: str,
    blocks: Sequence[SparseRows],
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    field: BenchField,
) -> Scores:
    """Cosines by every reduction that the method's variants with a prefix name."""
    wanted: list[Reduced] = [
        variant.removeprefix(prefix)  # type: ignore[misc]
        for variant in method.variants
        if variant.startswith(prefix)
    ]
    if wanted:
        order = example_order(field)
        found = sparse_cosine_scores(blocks, exemplars, weights, wanted, order)
        for how, scores in found.items():
            yield prefix + how, field.spread(scores)


def example_order(field: BenchField) -> NDArray[np.int64]:
    """Prepared examples in order of the first own id of each, so that ties go by own id."""
    rows = field.example_of_row[field.pool.id_order]
    rows = rows[rows >= 0]
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
