"""Integer weights of latents, and the document frequencies that they are made of.

min(w a, w b) = w min(a, b), so a weight needs no new vectors. Weights are multiples of 2^-10, are
frozen with the run, and are the same on every machine: rounding is decided exactly.
"""

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import document_frequency
from selection.records import SparseRows
from selection.similarity.sources import PoolSpaces, ignore

Weighting = Literal["none", "idf", "target_unique"]
"""none: all alike. idf: rarity in the pool. target_unique: how much more often the exemplars of one
target task have a latent than the pool; every target has its own weights.
"""

WEIGHT_ONE = 1 << 10
"""The integer that stands for a weight of 1."""

_DOUBTFUL = 1e-6  # Far above the error of a float64 logarithm times 2^10, far below 1.


class SpaceCounts(NamedTuple):
    """What the columns of one space are in a pool.

    frequency: (n_columns,) int64 examples that have each column. n: examples with any.
    masses:    (n_columns,) int64 sum of each column's values over the examples.
    """

    frequency: NDArray[np.int64]
    n: int
    masses: NDArray[np.int64]


def document_frequencies(
    vectors: PoolSpaces, *, verify: bool = False, advance: Callable[[int], object] = ignore
) -> tuple[list[SpaceCounts], NDArray[np.bool_]]:
    """Counts of every space over all examples, and which vectors have any column in any space.

    verify:  hash every stored block on the way; raises InputError naming a file that was altered.
    advance: told the number of vectors after each block.
    Returns one `SpaceCounts` a space and (n_vectors,) bool.
    """
    times = vectors.parts[0].multiplicity()
    has_column = np.zeros(len(times), np.bool_)
    counts: list[SpaceCounts] = []
    for part in vectors.parts:
        frequency, masses = np.zeros(0, np.int64), np.zeros(0, np.int64)
        in_space = np.zeros(len(times), np.bool_)
        for numbers, rows in part.blocks(verify=verify):
            if not len(frequency):
                frequency = np.zeros(rows.n_latents, np.int64)
                masses = np.zeros(rows.n_latents, np.int64)
            frequency += document_frequency(rows, times[numbers])
            masses += column_masses(rows, times[numbers])
            in_space[numbers] = np.diff(rows.indptr) > 0
            advance(len(numbers))
        counts.append(SpaceCounts(frequency, int(times[in_space].sum()), masses))
        has_column |= in_space
    return counts, has_column


def column_masses(rows: SparseRows, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_columns,) int64 sum of each column's values, every row `times` over."""
    amounts = rows.values * np.repeat(times.astype(np.float64), np.diff(rows.indptr))
    # Sums of whole numbers below 2^53 are exact in any order.
    return np.bincount(rows.latents, amounts, rows.n_latents).astype(np.int64)


def mean_norm(weights: NDArray[np.int64], counts: SpaceCounts) -> int:
    """Mean weighted L1 norm of a space's vectors, rounded down, at least 1."""
    used = np.flatnonzero(counts.masses)
    pairs = zip(weights[used].tolist(), counts.masses[used].tolist(), strict=True)
    return max(1, sum(weight * mass for weight, mass in pairs) // max(counts.n, 1))  # > 64 bits


def unit_weights(n_latents: int) -> NDArray[np.int64]:
    """Every latent counts 1. Returns (n_latents,) int64."""
    return np.full(n_latents, WEIGHT_ONE, np.int64)


def idf_weights(frequencies: NDArray[np.int64], n_documents: int) -> NDArray[np.int64]:
    """Inverse document frequency, ln((1 + n) / (1 + df)), in multiples of 2^-10.

    frequencies: (n_latents,) int64, documents in which the latent is positive.
    n_documents: documents that were counted: those with a non-empty vector.
    Returns (n_latents,) int64, at least 1: also a latent that every document has counts a little,
    so that no vector loses its norm.
    Raises ValueError for a frequency outside [0, n_documents].
    """
    frequency = np.asarray(frequencies, np.int64)
    if frequency.size and (frequency.min() < 0 or frequency.max() > n_documents):
        raise ValueError(f"document frequencies must be in [0, {n_documents}]")
    unique, position = np.unique(frequency, return_inverse=True)
    weights = _rounded_logs(np.full(len(unique), 1 + n_documents, np.int64), 1 + unique)
    return np.maximum(weights, 1)[position]


def target_unique_weights(
    exemplars: SparseRows, frequencies: NDArray[np.int64], n_documents: int
) -> NDArray[np.int64]:
    """Share of the exemplars that have a latent, less that of the pool: max(0, k / m - df / n).

    k of m exemplars and df of n documents have it. After the codes that positive examples have and
    negative ones do not (O'Neill and Bui, arXiv 2405.12522), by degrees: of a random draw of pool
    samples as negative examples, df / n is the share to expect, so nothing is drawn.
    Returns (n_latents,) int64 multiples of 2^-10, rounded half up; 0 where the exemplars have a
    latent no more often than the pool.
    """
    m, n = len(exemplars), max(n_documents, 1)
    if exemplars.n_latents != len(frequencies):
        raise ValueError(f"{len(frequencies)} frequencies of {exemplars.n_latents} latents")
    above = np.maximum(document_frequency(exemplars) * n - frequencies * m, 0)
    return np.asarray((2 * WEIGHT_ONE * above + m * n) // (2 * m * n), np.int64)


def latent_weights(
    weighting: Weighting,
    frequencies: NDArray[np.int64],
    n_documents: int,
    *,
    max_document_frequency: float | None = None,
    exemplars: SparseRows | None = None,
) -> NDArray[np.int64]:
    """The weights of one space.

    max_document_frequency: latents in a larger share of the documents get weight 0.
    exemplars: of a target task, for "target_unique"; without them it is idf.
    """
    weights = unit_weights(len(frequencies))
    if weighting == "target_unique" and exemplars is not None:
        weights = target_unique_weights(exemplars, frequencies, n_documents)
    elif weighting != "none":
        weights = idf_weights(frequencies, n_documents)
    if max_document_frequency is not None:
        too_common = frequencies > max_document_frequency * n_documents
        weights = np.where(too_common, 0, weights)
    return weights


def _rounded_logs(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.int64]:
    """ln(above / below) in multiples of 2^-10, rounded half to even, the same on every machine."""
    amounts = np.log(above / below) * WEIGHT_ONE
    logs = np.rint(amounts).astype(np.int64)
    # Logarithms differ in the last bit between machines: where that could decide, ask exactly.
    for i in np.flatnonzero(np.abs(amounts - np.floor(amounts) - 0.5) < _DOUBTFUL):
        logs[i] = _exact_log(int(above[i]), int(below[i]))
    return logs


def _exact_log(above: int, below: int) -> int:
    """Rounded logarithm by decimal arithmetic, which is the same everywhere."""
    with localcontext() as context:
        context.prec = 40
        ratio = Decimal(above) / Decimal(below)
        return int((ratio.ln() * WEIGHT_ONE).to_integral_value())
