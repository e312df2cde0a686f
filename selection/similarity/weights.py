"""Integer weights of latents: what one unit of a latent counts in every sum.

min(w a, w b) = w min(a, b), so a weight needs no new vectors. Weights are multiples of 2^-10, are
frozen with the run, and are the same on every machine: rounding is decided exactly.
"""

from decimal import Decimal, localcontext
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Weighting = Literal["none", "idf"]

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


def latent_weights(
    weighting: Weighting,
    document_frequency: NDArray[np.int64],
    n_documents: int,
    *,
    max_document_frequency: float | None = None,
) -> NDArray[np.int64]:
    """The weights of one space.

    max_document_frequency: latents in a larger share of the documents get weight 0.
    """
    weights = unit_weights(len(document_frequency))
    if weighting == "idf":
        weights = idf_weights(document_frequency, n_documents)
    if max_document_frequency is not None:
        too_common = document_frequency > max_document_frequency * n_documents
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
