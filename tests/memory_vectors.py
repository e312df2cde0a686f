"""Vectors in memory as the ranking reads them, and the ranking input of a planted pool."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import take
from selection.records import SparseRows
from selection.similarity.ranking_input import RankingInput, ranking_input
from selection.similarity.sources import PoolSpaces, Value
from selection.similarity.spaces import SpaceRule, join_spaces
from selection.similarity.weights import document_frequencies
from tests.planted_duplicates import Planted


@dataclass(frozen=True)
class MemoryVectors:
    """One vector a row, in blocks."""

    rows: SparseRows
    block: int = 100

    @property
    def n_vectors(self) -> int:
        return len(self.rows)

    def multiplicity(self) -> NDArray[np.int64]:
        return np.ones(len(self.rows), np.int64)

    def blocks(
        self,
        *,
        verify: bool = False,
        only: NDArray[np.bool_] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[np.int64], SparseRows]]:
        every = [
            np.arange(first, min(first + self.block, len(self.rows)))
            for first in range(0, len(self.rows), self.block)
        ]
        for numbers in every[share[0] :: share[1]]:
            wanted = numbers if only is None else numbers[only[numbers]]
            yield wanted, take(self.rows, wanted)

    def spread(self, values: NDArray[Value], fill: float | bool) -> NDArray[Value]:
        return values

    def gather(self, rows: NDArray[np.int64]) -> SparseRows:
        return take(self.rows, rows)

    gather_vectors = gather


def planted_input(made: Planted) -> RankingInput:
    """What a ranking of a planted pool is made of: one space, idf, not normalized."""
    vectors = PoolSpaces(("made",), (MemoryVectors(made.pool),))
    counts, _ = document_frequencies(vectors)
    spaces = join_spaces([SpaceRule("made")], counts)
    ids = np.array([f"exemplar-{i}" for i in range(len(made.exemplars))])
    return ranking_input(vectors, spaces, counts, {"t": ids}, {"t": [made.exemplars]})
