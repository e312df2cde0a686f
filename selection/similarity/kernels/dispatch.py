"""Which kernel scores which candidates: the arrays it needs, blocks that suit caches, trials.

The two kernels give the same integers, so nothing here can change a bit of a result. Which one is
faster depends on data and machine; both are timed on the first rows, and the faster does the rest.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.kernels.forward import RowRoom, forward_sums, row_room_for
from selection.similarity.kernels.inverted import MAX_BLOCK_ROWS, Room, inverted_sums, room_for
from selection.similarity.kernels.layout import (
    ColumnQueries,
    Lookup,
    QueryEntries,
    RowQueries,
    column_queries,
)
from selection.similarity.kernels.minima import LANES
from selection.similarity.kernels.rows import RowArrays, damaged_latents

Method = Literal["inverted", "forward"]

DENSE_SHARE = 1 / 40  # From this share of candidates on, a vector line beats postings (measured).
BLOCK_ROWS = 4096
SUMS_PER_BLOCK = 1 << 20  # 8 MB a thread
POSTINGS_PER_BLOCK = 1 << 21
SAMPLE_ROWS = 256
TRIAL_ROWS = 128  # The forward kernel is tried on so few: it has no cost per block.
TRIALS = 3


@dataclass(frozen=True)
class Plan:
    """Arrays of the inverted kernel for candidates like those that were looked at.

    postings_per_row: entries of a row, on average, that are in no dense column.
    n_sampled:        how many rows were looked at.
    """

    lookup: Lookup
    queries: ColumnQueries
    postings_per_row: float
    n_sampled: int

    def serves(self, n: int) -> bool:
        """Whether looking at more of n rows could not tell much more."""
        return 4 * self.n_sampled >= min(SAMPLE_ROWS, n)


def make_plan(entries: QueryEntries, weights: NDArray[np.int64], rows: SparseRows) -> Plan:
    """Decide by a sample of rows, evenly spaced, which latents become dense columns."""
    chosen = np.unique(np.linspace(0, max(len(rows) - 1, 0), SAMPLE_ROWS).astype(np.int64))
    chosen = chosen[: len(rows)]
    parts = [rows.latents[rows.indptr[i] : rows.indptr[i + 1]] for i in chosen]
    seen = np.concatenate([np.zeros(0, np.int32), *parts])
    if seen.size and seen.view(np.uint32).max() >= rows.n_latents:
        raise damaged_latents(rows.n_latents)
    frequency, n = np.bincount(seen, minlength=rows.n_latents), max(len(chosen), 1)
    dense = frequency >= n * DENSE_SHARE
    lookup, queries = column_queries(entries, weights, dense)
    frequency[dense] = 0
    listed = np.zeros(rows.n_latents, np.bool_)
    listed[entries.latents] = True
    return Plan(lookup, queries, float(frequency[listed].sum()) / n, len(chosen))


def rows_per_block(n: int, m: int, plan: Plan | None, threads: int) -> int:
    """Enough to make postings long, few enough for caches and for every thread to have some."""
    size = min(BLOCK_ROWS, SUMS_PER_BLOCK // m)
    if plan is not None:
        size = min(size, int(POSTINGS_PER_BLOCK / (plan.postings_per_row + 1)))
    if threads > 1:
        size = min(size, -(-n // (4 * threads)))
    return min(-(-max(size, 1) // LANES) * LANES, MAX_BLOCK_ROWS)


@dataclass
class Trials:
    """CPU seconds per row of either kernel on the first rows."""

    seconds: dict[Method, list[float]] = field(
        default_factory=lambda: {"inverted": [], "forward": []}
    )

    def faster(self) -> Method | None:
        """The kernel to use, None while there is too little to say."""
        inverted, forward = self.seconds["inverted"], self.seconds["forward"]
        if not inverted or len(forward) < TRIALS:
            return None
        return "forward" if min(forward) < min(inverted) else "inverted"


class Kernels:
    """Both kernels with the memory of one thread.

    sums: (m, at least `size`) int64, what `fill` fills.
    """

    def __init__(
        self,
        arrays: RowArrays,
        m: int,
        size: int,
        plan: Plan | None,
        row_queries: Callable[[], tuple[Lookup, RowQueries]],
    ) -> None:
        """For blocks of at most `size` rows; without a plan there is no inverted kernel."""
        self._arrays, self._size, self._plan, self._row_queries = arrays, size, plan, row_queries
        # Lines of a power of two would all meet in the same few places of a cache.
        self.sums = np.zeros((m, -(-size // LANES) * LANES + LANES), np.int64)
        self._longest = int(np.diff(arrays.indptr).max(initial=0))
        self._room: Room | None = None
        self._row_room: RowRoom | None = None

    def fill(self, method: Method, norms: NDArray[np.int64], first: int, last: int) -> None:
        """Sums of minima of rows first..last - 1; norms (last - first,) are theirs."""
        if method == "forward" or self._plan is None:
            lookup, queries = self._row_queries()
            if self._row_room is None:
                self._row_room = row_room_for(self._longest, queries)
            forward_sums(
                self._arrays, lookup, queries, norms, first, last, self._row_room, self.sums
            )
        else:
            own = self._plan.queries
            if self._room is None:
                self._room = room_for(self._size, self._most_entries(), self._longest, own)
            inverted_sums(self._arrays, self._plan.lookup, own, first, last, self._room, self.sums)

    def try_both(self, norms: NDArray[np.int64], first: int, last: int, trials: Trials) -> None:
        """Fill the sums by the inverted kernel, timed, after the forward one did a few rows."""
        for start in range(first, last, TRIAL_ROWS)[:TRIALS]:
            end = min(start + TRIAL_ROWS, last)
            self._timed("forward", norms[start - first :], start, end, trials)
        self._timed("inverted", norms, first, last, trials)

    def _timed(
        self, method: Method, norms: NDArray[np.int64], first: int, last: int, trials: Trials
    ) -> None:
        self.fill(method, norms, first, first)  # Compiles, and makes room.
        begun = time.thread_time()
        self.fill(method, norms, first, last)
        trials.seconds[method].append((time.thread_time() - begun) / (last - first))

    def _most_entries(self) -> int:
        """Entries of the largest block."""
        edges = np.append(self._arrays.indptr[: -1 : self._size], self._arrays.indptr[-1])
        return int(np.diff(edges).max(initial=0))
