"""Token latents of samples to sums and maxima, in float64 and in token order."""

from collections.abc import Sequence
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


class Cells(NamedTuple):
    """Latents of tokens on a device, by sample and latent; nothing has been waited for.

    cells:   (c,) int64 sample times width plus latent, ascending; those of no latent at the end.
    values:  (c,) float64 activations in that order. segment: (c,) int64 number of the cell.
    sizes:   (3,) int64 activations above 0, distinct cells, and whether everything is finite.
    norms:   (t,) float32 of the tokens. n_samples, width: of the aggregates.
    """

    cells: torch.Tensor
    values: torch.Tensor
    segment: torch.Tensor
    sizes: torch.Tensor
    norms: torch.Tensor
    n_samples: int
    width: int


def cells_of(
    acts: torch.Tensor,
    indices: torch.Tensor,
    norms: torch.Tensor,
    sample_of_token: torch.Tensor,
    n_samples: int,
    width: int,
) -> Cells:
    """Cells are sorted stably, so that each is reduced in the order of its tokens.

    acts: (t, w) float32; indices: (t, w) int64; norms, sample_of_token: (t,).
    """
    finite = torch.isfinite(norms).all() & torch.isfinite(acts).all()
    beyond = n_samples * width
    cells = (sample_of_token[:, None] * width + indices).masked_fill_(~(acts > 0), beyond).ravel()
    cells, order = cells.sort(stable=True)
    values = acts.ravel()[order].to(torch.float64)
    is_new = torch.ones_like(cells, dtype=torch.bool)
    is_new[1:] = cells[1:] != cells[:-1]
    is_latent = cells < beyond
    sizes = torch.stack([is_latent.sum(), (is_new & is_latent).sum(), finite.long()])
    return Cells(cells, values, is_new.cumsum(0) - 1, sizes, norms, n_samples, width)


def aggregate_device(works: Sequence[Cells]) -> list[tuple[Aggregates, NDArray[np.float32]]]:
    """Aggregates and norms of several works, on any device of torch, waiting for it twice in all.

    First for the sizes of all, then for their values. Raises FloatingPointError where something is
    not finite.
    """
    if not works:
        return []
    sizes = _to_host([torch.stack([work.sizes for work in works])])[0]
    if not sizes[:, 2].all():
        raise FloatingPointError("activations that are not finite")
    tensors: list[torch.Tensor] = []
    for work, (n, n_distinct, _) in zip(works, sizes.tolist(), strict=True):
        segment, ones = work.segment[:n], torch.ones_like(work.segment[:n])
        counts = ones.new_zeros(n_distinct).scatter_add_(0, segment, ones)
        distinct = ones.new_empty(n_distinct).scatter_(0, segment, work.cells[:n])
        # Unchecked: the check waits for the device, and fails where no latent is active at all.
        sums, maxima = (
            torch.segment_reduce(work.values[:n], kind, lengths=counts, unsafe=True)
            for kind in ("sum", "max")
        )
        rows = ones.new_zeros(work.n_samples).scatter_add_(
            0, distinct // work.width, torch.ones_like(distinct)
        )
        tensors += [rows, (distinct % work.width).to(torch.int32), sums, maxima, work.norms]
    arrays = iter(_to_host(tensors))
    return [
        (Aggregates(indptr_of(rows), latents, sums, maxima), norms)
        for rows, latents, sums, maxima, norms in zip(*[arrays] * 5, strict=True)
    ]


def _to_host(tensors: Sequence[torch.Tensor]) -> list[NDArray[Any]]:
    """All copies are under way before one is waited for, through pinned memory on CUDA."""
    if tensors[0].device.type != "cuda":
        return [tensor.cpu().numpy() for tensor in tensors]
    pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for into, tensor in zip(pinned, tensors, strict=True):
        into.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [tensor.numpy() for tensor in pinned]
