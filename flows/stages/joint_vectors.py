"""A pool's vectors in several spaces under one numbering, and a target task in the joined spaces.

Arrays and paths only: a process that scores needs no model, and sends these to its helpers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from selection.records import SparseRows
from selection.spaces import Joint
from storage.pool_vectors import PoolVectors


@dataclass(frozen=True)
class JointVectors:
    """The vectors of one pool in every space of a run.

    names: of the spaces, as explanations call them.
    parts: the vectors of each space; a sample has the same vector number in all of them.
    """

    names: tuple[str, ...]
    parts: tuple[PoolVectors, ...]

    def blocks(
        self, *, only: NDArray[np.bool_] | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[NDArray[np.int64], list[SparseRows]]]:
        """(vector numbers, their vectors in every space), every vector exactly once.

        only, share: as in `PoolVectors.blocks`.
        """
        first, others = self.parts[0], self.parts[1:]
        for numbers, rows in first.blocks(only=only, share=share):
            yield numbers, [rows, *(other.gather_vectors(numbers) for other in others)]

    def gather(self, rows: NDArray[np.int64]) -> list[SparseRows]:
        """Vectors of a few pool rows in every space."""
        return [part.gather(rows) for part in self.parts]


@dataclass(frozen=True)
class JointTarget:
    """One target task in the joined spaces.

    joint:  spaces and weights, frozen for this target.
    parts:  the exemplars' vectors in each space.
    rows:   the same as vectors of the whole.
    groups: (m,) subtask of each exemplar.
    terms:  for every space, column -> term of the exemplars; empty for an SAE.
    shares: (n_columns,) share of the pool's examples that have each column.
    """

    joint: Joint
    parts: tuple[SparseRows, ...]
    rows: SparseRows
    groups: NDArray[np.int32]
    terms: tuple[Mapping[int, str], ...]
    shares: NDArray[np.float64]


def weighs_by_target(config: SelectConfig) -> bool:
    """Whether weights depend on the exemplars; otherwise a block is joined once for all targets."""
    kinds = [space.weights or config.ranking.weights for space in config.representation.spaces]
    return any("contrast" in kind for kind in kinds)
