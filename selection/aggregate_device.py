"""Token latents of samples to sums and maxima where the model runs: only sparse rows leave it.

The bits are those of `selection.aggregate_kernels`: float64, added in token order.
"""

from typing import Any

import torch
from numpy.typing import NDArray

from selection.aggregate_kernels import Aggregates
from selection.sparse import indptr_of


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
    found, counts = cells.unique_consecutive(return_counts=True)
    # Unchecked: the check waits for the device, and fails where no latent is active at all.
    sums = torch.segment_reduce(values, "sum", lengths=counts, unsafe=True)
    maxima = torch.segment_reduce(values, "max", lengths=counts, unsafe=True)
    rows = torch.bincount(found // n_latents, minlength=n)
    sparse = [rows, (found % n_latents).to(torch.int32), sums, maxima]
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
