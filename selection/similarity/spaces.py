"""Several spaces as one: SAE latents of some hookpoints, words, tokens, side by side in one vector.

Every space keeps its own columns: column c of space s is column `offsets[s] + c` of the whole. Not
normalized, a column's amount is space weight x column weight x value. Normalized, each space of a
vector is first brought to the same length, v = floor(w a 2^20 / sum(w a)), or each space as a whole
to the same average length L over the pool, v = floor(w a 2^18 / L), where a vector's own length
goes on to count. v times the space's weight is what minima, norms and prototypes are made of.
Integers throughout.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.core.sparse import indptr_of
from selection.records import SparseRows
from selection.similarity.kernels.limits import AVERAGE_BITS, EXCESS_BITS, LENGTH_BITS, most_weight
from selection.similarity.kernels.rows import RowArrays, row_arrays

COLUMN_WEIGHT_LIMIT = 1 << 26  # weight x 16-bit value x 2^20 stays below 2^62.
SPACE_WEIGHT_LIMIT = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """One space with what its columns weigh.

    name:        for explanations, e.g. "resid@4" or "words".
    weights:     (n_columns,) int64, 0 excludes a column.
    weight:      of the whole space beside the others, 1 to 1000.
    length:      where spaces are normalized: the length that becomes 2^18, `average_length` of the
                 pool; 0 for every vector's own.
    """

    name: str
    weights: NDArray[np.int64]
    weight: int = 1
    length: int = 0


class Joint:
    """Spaces that form one representation, for one target task.

    spaces:    in the order of their columns.
    normalize: whether each space of a vector is brought to one length.
    offsets:   (n_spaces + 1,) int64, first column of each space, and the end.
    weights:   (n_columns,) int64, what `exemplar_queries` and `score` take beside `rows`.
    """

    def __init__(self, spaces: Sequence[Space], *, normalize: bool) -> None:
        """Raises ValueError for weights out of range, or spaces that are too many or too wide."""
        self.spaces, self.normalize = tuple(spaces), normalize
        widths = [len(space.weights) for space in spaces]
        self.offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        for space in spaces:
            if not 1 <= space.weight <= SPACE_WEIGHT_LIMIT:
                raise ValueError(
                    f"weight of {space.name} is {space.weight}, not in [1, {SPACE_WEIGHT_LIMIT}]"
                )
            if int(space.weights.max(initial=0)) >= COLUMN_WEIGHT_LIMIT:
                raise ValueError(f"a column of {space.name} weighs {COLUMN_WEIGHT_LIMIT} or more")
        most = most_weight(by_average=any(space.length for space in spaces))
        if sum(space.weight for space in spaces) >= most:
            raise ValueError(f"the weights of the spaces add up to {most:,} or more")
        if self.offsets[-1] >= 1 << 31:
            raise ValueError(f"{self.offsets[-1]:,} columns are more than 2^31")
        scaled = [space.weights * space.weight for space in spaces]
        self.weights = np.concatenate(scaled).astype(np.int64)
        if normalize:
            self.weights = np.ones_like(self.weights)

    def sha256(self) -> str:
        """Hash of everything that decides what columns count."""
        digest = hashlib.sha256(f"{self.normalize}".encode())
        for space in self.spaces:
            length = f" {space.length}" if space.length else ""
            digest.update(f"{space.name} {space.weight}{length}".encode())
            digest.update(np.ascontiguousarray(space.weights, "<i8").tobytes())
        return digest.hexdigest()

    def rows(self, parts: Sequence[SparseRows]) -> SparseRows:
        """The same samples' vectors of every space, in order, as vectors of the whole.

        Raises ValueError where numbers of rows or columns do not fit.
        """
        if len(parts) != len(self.spaces) or len({len(part) for part in parts}) != 1:
            raise ValueError(f"expected as many rows of each of {len(self.spaces)} spaces")
        for part, space in zip(parts, self.spaces, strict=True):
            if part.n_latents != len(space.weights):
                raise ValueError(f"{part.n_latents} columns of {space.name}")
        amounts = [self._amounts(part, s) for part, s in zip(parts, self.spaces, strict=True)]
        if len(parts) == 1 and not self.normalize:
            return SparseRows(parts[0].indptr, parts[0].latents, amounts[0], parts[0].n_latents)
        return self._side_by_side(parts, amounts)

    def _amounts(self, part: SparseRows, space: Space) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Values of a space's entries as they enter the whole."""
        values = part.values
        if not self.normalize:
            return np.asarray(values, np.uint16)
        arrays = row_arrays(SparseRows(part.indptr, part.latents, values, part.n_latents))
        amounts = np.zeros(len(values), np.uint32)
        _normalize(arrays, space.weights, space.weight, space.length, amounts)
        return amounts

    def _side_by_side(
        self,
        parts: Sequence[SparseRows],
        amounts: Sequence[NDArray[np.uint16] | NDArray[np.uint32]],
    ) -> SparseRows:
        """Entries that are not 0, row by row, space after space."""
        counts = [
            np.diff(np.concatenate([[0], np.cumsum(values > 0)])[part.indptr])
            for part, values in zip(parts, amounts, strict=True)
        ]
        indptr = indptr_of(np.sum(counts, axis=0))
        latents = np.empty(indptr[-1], np.int32)
        values = np.empty(indptr[-1], amounts[0].dtype)
        cursor = indptr[:-1].copy()
        for part, own, offset in zip(parts, amounts, self.offsets, strict=False):
            arrays = row_arrays(SparseRows(part.indptr, part.latents, own, part.n_latents))
            _place(arrays, int(offset), cursor, latents, values)
        return SparseRows(indptr, latents, values, int(self.offsets[-1]))

    def locate(self, columns: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number of the space, and column within it, of columns of the whole."""
        numbers = np.searchsorted(self.offsets, columns, side="right") - 1
        return numbers, np.asarray(columns, np.int64) - self.offsets[numbers]


def average_length(weights: NDArray[np.int64], masses: NDArray[np.integer], n: int) -> int:
    """Average sum(w a) of a space's vectors, rounded down, at least 1.

    masses: (n_columns,) sum of each column's values over n vectors.
    """
    used = np.flatnonzero(masses)
    pairs = zip(weights[used].tolist(), masses[used].tolist(), strict=True)
    return max(1, sum(weight * mass for weight, mass in pairs) // max(n, 1))  # beyond 64 bits


def column_masses(rows: SparseRows, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_columns,) int64 sum of each column's values, every row `times` over."""
    amounts = rows.values * np.repeat(times.astype(np.float64), np.diff(rows.indptr))
    # Sums of whole numbers below 2^53 are exact in any order.
    return np.bincount(rows.latents, amounts, rows.n_latents).astype(np.int64)


@njit(nogil=True, cache=True)
def _normalize(
    rows: RowArrays,
    weights: NDArray[np.int64],
    factor: int,
    length: int,
    out: NDArray[np.uint32],
) -> None:
    """Write factor x v for every entry; see the module."""
    bits = AVERAGE_BITS if length else LENGTH_BITS
    for i in range(len(rows.indptr) - 1):
        total = np.int64(0)
        for p in range(rows.indptr[i], rows.indptr[i + 1]):
            total += weights[rows.latents[p]] * np.int64(rows.values[p])
        if total > 0:
            divisor = total
            if length:
                least = (total + (1 << EXCESS_BITS) - 1) >> EXCESS_BITS
                divisor = max(np.int64(length), least)
            for p in range(rows.indptr[i], rows.indptr[i + 1]):
                amount = weights[rows.latents[p]] * np.int64(rows.values[p])
                out[p] = factor * ((amount << bits) // divisor)


@njit(nogil=True, cache=True)
def _place(
    rows: RowArrays,
    offset: int,
    cursor: NDArray[np.int64],
    latents: NDArray[np.int32],
    values: NDArray[np.unsignedinteger],
) -> None:
    """Append the entries above 0 of every row at its cursor, columns moved by `offset`."""
    for i in range(len(rows.indptr) - 1):
        for p in range(rows.indptr[i], rows.indptr[i + 1]):
            if rows.values[p] > 0:
                latents[cursor[i]] = rows.latents[p] + offset
                values[cursor[i]] = rows.values[p]
                cursor[i] += 1
