"""Token latents of samples to sums and maxima on the CPU, in float64 and in token order."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from selection.core.sparse import indptr_of


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
    """Aggregates of n samples from the active latents of their tokens, sample by sample.

    acts, indices: (t, k), as `selection.sae.encode` gives them; zeros are no latents, and indices
                   are distinct within a token. n_tokens: (n,) of each sample, t together.
    """
    size = int(np.minimum(n_tokens * acts.shape[1], n_latents).sum())
    latents, sums, maxima = np.empty(size, np.int32), np.empty(size), np.empty(size)
    indptr = np.zeros(len(n_tokens) + 1, np.int64)
    _aggregate(acts, indices, indptr_of(n_tokens), n_latents, indptr, latents, sums, maxima)
    used = int(indptr[-1])
    return Aggregates(indptr, latents[:used], sums[:used], maxima[:used])


@njit(nogil=True, cache=True)
def _aggregate(
    acts: Any,
    indices: Any,
    first_token: Any,
    n_latents: int,
    indptr: Any,
    latents: Any,
    sums: Any,
    maxima: Any,
) -> None:
    """One dense row of sums; only pieces of 64 latents that a sample has are read and cleared."""
    total, largest = np.zeros(n_latents), np.zeros(n_latents)
    touched = np.zeros((n_latents >> 6) + 1, np.bool_)
    end = 0
    for sample in range(len(first_token) - 1):
        for token in range(first_token[sample], first_token[sample + 1]):
            for slot in range(acts.shape[1]):
                act = np.float64(acts[token, slot])
                if act == 0.0:
                    continue
                latent = indices[token, slot]
                touched[latent >> 6] = True
                total[latent] += act
                largest[latent] = max(largest[latent], act)
        for piece in range(len(touched)):
            if not touched[piece]:
                continue
            touched[piece] = False
            for latent in range(piece << 6, min((piece + 1) << 6, n_latents)):
                if total[latent] != 0.0:
                    latents[end], sums[end], maxima[end] = latent, total[latent], largest[latent]
                    total[latent], largest[latent] = 0.0, 0.0
                    end += 1
        indptr[sample + 1] = end


def aggregate_device(
    acts: torch.Tensor, indices: torch.Tensor, sample_of_token: torch.Tensor, n: int, n_latents: int
) -> Aggregates:
    """Aggregates on any device of torch: cells are sorted stably, then reduced one by one.

    acts: (t, w) float32; indices: (t, w) int64; sample_of_token: (t,) int64; n samples.
    """
    cells = (sample_of_token[:, None] * n_latents + indices).ravel()
    filled = acts.ravel() > 0
    cells, order = cells[filled].sort(stable=True)
    values = acts.ravel()[filled][order].to(torch.float64)
    distinct, counts = cells.unique_consecutive(return_counts=True)
    # Unchecked: the check waits for the device, and fails where no latent is active at all.
    sums = torch.segment_reduce(values, "sum", lengths=counts, unsafe=True)
    maxima = torch.segment_reduce(values, "max", lengths=counts, unsafe=True)
    rows = torch.bincount(distinct // n_latents, minlength=n)
    sparse = [rows, (distinct % n_latents).to(torch.int32), sums, maxima]
    lengths, latents, sums_out, maxima_out = _to_host(sparse)
    return Aggregates(indptr_of(lengths), latents, sums_out, maxima_out)


def _to_host(tensors: list[torch.Tensor]) -> list[NDArray[Any]]:
    """All copies are under way before one is waited for, through pinned memory on CUDA."""
    if tensors[0].device.type != "cuda":
        return [tensor.cpu().numpy() for tensor in tensors]
    pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for into, tensor in zip(pinned, tensors, strict=True):
        into.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [tensor.numpy() for tensor in pinned]
