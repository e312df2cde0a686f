"""The vectors of one pool, streamed shard by shard.

Shards know keys, pools know rows; several rows may share one vector. This is where the two meet,
by sorted keys and binary search, never by a table of the pool in Python objects.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import take
from selection.records import SparseRows
from storage.pools.shards import Shard, ShardSet, as_bytes

Value = TypeVar("Value", bound=np.generic)


class PoolVectors:
    """n pool rows, of which the usable ones have a vector.

    keys:   (n, 16) uint8, key of each row's rendering.
    usable: (n,) bool, False where a row has no vector to look for.
    """

    def __init__(
        self, shards: ShardSet, keys: NDArray[np.uint8], usable: NDArray[np.bool_]
    ) -> None:
        """Sort the keys once. Raises InputError when a usable row has no vector yet."""
        self.shards, self.keys, self.usable = shards, keys, usable
        self._unique, self._vector_of = np.unique(as_bytes(keys[usable]), return_inverse=True)
        n_missing = int(shards.missing(self._unique_keys()).sum())
        if n_missing:
            raise InputError(
                f"{n_missing:,} of {len(self._unique):,} vectors are not there",
                file=shards.folder,
                remedy="Run the embedding again; it computes only what is missing.",
            )

    @property
    def n_vectors(self) -> int:
        """Number of different vectors."""
        return len(self._unique)

    def multiplicity(self) -> NDArray[np.int64]:
        """(n_vectors,) how many rows share each vector."""
        return np.bincount(self._vector_of, minlength=self.n_vectors).astype(np.int64)

    def places(self) -> Iterator[tuple[Shard, NDArray[np.int64], NDArray[np.int64]]]:
        """(shard, rows of it, vector numbers), one shard after another; every vector exactly once.

        Shards without a vector of this pool are left out.
        """
        done = np.zeros(self.n_vectors, np.bool_)
        for shard in self.shards.shards:
            names = as_bytes(shard.keys())
            position = np.searchsorted(self._unique, names)
            position[position == self.n_vectors] = 0
            wanted = (self._unique[position] == names) if self.n_vectors else np.zeros(0, np.bool_)
            wanted &= ~done[position]
            if wanted.any():
                numbers = position[wanted].astype(np.int64)
                done[numbers] = True
                yield shard, np.flatnonzero(wanted), numbers

    def blocks(
        self,
        *,
        verify: bool = False,
        only: NDArray[np.bool_] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[NDArray[np.int64], SparseRows]]:
        """(vector numbers, vectors) of one shard after another; every vector exactly once.

        Memory holds one shard at a time.
        verify: hash a shard's files before anything of it is given out; raises InputError naming
                the first one that was altered.
        only:   (n_vectors,) bool, vectors that are wanted; shards without any are not opened.
        share:  (i, s): every s-th shard, starting with the i-th; all shares together are all.
        """
        for turn, (shard, rows, numbers) in enumerate(self.places()):
            if turn % share[1] != share[0]:
                continue
            if only is not None:
                rows, numbers = rows[only[numbers]], numbers[only[numbers]]
            if not len(rows):
                continue
            if verify:
                shard.verify()
            everything = shard.rows()
            yield numbers, everything if len(rows) == shard.n_rows else take(everything, rows)

    def spread(self, values: NDArray[Value], fill: float | bool) -> NDArray[Value]:
        """(n, ...) values per row from (n_vectors, ...) per vector; `fill` for unusable rows."""
        rows = np.full((len(self.usable), *values.shape[1:]), fill, values.dtype)
        rows[self.usable] = values[self._vector_of]
        return rows

    def gather(self, rows: NDArray[np.int64]) -> SparseRows:
        """Vectors of a few pool rows, in their order."""
        return self.shards.gather(self.keys[rows])

    def gather_vectors(self, numbers: NDArray[np.int64]) -> SparseRows:
        """Vectors by their number, in the order given."""
        return self.shards.gather(self._unique_keys()[numbers])

    def rows_of(self, number: int) -> NDArray[np.int64]:
        """Pool rows that share a vector, ascending."""
        return np.flatnonzero(self.usable)[self._vector_of == number]

    def _unique_keys(self) -> NDArray[np.uint8]:
        return self._unique.view(np.uint8).reshape(-1, 16)
