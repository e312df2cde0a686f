"""Near-duplicates: a candidate is compared exactly with everything that was kept before it.

Two vectors with generalized Jaccard of at least t share latents whose mass is at least t of each
norm. So among the latents of each vector that come first in one fixed order and make up the first
1 - t of its mass (its head) at least one is shared: only vectors that share a head latent need
comparing, and those are compared in full. With the rarest latents first heads are short and few
meet. Nothing is missed: this is arithmetic, not a sketch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.ngrams import overlap, shingles
from selection.records import SparseRows
from selection.row_kernels import check_weights, row_arrays
from selection.scoring import EXACT_LIMIT

_SLACK = 1e-9  # Heads are cut by a float product; a little longer than needed misses nothing.


@dataclass(slots=True)
class _Chains:
    """For every latent the kept vectors that have it in their head, newest first."""

    newest: NDArray[np.int64]  # (n_latents,) position of the newest link, -1 if none
    older: NDArray[np.int64]  # (links,) position of the next older link, -1 at the end
    vector: NDArray[np.int64]  # (links,) which kept vector
    n_links: int = 0


class KeptVectors:
    """Vectors that stay, in the order in which they were kept; answers what is close to them."""

    def __init__(
        self, weights: NDArray[np.int64], order: NDArray[np.int64], threshold: float
    ) -> None:
        """Start with nothing kept.

        weights:   (n_latents,) int64, those of the ranking.
        order:     (n_latents,) int64 place of each latent in the order of heads; smaller is
                   earlier. Any order gives the same answers; document frequency is fast.
        threshold: similarity, in (0, 1], from which vectors count as close.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold must be in (0, 1], not {threshold}")
        self._checked: SparseRows | None = None
        self.threshold, self._weights = threshold, weights
        self._order = np.ascontiguousarray(order, np.int64)
        self._chains = _Chains(
            np.full(len(order), -1, np.int64), np.empty(1024, np.int64), np.empty(1024, np.int64)
        )
        self._latents, self._values = np.empty(4096, np.int32), np.empty(4096, np.uint32)
        self._indptr, self._norms = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self._seen = np.zeros(64, np.int64)
        self._n = self._n_asked = 0

    def __len__(self) -> int:
        """Number of kept vectors."""
        return self._n

    def close_to(self, rows: SparseRows, i: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Kept vectors with a similarity to row i of at least the threshold, and the similarity.

        Returns (c,) int64 numbers in order of keeping, ascending, and (c,) float64.
        """
        latents, values = self._row(rows, i)
        norm, head = _norm_and_head(latents, values, self._weights, self._order, self.threshold)
        self._n_asked += 1
        found, scores = np.empty(self._n, np.int64), np.empty(self._n, np.float64)
        n_found = _meet(
            latents,
            values,
            norm,
            head,
            self._weights,
            (self._indptr, self._latents, self._values),
            self._norms,
            (self._chains.newest, self._chains.older, self._chains.vector),
            self._seen,
            self._n_asked,
            self.threshold,
            found,
            scores,
        )
        by_number = np.argsort(found[:n_found])
        return found[:n_found][by_number], scores[:n_found][by_number]

    def _row(self, rows: SparseRows, i: int) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Latents and values of row i, in memory of their own; the rows are checked once."""
        if rows is not self._checked:
            row_arrays(rows)  # Refuses damaged data.
            check_weights(self._weights, rows)
            self._checked = rows
        entries = slice(int(rows.indptr[i]), int(rows.indptr[i + 1]))
        return np.array(rows.latents[entries], np.int32), np.array(rows.values[entries], np.uint32)

    def keep(self, rows: SparseRows, i: int) -> int:
        """Keep row i; returns its number."""
        latents, values = self._row(rows, i)
        norm, head = _norm_and_head(latents, values, self._weights, self._order, self.threshold)
        number, start = self._n, int(self._indptr[self._n])
        end = start + len(latents)
        self._latents, self._values = _room(self._latents, end), _room(self._values, end)
        self._latents[start:end], self._values[start:end] = latents, values
        self._indptr, self._norms = _room(self._indptr, number + 2), _room(self._norms, number + 1)
        self._seen = _room(self._seen, number + 1)
        self._indptr[number + 1], self._norms[number], self._seen[number] = end, norm, 0
        chains, new = self._chains, self._chains.n_links + len(head)
        chains.older, chains.vector = _room(chains.older, new), _room(chains.vector, new)
        links = np.arange(chains.n_links, new)
        chains.older[links], chains.vector[links] = chains.newest[head], number
        chains.newest[head], chains.n_links = links, new
        self._n += 1
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
    if norm * 2 >= EXACT_LIMIT:
        raise OverflowError(f"a norm of {norm} is too large to compare exactly")
    before = np.cumsum(amounts) - amounts
    in_head = (before <= (1 - threshold + _SLACK) * norm) & (amounts > 0)
    return norm, latents[by_order][in_head]


def _room(array: NDArray[np.generic], n: int) -> NDArray:  # type: ignore[type-arg]
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


@njit(nogil=True, cache=True)
def _meet(
    latents: NDArray[np.int32],
    values: NDArray[np.uint32],
    norm: int,
    head: NDArray[np.int32],
    weights: NDArray[np.int64],
    kept: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]],
    norms: NDArray[np.int64],
    chains: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    seen: NDArray[np.int64],
    asked: int,
    threshold: float,
    found: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> int:
    """Compare one vector with every kept one that shares a latent of both heads; count the close.

    kept: indptr, latents, values. chains: newest, older, vector. seen: (n,) last time of meeting.
    """
    kept_indptr, kept_latents, kept_values = kept
    newest, older, vector = chains
    n_found = 0
    for latent in head:
        link = newest[latent]
        while link >= 0:
            other = vector[link]
            link = older[link]
            if seen[other] == asked:
                continue
            seen[other] = asked
            low, high = min(norm, norms[other]), max(norm, norms[other])
            if high == 0 or low / high < threshold:  # The largest score that the norms allow.
                continue
            a, a_end = 0, len(latents)
            b, b_end = kept_indptr[other], kept_indptr[other + 1]
            shared = np.int64(0)
            while a < a_end and b < b_end:
                f, g = latents[a], kept_latents[b]
                if f == g:
                    shared += weights[f] * np.int64(min(values[a], kept_values[b]))
                a += f <= g
                b += g <= f
            score = shared / (norm + norms[other] - shared)
            if score >= threshold:
                found[n_found], scores[n_found] = other, score
                n_found += 1
    return n_found
