"""Where vectors come from: one source of a pool's vectors per space, and all spaces together.

IN: anything that gives vectors in blocks, for instance `storage.pools.vectors.PoolVectors`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import take
from selection.records import SparseRows

Value = TypeVar("Value", bound=np.generic)

VectorMask = NDArray[np.bool_]
"""(n_vectors,) which vectors are wanted."""

VectorNumbers = NDArray[np.int64]
"""(c,) numbers of vectors."""


def ignore(amount: int) -> None:
    """Nobody listens to the progress."""


class VectorSource(Protocol):
    """The vectors of n pool rows. Rows may share a vector, and some may have none."""

    @property
    def n_vectors(self) -> int:
        """Number of different vectors."""

    def multiplicity(self) -> NDArray[np.int64]:
        """(n_vectors,) how many rows share each vector."""

    def blocks(
        self,
        *,
        verify: bool = False,
        only: NDArray[np.bool_] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[np.int64], SparseRows]]:
        """(vector numbers, vectors), every vector exactly once.

        verify: check the stored bytes first. only: (n_vectors,) bool, vectors that are wanted.
        share:  (i, s), every s-th block, starting with the i-th.
        """

    def spread(self, values: NDArray[Value], fill: float | bool) -> NDArray[Value]:
        """(n, ...) values per row from (n_vectors, ...) per vector; `fill` where there is none."""

    def gather(self, rows: NDArray[np.int64]) -> SparseRows:
        """Vectors of a few pool rows, in their order."""

    def gather_vectors(self, numbers: NDArray[np.int64]) -> SparseRows:
        """Vectors by their number, in the order given."""


@dataclass(frozen=True, eq=False)
class MemoryVectors:
    """Vectors of one space in memory: one of each sample, all in one block."""

    rows: SparseRows

    @property
    def n_vectors(self) -> int:
        """Number of vectors, one a sample."""
        return len(self.rows)

    def multiplicity(self) -> NDArray[np.int64]:
        """No sample shares a vector."""
        return np.ones(len(self.rows), np.int64)

    def blocks(
        self,
        *,
        verify: bool = False,
        only: NDArray[np.bool_] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[np.int64], SparseRows]]:
        """One block; `share` takes every s-th vector."""
        numbers = np.arange(len(self.rows))[share[0] :: share[1]]
        if only is not None:
            numbers = numbers[only[numbers]]
        yield numbers, take(self.rows, numbers)

    def spread(self, values: NDArray[Value], fill: float | bool) -> NDArray[Value]:
        """The values as they are."""
        return values

    def gather(self, rows: NDArray[np.int64]) -> SparseRows:
        """Vectors of a few rows, in their order."""
        return take(self.rows, rows)

    gather_vectors = gather


@dataclass(frozen=True)
class PoolSpaces:
    """The vectors of one pool in every space of a representation.

    names: of the spaces, as explanations call them.
    parts: the vectors of each space; a sample has the same vector number in all of them.
    """

    names: tuple[str, ...]
    parts: tuple[VectorSource, ...]

    def blocks(
        self, *, only: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], list[SparseRows]]]:
        """(vector numbers, their vectors in every space), every vector once, as a source's."""
        first, others = self.parts[0], self.parts[1:]
        for numbers, rows in first.blocks(only=only):
            yield numbers, [rows, *(other.gather_vectors(numbers) for other in others)]

    def gather(self, rows: NDArray[np.int64]) -> list[SparseRows]:
        """Vectors of a few pool rows in every space."""
        return [part.gather(rows) for part in self.parts]

    def slices(self, size: int, only: NDArray[np.bool_] | None = None) -> list[NDArray[np.int64]]:
        """Vector numbers, at most `size` together; of those in `only`, (n_vectors,) bool."""
        n = self.parts[0].n_vectors
        wanted = np.arange(n) if only is None else np.flatnonzero(only)
        return [wanted[first : first + size] for first in range(0, len(wanted), size)]
