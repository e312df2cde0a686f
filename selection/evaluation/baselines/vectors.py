"""Scores of sparse and dense vectors by every reduction that a benchmark compares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import document_frequency, indptr_of
from selection.evaluation.baselines.cosine import (
    Reduced,
    cosine_scores,
    reduce_scores,
    sparse_cosine_scores,
)
from selection.evaluation.baselines.dense import sparse_of
from selection.records import Rendered, SparseRows
from selection.representation.aggregate import calibrate_unit, quantize
from selection.representation.lexical import token_rows
from selection.similarity.queries import exemplar_queries, score_each
from selection.similarity.sources import VectorSource
from selection.similarity.weights import idf_weights, unit_weights

Scores = Iterator[tuple[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class SparseTable:
    """Sparse vectors of n examples, in blocks, in their order.

    id_order: (n,) examples in order of id, which decides ties.
    """

    blocks: Sequence[SparseRows]
    id_order: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.blocks[0].n_latents

    @cached_property
    def weights(self) -> dict[str, NDArray[np.int64]]:
        """Weights by name: "plain" and "idf"."""
        frequency = np.sum([document_frequency(rows) for rows in self.blocks], axis=0)
        n_filled = sum(int((np.diff(rows.indptr) > 0).sum()) for rows in self.blocks)
        return {"plain": unit_weights(self.width), "idf": idf_weights(frequency, n_filled)}

    def jaccard(
        self, variants: Sequence[str], prefix: str, exemplars: SparseRows, weighting: str = "plain"
    ) -> Scores:
        """Generalized Jaccard by every reduction that the variants name after the prefix."""
        wanted = _wanted(variants, prefix)
        if not wanted:
            return
        weights = self.weights[weighting]
        each = exemplar_queries(exemplars, weights, "max")
        center = exemplar_queries(exemplars, weights, "prototype")
        matrix = np.concatenate([score_each(rows, each)[0] for rows in self.blocks])
        for reduced in wanted:
            if reduced == "centroid":
                parts = [score_each(rows, center)[0][:, 0] for rows in self.blocks]
                yield prefix + reduced, np.concatenate(parts)
            else:
                yield prefix + reduced, reduce_scores(matrix, reduced, self.id_order)

    def cosine(
        self, variants: Sequence[str], prefix: str, exemplars: SparseRows, weighting: str = "plain"
    ) -> Scores:
        """Cosines by every reduction that the variants name after the prefix."""
        wanted, weights = _wanted(variants, prefix), self.weights[weighting]
        if wanted:
            scores = sparse_cosine_scores(self.blocks, exemplars, weights, wanted, self.id_order)
            for reduced, values in scores.items():
                yield prefix + reduced, values


def _wanted(variants: Sequence[str], prefix: str) -> list[Reduced]:
    names = [each.removeprefix(prefix) for each in variants if each.startswith(prefix)]
    return cast("list[Reduced]", [name for name in names if "/" not in name])


def pool_table(
    vectors: VectorSource, usable: NDArray[np.bool_], size: int, id_order: NDArray[np.int64]
) -> SparseTable:
    """The vectors of all pool rows, `size` to a block; a row that is not usable is empty."""
    blocks = []
    for first in range(0, len(usable), size):
        filled = usable[first : first + size]
        rows = vectors.gather(first + np.flatnonzero(filled))
        lengths = np.zeros(len(filled), np.int64)
        lengths[filled] = np.diff(rows.indptr)
        blocks.append(replace(rows, indptr=indptr_of(lengths)))
    return SparseTable(blocks, id_order)


def token_tables(
    batches: Sequence[Sequence[Rendered]],
    exemplars: Mapping[str, Sequence[Rendered]],
    n_token_ids: int,
    id_order: NDArray[np.int64],
) -> tuple[SparseTable, dict[str, SparseRows]]:
    """Bags of content tokens of the pool's samples, and of each target's exemplars."""
    blocks = [token_rows(samples, n_token_ids) for samples in batches]
    queries = {name: token_rows(samples, n_token_ids) for name, samples in exemplars.items()}
    return SparseTable(blocks, id_order), queries


def quantized_tables(
    parts: Sequence[NDArray[np.float32]],
    exemplars: Mapping[str, NDArray[np.float32]],
    id_order: NDArray[np.int64],
) -> tuple[SparseTable, dict[str, SparseRows]]:
    """Non-negative dense vectors in fixed point, as latents are; all exemplars give the unit."""
    unit = calibrate_unit(sparse_of(np.concatenate(list(exemplars.values()))))
    blocks = [quantize(sparse_of(part), unit)[0] for part in parts]
    queries = {name: quantize(sparse_of(rows), unit)[0] for name, rows in exemplars.items()}
    return SparseTable(blocks, id_order), queries


@dataclass(frozen=True)
class DenseTable:
    """Dense vectors of n examples, with their middle taken off where they are centered."""

    rows: NDArray[np.float32]
    middle: NDArray[np.float32]
    id_order: NDArray[np.int64]

    @classmethod
    def of(
        cls, parts: Sequence[NDArray[np.float32]], id_order: NDArray[np.int64], *, center: bool
    ) -> "DenseTable":
        """Join parts in their order."""
        rows = np.concatenate(parts)
        middle = np.zeros(rows.shape[1], np.float32)
        if center:
            middle = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows -= middle
        return cls(rows, middle, id_order)

    def cosine(self, exemplars: NDArray[np.float32], wanted: Sequence[str]) -> Scores:
        """Cosines by every wanted reduction."""
        reductions = cast("Sequence[Reduced]", wanted)
        yield from cosine_scores(
            self.rows, exemplars - self.middle, reductions, self.id_order
        ).items()


def order_as_scores(order: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """(n,) minus the position of each row in an order that has no comparable scores."""
    scores = np.empty(n)
    scores[order] = -np.arange(len(order), dtype=np.float64)
    return scores
