"""Scores of many candidates against all target tasks in one pass, block by block, in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.kernels.dispatch import (
    TRIALS,
    Kernels,
    Method,
    Plan,
    Trials,
    make_plan,
    rows_per_block,
)
from selection.similarity.kernels.inverted import MAX_BLOCK_ROWS
from selection.similarity.kernels.layout import (
    Lookup,
    QueryEntries,
    RowQueries,
    fits_narrow,
    joined,
    row_queries,
)
from selection.similarity.kernels.reduce import TargetArrays, reduce_sums, scores_for
from selection.similarity.kernels.rows import damaged_latents, latents_fit, norm_block, row_views

EXACT_LIMIT = 1 << 53  # Integers below it are exact in float64.

Use = Callable[[NDArray[np.int64], NDArray[np.int64], int, int], None]
"""What is done with a block: sums (m, >= n), norms (n,), first and last row."""


class Target(NamedTuple):
    """The queries of one target task, and how scores against them become one.

    kind: of `selection.similarity.kernels.reduce`. best, groups: as in its TargetArrays.
    """

    entries: QueryEntries
    kind: int
    best: int
    groups: NDArray[np.int64]


class Scorer:
    """Target tasks that weigh latents alike, ready to score candidates. Safe to share by threads.

    weights: (n_latents,) int64.
    """

    def __init__(self, weights: NDArray[np.int64], targets: Sequence[Target]) -> None:
        """No candidates are needed yet: their latents' frequencies are sampled when they come."""
        self.weights, self._made_of = weights, tuple(targets)
        self.entries = joined([target.entries for target in targets])
        counts = [len(target.entries.norms) for target in targets]
        self.targets = TargetArrays(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array([target.kind for target in targets], np.int64),
            np.array(
                [min(target.best, n) for target, n in zip(targets, counts, strict=True)], np.int64
            ),
            np.concatenate([target.groups for target in targets]).astype(np.int64),
        )
        self._narrow = fits_narrow(self.entries)
        self._lock = Lock()
        self._plan: Plan | None = None
        self._rows: tuple[Lookup, RowQueries] | None = None
        self._trials = Trials()

    def __reduce__(self) -> tuple[type["Scorer"], tuple[object, ...]]:
        """Pickle what it was made of: plans, trials and the lock belong to one process."""
        return Scorer, (self.weights, self._made_of)

    def scores(
        self,
        rows: SparseRows,
        *,
        norms: NDArray[np.int64] | None = None,
        threads: int = 1,
        block_rows: int | None = None,
        method: Method | None = None,
    ) -> NDArray[np.float64]:
        """(T, n) score of every row for every target task.

        norms: (n,) weighted norms of the rows, where known: spares reading the weights.
        method: None tries both kernels. Neither that nor threads nor blocks can change a bit.
        Raises OverflowError if a sum reaches 2^53, where a score would no longer be exact.
        """
        out = np.empty((len(self.targets.kinds), len(rows)), np.float64)

        def reducer(size: int) -> Use:
            room = scores_for(size, self.targets)

            def reduce(
                sums: NDArray[np.int64], own: NDArray[np.int64], first: int, last: int
            ) -> None:
                block = np.empty((len(out), last - first))
                check_exact(
                    reduce_sums(
                        sums, own, self.entries.norms, self.entries.multipliers, self.targets,
                        room, block,
                    )
                )  # fmt: skip
                out[:, first:last] = block

            return reduce

        self._run(rows, norms, threads, block_rows, method, reducer)
        return out

    def minima(
        self,
        rows: SparseRows,
        *,
        threads: int = 1,
        block_rows: int | None = None,
        method: Method | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n, m) sums of weighted minima of every row with every query, and (n,) norms."""
        out = np.empty((len(rows), len(self.entries.norms)), np.int64)
        norms = np.empty(len(rows), np.int64)

        def copier(size: int) -> Use:
            def copy(
                sums: NDArray[np.int64], own: NDArray[np.int64], first: int, last: int
            ) -> None:
                out[first:last], norms[first:last] = sums[:, : last - first].T, own

            return copy

        self._run(rows, None, threads, block_rows, method, copier)
        return out, norms

    def _run(
        self,
        rows: SparseRows,
        norms: NDArray[np.int64] | None,
        threads: int,
        block_rows: int | None,
        method: Method | None,
        user: Callable[[int], Use],
    ) -> None:
        """Bring the sums of every block of rows to a function that `user` makes per thread."""
        if rows.n_latents != len(self.weights):
            raise ValueError(f"rows of {rows.n_latents} latents, queries of {len(self.weights)}")
        arrays = row_views(rows)
        if not self._narrow:
            method = "forward"
        plan = None if method == "forward" else self._planned(rows)
        m = len(self.entries.norms)
        size = min(block_rows or rows_per_block(len(rows), m, plan, threads), MAX_BLOCK_ROWS)
        blocks = [(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
        waiting = iter(blocks)

        def work() -> None:
            kernels = Kernels(arrays, m, min(size, len(rows)), plan, self._row_queries)
            use = user(size)
            for first, last in waiting:
                if not latents_fit(arrays, rows.n_latents, first, last):
                    raise damaged_latents(rows.n_latents)
                if norms is None:
                    own = np.empty(last - first, np.int64)
                    norm_block(arrays, self.weights, first, last, own)
                else:
                    own = norms[first:last]
                chosen = method or self._trials.faster()
                if chosen is None and len(blocks) > TRIALS:
                    kernels.try_both(own, first, last, self._trials)
                else:
                    kernels.fill(chosen or "inverted", own, first, last)
                use(kernels.sums, own, first, last)

        n_workers = min(threads, len(blocks))
        if n_workers <= 1:
            work()
            return
        with ThreadPoolExecutor(n_workers) as pool:
            for done in [pool.submit(work) for _ in range(n_workers)]:
                done.result()

    def _planned(self, rows: SparseRows) -> Plan:
        """Arrays of the inverted kernel; made anew when far more rows can be looked at."""
        with self._lock:
            if self._plan is None or not self._plan.serves(len(rows)):
                self._plan = make_plan(self.entries, self.weights, rows)
            return self._plan

    def _row_queries(self) -> tuple[Lookup, RowQueries]:
        """Arrays of the forward kernel, made when first needed."""
        with self._lock:
            if self._rows is None:
                self._rows = row_queries(self.entries, self.weights)
            return self._rows


def check_exact(largest: int) -> None:
    """Refuse sums that float64 cannot hold exactly."""
    if largest >= EXACT_LIMIT:
        raise OverflowError(
            f"a sum of maxima of {largest} is above 2^53; use smaller weights or fewer exemplars"
        )
