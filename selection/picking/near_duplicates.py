"""Near-duplicates: a candidate is compared exactly with everything that was kept before it.

Two vectors with generalized Jaccard of at least t share latents whose mass is at least t of each
norm. So among the latents of each vector that come first in one fixed order and make up the first
1 - t of its mass (its head) at least one is shared: only vectors that share a head latent need
comparing, and those are compared in full. With the rarest latents first heads are short and few
meet. Nothing is missed: this is arithmetic, not a sketch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import overlap, shingles
from selection.picking.near_duplicates_kernel import N_BINS, Many, One, fill_bins, meet
from selection.records import SparseRows
from selection.similarity.kernels.rows import check_weights, row_arrays
from selection.similarity.scorer import EXACT_LIMIT

_SLACK = 1e-9  # Heads are cut by a float product; a little longer than needed misses nothing.
_BIN_BITS = 24  # Of the first norm; norms 256 times larger fit the bins as well.


class KeptVectors:
    """Vectors that stay, in the order in which they were kept; answers what is close to them.

    Nothing is missed, whatever the data. Where heads are long, as in dense vectors, following the
    latents that are shared meets everything several times; then all kept vectors are looked at in
    turn instead, by their bins (see `selection.picking.near_duplicates_kernel`).
    """

    def __init__(
        self,
        weights: NDArray[np.int64],
        order: NDArray[np.int64],
        threshold: float,
        *,
        try_links: int = 1024,
    ) -> None:
        """Start with nothing kept.

        weights:   (n_latents,) int64, those of the ranking.
        order:     (n_latents,) int64 place of each latent in the order of heads; smaller is
                   earlier. Any order gives the same answers; document frequency is fast.
        threshold: similarity, in (0, 1], from which vectors count as close.
        try_links: kept vectors after which it is decided whether links pay; 0 makes none. Any
                   number gives the same answers.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold must be in (0, 1], not {threshold}")
        self._checked: SparseRows | None = None
        self.threshold, self._weights = threshold, weights
        self._order = np.ascontiguousarray(order, np.int64)
        self._kept = Many(
            indptr=np.zeros(64, np.int64),
            latents=np.empty(4096, np.int32),
            values=np.empty(4096, np.uint32),
            norms=np.zeros(64, np.int64),
            bins=np.zeros(64 * N_BINS, np.uint32),
            newest=np.full(len(order) if try_links else 0, -1, np.int64),
            older=np.empty(1024, np.int64),
            vector=np.empty(1024, np.int32),
            seen=np.zeros(64, np.int64),
        )
        self._n = self._n_asked = self._n_links = 0
        self._n_followed = self._n_could_scan = 0
        self._shift: int | None = None
        self._try_links = try_links

    def __len__(self) -> int:
        """Number of kept vectors."""
        return self._n

    @property
    def follows_links(self) -> bool:
        """Whether only vectors that share a head latent are met."""
        return len(self._kept.newest) > 0

    def close_to(self, rows: SparseRows, i: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Kept vectors with a similarity to row i of at least the threshold, and the similarity.

        Returns (c,) int64 numbers in order of keeping, ascending, and (c,) float64.
        """
        one = self._one(rows, i)
        self._n_asked += 1
        close, scores = np.empty(self._n, np.int64), np.empty(self._n, np.float64)
        n_close, n_links = meet(
            one, self._kept, self._n, self._weights, self._shift or 0, self._n_asked,
            self.threshold, close, scores,
        )  # fmt: skip
        self._n_followed += n_links
        self._n_could_scan += self._n
        by_number = np.argsort(close[:n_close])
        return close[:n_close][by_number], scores[:n_close][by_number]

    def _one(self, rows: SparseRows, i: int) -> One:
        """Row i in memory of its own; the rows are checked once."""
        if rows is not self._checked:
            row_arrays(rows)  # Refuses damaged data.
            check_weights(self._weights, rows)
            self._checked = rows
        entries = slice(int(rows.indptr[i]), int(rows.indptr[i + 1]))
        latents = np.array(rows.latents[entries], np.int32)
        values = np.array(rows.values[entries], np.uint32)
        norm, head = 0, np.zeros(0, np.int32)
        if self.follows_links:
            norm, head = _norm_and_head(latents, values, self._weights, self._order, self.threshold)
        else:
            norm = int((self._weights[latents] * values).sum())
        if norm * 2 >= EXACT_LIMIT:
            raise OverflowError(f"a norm of {norm} is too large to compare exactly")
        if self._shift is None and norm:
            self._shift = max(0, norm.bit_length() - _BIN_BITS)
        bins = np.empty(N_BINS, np.uint32)
        fill_bins(latents, values, self._weights, self._shift or 0, bins)
        return One(latents, values, norm, bins, head)

    def keep(self, rows: SparseRows, i: int) -> int:
        """Keep row i; returns its number."""
        one, kept, number = self._one(rows, i), self._kept, self._n
        start = int(kept.indptr[number])
        end = start + len(one.latents)
        kept = kept._replace(
            latents=_room(kept.latents, end),
            values=_room(kept.values, end),
            indptr=_room(kept.indptr, number + 2),
            norms=_room(kept.norms, number + 1),
            bins=_room(kept.bins, (number + 1) * N_BINS),
            seen=_room(kept.seen, number + 1),
        )
        kept.latents[start:end], kept.values[start:end] = one.latents, one.values
        kept.bins[number * N_BINS : (number + 1) * N_BINS] = one.bins
        kept.indptr[number + 1], kept.norms[number], kept.seen[number] = end, one.norm, 0
        if self.follows_links:
            new = self._n_links + len(one.head)
            kept = kept._replace(older=_room(kept.older, new), vector=_room(kept.vector, new))
            links = np.arange(self._n_links, new)
            kept.older[links], kept.vector[links] = kept.newest[one.head], number
            kept.newest[one.head], self._n_links = links, new
        self._kept = kept
        self._n += 1
        if self._n == self._try_links and self._n_followed > self._n_could_scan:
            none = np.zeros(0, np.int64)
            self._kept = kept._replace(newest=none, older=none, vector=np.zeros(0, np.int32))
        return number


def _norm_and_head(
    latents: NDArray[np.int32],
    values: NDArray[np.uint32],
    weights: NDArray[np.int64],
    order: NDArray[np.int64],
    threshold: float,
) -> tuple[int, NDArray[np.int32]]:
    """Weighted norm, and the latents that make up its first 1 - threshold."""
    by_order = np.argsort(order[latents], kind="stable")
    amounts = weights[latents[by_order]] * values[by_order]
    norm = int(amounts.sum())
    before = np.cumsum(amounts) - amounts
    in_head = (before <= (1 - threshold + _SLACK) * norm) & (amounts > 0)
    return norm, latents[by_order][in_head]


def _room(array: NDArray[Any], n: int) -> NDArray[Any]:
    """The array, grown by half where it does not hold n values."""
    if n <= len(array):
        return array
    grown = np.zeros(max(n, len(array) * 3 // 2), array.dtype)
    grown[: len(array)] = array
    return grown


class DuplicateFinder:
    """Tells candidates that nearly repeat a kept one, in vector and in words."""

    def __init__(
        self,
        kept: KeptVectors,
        vectors: Callable[[NDArray[np.int64]], SparseRows],
        texts: Callable[[NDArray[np.int64]], Sequence[str]],
        *,
        text_overlap: float,
        shingle_words: int,
    ) -> None:
        """Start with nothing kept.

        vectors, texts: (c,) int64 pool rows -> their vectors and their texts, in that order.
        text_overlap:   share of different runs of `shingle_words` words that two texts must have
                        in common; without it a near vector alone is no duplicate.
        """
        self._kept, self._vectors, self._texts = kept, vectors, texts
        self._least, self._n_words = text_overlap, shingle_words
        self._rows: list[int] = []  # of the kept, by number
        self._kept_runs: list[NDArray[np.uint64]] = []
        self._place: dict[int, int] = {}
        self._loaded: SparseRows | None = None
        self._runs: list[NDArray[np.uint64]] = []

    def load(self, rows: NDArray[np.int64]) -> None:
        """Fetch the candidates that are asked about next, replacing those fetched before."""
        self._loaded = self._vectors(rows)
        self._runs = [shingles(text, self._n_words) for text in self._texts(rows)]
        self._place = {int(row): i for i, row in enumerate(rows)}

    def duplicate_of(self, row: int) -> tuple[int, float] | None:
        """The kept row that a loaded row nearly repeats, the first of the nearest; or None.

        Returns (pool row, generalized Jaccard).
        """
        rows, i = self._at(row)
        numbers, scores = self._kept.close_to(rows, i)
        for k in np.argsort(-scores, kind="stable"):
            if overlap(self._runs[i], self._kept_runs[numbers[k]]) >= self._least:
                return self._rows[numbers[k]], float(scores[k])
        return None

    def keep(self, row: int) -> None:
        """Keep a loaded row."""
        rows, i = self._at(row)
        self._kept.keep(rows, i)
        self._rows.append(row)
        self._kept_runs.append(self._runs[i])

    def _at(self, row: int) -> tuple[SparseRows, int]:
        if self._loaded is None or row not in self._place:
            raise ValueError(f"row {row} was not loaded")
        return self._loaded, self._place[row]
