"""Several spaces as one: SAE latents of some hookpoints, words, tokens, side by side in one vector.

Every space keeps its own columns: column c of space s is column `offsets[s] + c` of the whole. Not
normalized, a column's amount is space weight x column weight x value. Normalized, each space of a
vector is first scaled to the same L1 norm, v = floor(w a 2^20 / sum(w a)), or each space as a whole
to the same mean norm L over the pool, v = floor(w a 2^18 / L), where a larger vector stays larger.
v times the space's weight is what minima, norms and prototypes are made of.
Integers throughout.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.core.sparse import indptr_of
from selection.records import SparseRows
from selection.similarity.kernels.limits import (
    AVERAGE_BITS,
    EXCESS_BITS,
    LENGTH_BITS,
    max_total_weight,
)
from selection.similarity.kernels.rows import RowArrays, row_arrays, value_at
from selection.similarity.weights import SpaceCounts, Weighting, latent_weights, mean_norm

Normalize = Literal["none", "l1", "pool"]

JoinForTarget = Callable[[Sequence[SparseRows]], "JoinedSpaces"]
"""Exemplars of one target in every space -> the spaces, with the weights of that target."""

COLUMN_WEIGHT_LIMIT = 1 << 26  # weight x 16-bit value x 2^20 stays below 2^62.
SPACE_WEIGHT_LIMIT = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """One space with what its columns weigh.

    name:      for explanations, e.g. "resid@4" or "words".
    weights:   (n_columns,) int64, 0 excludes a column.
    weight:    of the whole space beside the others, 1 to 1000.
    mean_norm: where spaces are normalized: the norm that becomes 2^18, that of the pool; 0 for
               every vector's own.
    """

    name: str
    weights: NDArray[np.int64]
    weight: int = 1
    mean_norm: int = 0


class JoinedSpaces:
    """Spaces that form one representation.

    spaces:    in the order of their columns.
    normalize: whether each space of a vector is brought to one norm.
    offsets:   (n_spaces + 1,) int64, first column of each space, and the end.
    weights:   (n_columns,) int64, for `exemplar_queries`.
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
        most = max_total_weight(by_average=any(space.mean_norm for space in spaces))
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
            norm = f" {space.mean_norm}" if space.mean_norm else ""
            digest.update(f"{space.name} {space.weight}{norm}".encode())
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
        if not self.normalize:
            return np.asarray(part.values, np.uint16)
        arrays = row_arrays(part)
        amounts = np.zeros(len(part.values), np.uint32)
        _normalize(arrays, space.weights, space.weight, space.mean_norm, amounts)
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
        for part, values_of, offset in zip(parts, amounts, self.offsets, strict=False):
            arrays = row_arrays(SparseRows(part.indptr, part.latents, values_of, part.n_latents))
            _append(arrays, int(offset), cursor, latents, values)
        return SparseRows(indptr, latents, values, int(self.offsets[-1]))

    def locate(self, columns: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number of the space, and column within it, of columns of the whole."""
        numbers = np.searchsorted(self.offsets, columns, side="right") - 1
        return numbers, np.asarray(columns, np.int64) - self.offsets[numbers]


@dataclass(frozen=True, slots=True)
class SpaceRule:
    """How one space enters the whole. weight: of the whole space beside the others."""

    name: str
    weighting: Weighting = "idf"
    weight: int = 1


def join_spaces(
    rules: Sequence[SpaceRule],
    counts: Sequence[SpaceCounts],
    *,
    normalize: Normalize = "none",
    max_document_frequency: float | None = None,
    exemplars: Sequence[SparseRows] | None = None,
) -> JoinedSpaces:
    """The spaces as one, with the weights of their columns, for every target task or for one.

    counts: `document_frequencies` of the pool, one a space.
    normalize: "l1" scales each space of a vector to one L1 norm; "pool" divides it by the space's
    mean norm over the pool, so that a larger vector stays larger.
    max_document_frequency: columns in a larger share of the examples get weight 0.
    exemplars: of one target task, in every space, for weights of its own.
    """
    spaces = []
    of_target: Sequence[SparseRows | None] = exemplars or [None] * len(rules)
    for rule, counted, own in zip(rules, counts, of_target, strict=True):
        weights = latent_weights(
            rule.weighting,
            counted.frequency,
            counted.n,
            max_document_frequency=max_document_frequency,
            exemplars=own,
        )
        norm = mean_norm(weights, counted) if normalize == "pool" else 0
        spaces.append(Space(rule.name, weights, rule.weight, mean_norm=norm))
    return JoinedSpaces(spaces, normalize=normalize != "none")


def join_for_targets(
    rules: Sequence[SpaceRule],
    counts: Sequence[SpaceCounts],
    *,
    normalize: Normalize = "none",
    max_document_frequency: float | None = None,
) -> tuple[JoinedSpaces, JoinForTarget | None]:
    """The spaces as `join_spaces` joins them, and how for one target, where targets weigh apart."""
    join = partial(
        join_spaces,
        rules,
        counts,
        normalize=normalize,
        max_document_frequency=max_document_frequency,
    )
    if all(rule.weighting != "target_unique" for rule in rules):
        return join(), None
    return join(), lambda exemplars: join(exemplars=exemplars)


@njit(nogil=True, cache=True)
def _normalize(
    rows: RowArrays,
    weights: NDArray[np.int64],
    factor: int,
    pool_norm: int,
    out: NDArray[np.uint32],
) -> None:
    """Write factor x v for every entry; see the module."""
    bits = AVERAGE_BITS if pool_norm else LENGTH_BITS
    for i in range(len(rows.indptr) - 1):
        total = np.int64(0)
        for p in range(rows.indptr[i], rows.indptr[i + 1]):
            total += weights[rows.latents[p]] * value_at(rows.values, p)
        if total > 0:
            divisor = total
            if pool_norm:
                least = (total + (1 << EXCESS_BITS) - 1) >> EXCESS_BITS
                divisor = max(np.int64(pool_norm), least)
            for p in range(rows.indptr[i], rows.indptr[i + 1]):
                amount = weights[rows.latents[p]] * value_at(rows.values, p)
                out[p] = factor * ((amount << bits) // divisor)


@njit(nogil=True, cache=True)
def _append(
    rows: RowArrays,
    offset: int,
    cursor: NDArray[np.int64],
    latents: NDArray[np.int32],
    values: NDArray[np.unsignedinteger],
) -> None:
    """Append the entries above 0 of every row at its cursor, columns moved by `offset`."""
    for i in range(len(rows.indptr) - 1):
        for p in range(rows.indptr[i], rows.indptr[i + 1]):
            if value_at(rows.values, p) > 0:
                latents[cursor[i]] = rows.latents[p] + offset
                values[cursor[i]] = value_at(rows.values, p)
                cursor[i] += 1
