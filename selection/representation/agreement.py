"""How far the vectors of two computations of the same samples agree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows

SAMPLES = 4096  # vectors that are compared
UNITS, SHARE = 2.0, 0.01  # a latent agrees within two units, or within a hundredth of its value


@dataclass(frozen=True, slots=True)
class VectorAgreement:
    """How alike the recorded and the new vectors are.

    n:           vectors compared. latents_within: share of latents, on in either, that agree.
    similarity_mean, similarity_least: generalized Jaccard of the two vectors of a sample.
    """

    n: int
    latents_within: float
    similarity_mean: float
    similarity_least: float


def spread_sample(usable: NDArray[np.bool_], n: int = SAMPLES) -> NDArray[np.int64]:
    """At most n of the usable rows, evenly spread, ascending."""
    rows = np.flatnonzero(usable)
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).astype(np.int64))]


def vector_agreement(
    first: SparseRows, unit: float, second: SparseRows, other_unit: float
) -> VectorAgreement:
    """Agreement of vectors (n, n_latents), row by row; values are multiples of their units."""
    n_within = n_latents = 0
    similarities = np.ones(len(first))
    for row in range(len(first)):
        a, b = _dense_pair(first, unit, second, other_unit, row)
        within = np.abs(a - b) <= np.maximum(
            UNITS * max(unit, other_unit), SHARE * np.maximum(a, b)
        )
        n_within, n_latents = n_within + int(within.sum()), n_latents + len(a)
        largest = float(np.maximum(a, b).sum())
        similarities[row] = float(np.minimum(a, b).sum()) / largest if largest else 1.0
    return VectorAgreement(
        len(first),
        n_within / n_latents if n_latents else 1.0,
        float(similarities.mean()) if len(first) else 1.0,
        float(similarities.min(initial=1.0)),
    )


def _dense_pair(
    first: SparseRows, unit: float, second: SparseRows, other_unit: float, row: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Activations of both vectors over the latents that are on in either."""
    parts = []
    for rows in (first, second):
        span = slice(rows.indptr[row], rows.indptr[row + 1])
        parts.append((np.asarray(rows.latents[span]), np.asarray(rows.values[span], np.float64)))
    latents = np.union1d(parts[0][0], parts[1][0])
    a, b = np.zeros(len(latents)), np.zeros(len(latents))
    a[np.searchsorted(latents, parts[0][0])] = parts[0][1] * unit
    b[np.searchsorted(latents, parts[1][0])] = parts[1][1] * other_unit
    return a, b
