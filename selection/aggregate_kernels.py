"""Token latents of samples to sums and maxima on the CPU, in float64 and in token order."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.sparse import indptr_of


class Aggregates(NamedTuple):
    """Sums and maxima of n samples in compressed rows, latents ascending within a row.

    indptr (n + 1,) int64, latents (nnz,) int32, sums (nnz,) float64, maxima (nnz,) float64.
    """

    indptr: NDArray[np.int64]
    latents: NDArray[np.int32]
    sums: NDArray[np.float64]
    maxima: NDArray[np.float64]


def aggregate_cpu(
    acts: NDArray[np.float32],
    indices: NDArray[np.integer[Any]],
    n_tokens: NDArray[np.int64],
    n_latents: int,
) -> Aggregates:
    """See `selection.aggregate.aggregate_tokens`; n_tokens: (n,) tokens of each sample."""
    size = int(np.minimum(n_tokens * acts.shape[1], n_latents).sum())
    latents, sums, maxima = np.empty(size, np.int32), np.empty(size), np.empty(size)
    indptr = np.zeros(len(n_tokens) + 1, np.int64)
    _aggregate(acts, indices, indptr_of(n_tokens), n_latents, indptr, latents, sums, maxima)
    used = int(indptr[-1])
    return Aggregates(indptr, latents[:used], sums[:used], maxima[:used])


@njit(nogil=True, cache=True)
def _aggregate(
    acts: Any,  # noqa: ANN401 - numba types, see aggregate_cpu
    indices: Any,  # noqa: ANN401
    first_token: Any,  # noqa: ANN401
    n_latents: int,
    indptr: Any,  # noqa: ANN401
    latents: Any,  # noqa: ANN401
    sums: Any,  # noqa: ANN401
    maxima: Any,  # noqa: ANN401
) -> None:
    """One dense row of sums, cleared entry by entry, so that width costs memory but no time."""
    total, largest = np.zeros(n_latents), np.zeros(n_latents)
    touched = np.empty(n_latents, np.int32)
    end = 0
    for sample in range(len(first_token) - 1):
        n = 0
        for token in range(first_token[sample], first_token[sample + 1]):
            for place in range(acts.shape[1]):
                act = np.float64(acts[token, place])
                if act == 0.0:
                    continue
                latent = indices[token, place]
                if total[latent] == 0.0:
                    touched[n] = latent
                    n += 1
                total[latent] += act
                largest[latent] = max(largest[latent], act)
        for latent in np.sort(touched[:n]):
            latents[end], sums[end], maxima[end] = latent, total[latent], largest[latent]
            total[latent], largest[latent] = 0.0, 0.0
            end += 1
        indptr[sample + 1] = end
