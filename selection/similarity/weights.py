"""Integer weights of latents: what one unit of a latent counts in every sum.

min(w a, w b) = w min(a, b), so a weight needs no new vectors. Weights are multiples of 2^-10, are
frozen with the run, and are the same on every machine: rounding is decided exactly.
"""

from decimal import Decimal, localcontext
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import document_frequency as frequency_of
from selection.records import SparseRows

Weighting = Literal["none", "idf", "contrast", "idf*contrast"]

WEIGHT_ONE = 1 << 10
"""The integer that stands for a weight of 1."""

_DOUBTFUL = 1e-6  # Far above the error of a float64 logarithm times 2^10, far below 1.


def unit_weights(n_latents: int) -> NDArray[np.int64]:
    """Every latent counts 1. Returns (n_latents,) int64."""
    return np.full(n_latents, WEIGHT_ONE, np.int64)


def idf_weights(document_frequency: NDArray[np.int64], n_documents: int) -> NDArray[np.int64]:
    """Inverse document frequency, ln((1 + n) / (1 + df)), in multiples of 2^-10.

    document_frequency: (n_latents,) int64, documents in which the latent is positive.
    n_documents:        documents that were counted: those with a non-empty vector.
    Returns (n_latents,) int64, at least 1: also a latent that every document has counts a little,
    so that no vector loses its norm.
    Raises ValueError for a frequency outside [0, n_documents].
    """
    frequency = np.asarray(document_frequency, np.int64)
    if frequency.size and (frequency.min() < 0 or frequency.max() > n_documents):
        raise ValueError(f"document frequencies must be in [0, {n_documents}]")
    unique, position = np.unique(frequency, return_inverse=True)
    weights = _rounded_logs(np.full(len(unique), 1 + n_documents, np.int64), 1 + unique)
    return np.maximum(weights, 1)[position]


def contrast_weights(
    document_frequency: NDArray[np.int64],
    n_documents: int,
    exemplars: SparseRows,
    smoothing: int = 1,
) -> NDArray[np.int64]:
    """How much more often a latent fires on the exemplars than on the pool: 1 + max(0, ln lift).

    lift = ((k + s q) / (m + s)) / q, where k of m exemplars have the latent, q = (1 + df) / (1 + n)
    is its share of the pool, and s exemplars that look like the pool smooth it. A latent that the
    exemplars have no more often than the pool counts 1, so that what a candidate has beside the
    target task keeps its place in the norm.
    smoothing: s, at least 1.
    Returns (n_latents,) int64 in multiples of 2^-10, each at least WEIGHT_ONE.
    """
    if smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}; it is at least 1")
    frequency, m = np.asarray(document_frequency, np.int64), len(exemplars)
    counts = frequency_of(exemplars)
    if frequency.shape != counts.shape:
        raise ValueError(f"{len(frequency)} frequencies for exemplars of {len(counts)} latents")
    pairs, position = np.unique(np.stack([counts, frequency]), axis=1, return_inverse=True)
    above = pairs[0] * (1 + n_documents) + smoothing * (1 + pairs[1])
    below = (m + smoothing) * (1 + pairs[1])
    weights = WEIGHT_ONE + np.maximum(_rounded_logs(above, below), 0)
    return weights[position.ravel()]


def latent_weights(
    weighting: Weighting,
    document_frequency: NDArray[np.int64],
    n_documents: int,
    exemplars: SparseRows,
    *,
    smoothing: int = 1,
    max_document_frequency: float | None = None,
) -> NDArray[np.int64]:
    """The weights of one space for one target task; a product is rounded half to even once.

    max_document_frequency: latents in a larger share of the documents get weight 0.
    """
    weights = unit_weights(len(document_frequency))
    if weighting in ("idf", "idf*contrast"):
        weights = idf_weights(document_frequency, n_documents)
    if weighting in ("contrast", "idf*contrast"):
        contrast = contrast_weights(document_frequency, n_documents, exemplars, smoothing)
        weights = multiply(weights, contrast)
    if max_document_frequency is not None:
        too_common = document_frequency > max_document_frequency * n_documents
        weights = np.where(too_common, 0, weights)
    return weights


def multiply(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Products of weights, rounded half to even; at least 1 where neither factor is 0."""
    product = left * right
    quotient, rest = product // WEIGHT_ONE, product % WEIGHT_ONE
    half = WEIGHT_ONE // 2
    quotient += (rest > half) | ((rest == half) & (quotient % 2 == 1))
    return np.where(product > 0, np.maximum(quotient, 1), 0)


def square_roots() -> NDArray[np.uint16]:
    """(65536,) table of stored values: the square root in multiples of 2^-8, rounded to nearest."""
    scaled = np.arange(1 << 16, dtype=np.int64) << 16
    roots = np.sqrt(scaled.astype(np.float64)).astype(np.int64)
    roots -= roots * roots > scaled
    roots += (roots + 1) * (roots + 1) <= scaled
    return (roots + (scaled - roots * roots > roots)).astype(np.uint16)


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
