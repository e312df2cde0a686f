"""Scores of many candidates against all target tasks in one pass, block by block, in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.kernels.minima import row_memory, sum_minima
from selection.similarity.kernels.reduce import reduce_sums
from selection.similarity.kernels.rows import fill_norms, row_arrays
from selection.similarity.kernels.tables import QueryEntries, join_entries, query_tables

EXACT_LIMIT = 1 << 53  # Integers below it are exact in float64.
BLOCK_SUMS = 1 << 17  # 1 MB a thread.


class Target(NamedTuple):
    """The queries of one target task; averaged: its score is their mean, else the largest."""

    entries: QueryEntries
    averaged: bool


class Scorer:
    """Target tasks that weigh latents alike, ready to score candidates. Safe to share by threads.

    weights: (n_latents,) int64.
    entries: the m queries of all targets, one target after the other.
    """

    def __init__(self, weights: NDArray[np.int64], targets: Sequence[Target]) -> None:
        """Prepare tables of the queries; no candidates are needed."""
        self.weights = weights
        self.entries = join_entries([target.entries for target in targets])
        counts = [len(target.entries.norms) for target in targets]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._averaged = np.array([target.averaged for target in targets], np.bool_)
        self._tables = query_tables(self.entries, weights)

    def scores(
        self,
        rows: SparseRows,
        *,
        norms: NDArray[np.int64] | None = None,
        threads: int = 1,
        block_rows: int | None = None,
    ) -> NDArray[np.float64]:
        """(T, n) score of every row for every target task.

        norms: (n,) weighted norms of the rows, where known: spares reading the weights.
        Neither threads nor blocks can change a bit.
        Raises OverflowError if a sum reaches 2^53, where a score would no longer be exact.
        """
        out = np.empty((len(self._averaged), len(rows)), np.float64)

        def reduce(sums: NDArray[np.int64], row_norms: NDArray[np.int64], first: int) -> None:
            queries = self.entries.norms, self.entries.multipliers, self._starts, self._averaged
            check_exact(reduce_sums(sums, row_norms, *queries, first, out))

        self._each_block(rows, norms, threads, block_rows, reduce)
        return out

    def minima(
        self, rows: SparseRows, *, threads: int = 1, block_rows: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n, m) sums of weighted minima of every row with every query, and (n,) norms."""
        out = np.empty((len(rows), len(self.entries.norms)), np.int64)
        norms = np.empty(len(rows), np.int64)

        def copy(sums: NDArray[np.int64], row_norms: NDArray[np.int64], first: int) -> None:
            last = first + len(row_norms)
            out[first:last], norms[first:last] = sums[: last - first, : out.shape[1]], row_norms

        self._each_block(rows, None, threads, block_rows, copy)
        return out, norms

    def _each_block(
        self,
        rows: SparseRows,
        norms: NDArray[np.int64] | None,
        threads: int,
        block_rows: int | None,
        use: Callable[[NDArray[np.int64], NDArray[np.int64], int], None],
    ) -> None:
        """Call `use` in threads with sums of minima, norms and the first row of every block."""
        if rows.n_latents != len(self.weights):
            raise ValueError(f"rows of {rows.n_latents} latents, queries of {len(self.weights)}")
        width = self._tables.lines.shape[1]
        share = -(-len(rows) // (4 * threads)) if threads > 1 else len(rows)
        size = min(block_rows or max(BLOCK_SUMS // width, 1), max(share, 1))
        starts = range(0, len(rows), size)
        blocks = iter(starts)

        def work() -> None:
            sums = np.empty((size, width), np.int64)
            for first in blocks:
                last = min(first + size, len(rows))
                block = row_arrays(rows, first, last)
                row_norms = np.empty(last - first, np.int64) if norms is None else norms[first:last]
                if norms is None:
                    fill_norms(block, self.weights, row_norms)
                memory = row_memory(int(np.diff(block.indptr).max(initial=0)), width)
                sum_minima(block, self._tables, memory, sums)
                use(sums, row_norms, first)

        n_workers = min(threads, len(starts))
        if n_workers <= 1:
            work()
            return
        with ThreadPoolExecutor(n_workers) as pool:
            for done in [pool.submit(work) for _ in range(n_workers)]:
                done.result()


def check_exact(largest: int) -> None:
    """Refuse sums that float64 cannot hold exactly."""
    if largest >= EXACT_LIMIT:
        raise OverflowError(
            f"a sum of maxima of {largest} is above 2^53; use smaller weights or fewer exemplars"
        )
