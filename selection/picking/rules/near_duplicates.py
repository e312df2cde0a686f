"""Near-duplicates: a candidate is compared exactly with everything that was kept before it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import overlap, shingles
from selection.picking.rules.near_duplicates_kernel import N_BINS, Vectors, close_vectors
from selection.records import SparseRows
from selection.similarity.kernels.rows import check_weights, row_arrays
from selection.similarity.scorer import EXACT_LIMIT

_BIN_BITS = 24  # Of the first norm; norms 256 times larger fit the bins as well.
_BIN_LIMIT = (1 << 32) - 1


class KeptVectors:
    """Vectors that stay, in the order in which they were kept; answers what is close to them.

    Nothing is missed, whatever the data: see `selection.picking.rules.near_duplicates_kernel`.
    """

    def __init__(self, weights: NDArray[np.int64], threshold: float) -> None:
        """Start with nothing kept.

        weights:   (n_latents,) int64, those of the ranking.
        threshold: similarity, in (0, 1], from which vectors count as close.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold must be in (0, 1], not {threshold}")
        self.threshold, self._weights = threshold, weights
        self._checked: SparseRows | None = None
        self._shift: int | None = None
        self._n = 0
        self._kept = Vectors(
            np.zeros(64, np.int64),
            np.empty(4096, np.int32),
            np.empty(4096, np.uint32),
            np.zeros(64, np.int64),
            np.zeros((64, N_BINS), np.uint32),
        )

    def __len__(self) -> int:
        """Number of kept vectors."""
        return self._n

    def close_to(self, rows: SparseRows, i: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Kept vectors with a similarity to row i of at least the threshold, and the similarity.

        Returns (c,) int64 numbers in order of keeping, ascending, and (c,) float64.
        """
        one = self._vector(rows, i)
        numbers, scores = np.empty(self._n, np.int64), np.empty(self._n, np.float64)
        shift = self._shift or 0
        n_close = close_vectors(
            one, self._kept, self._n, self._weights, shift, self.threshold, numbers, scores
        )
        return numbers[:n_close], scores[:n_close]

    def keep(self, rows: SparseRows, i: int) -> int:
        """Keep row i; returns its number."""
        one, kept, number = self._vector(rows, i), self._kept, self._n
        start = int(kept.indptr[number])
        end = start + len(one.latents)
        self._kept = kept = Vectors(
            _grown(kept.indptr, number + 2),
            _grown(kept.latents, end),
            _grown(kept.values, end),
            _grown(kept.norms, number + 1),
            _grown(kept.bins, number + 1),
        )
        kept.latents[start:end], kept.values[start:end] = one.latents, one.values
        kept.indptr[number + 1] = end
        kept.norms[number], kept.bins[number] = one.norms[0], one.bins[0]
        self._n += 1
        return number

    def _vector(self, rows: SparseRows, i: int) -> Vectors:
        """Row i in memory of its own; the rows are checked once."""
        if rows is not self._checked:
            row_arrays(rows)  # Refuses damaged data.
            check_weights(self._weights, rows)
            self._checked = rows
        entries = slice(int(rows.indptr[i]), int(rows.indptr[i + 1]))
        latents = np.array(rows.latents[entries], np.int32)
        values = np.array(rows.values[entries], np.uint32)
        amounts = self._weights[latents] * values
        norm = int(amounts.sum())
        if norm * 2 >= EXACT_LIMIT:
            raise OverflowError(f"a norm of {norm} is too large to compare exactly")
        if self._shift is None and norm:
            self._shift = max(0, norm.bit_length() - _BIN_BITS)
        # Exact below 2^53. Bins that do not fit are all the limit, and such vectors are compared.
        bins = np.bincount(latents % N_BINS, amounts, N_BINS).astype(np.int64) >> (self._shift or 0)
        if bins.max() > _BIN_LIMIT:
            bins[:] = _BIN_LIMIT
        return Vectors(
            np.array([0, len(latents)]),
            latents,
            values,
            np.array([norm]),
            bins.astype(np.uint32)[None, :],
        )


def _grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    """The array, grown by half where it does not hold n rows."""
    if n <= len(array):
        return array
    larger = np.zeros((max(n, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


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
        self._position: dict[int, int] = {}
        self._loaded: SparseRows | None = None
        self._runs: list[NDArray[np.uint64]] = []

    def load(self, rows: NDArray[np.int64]) -> None:
        """Fetch the candidates that are asked about next, replacing those fetched before."""
        self._loaded = self._vectors(rows)
        self._runs = [shingles(text, self._n_words) for text in self._texts(rows)]
        self._position = {int(row): i for i, row in enumerate(rows)}

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
        if self._loaded is None or row not in self._position:
            raise ValueError(f"row {row} was not loaded")
        return self._loaded, self._position[row]
