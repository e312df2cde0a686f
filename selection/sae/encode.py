"""Activations to latents: one matrix product, relu, and the k largest per token."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from selection.sae.formats import SparseCoder

_CHUNK_VALUES = {"cpu": 1 << 20, "cuda": 1 << 28}  # pre-activations at once; 1 << 20 fit a cache
_MIN_CHUNK_ROWS = 256  # fewer rows make the matrix product inefficient


class TopActs(NamedTuple):
    """The active latents of n tokens.

    top_acts:    (n, k) float32, not negative, in no particular order within a row. A token with
                 fewer than k positive latents has zeros, whose indices mean nothing.
    top_indices: (n, k) int64, distinct within a row.
    """

    top_acts: Tensor
    top_indices: Tensor


def encode(coder: SparseCoder, x: Tensor) -> TopActs:
    """Latents of activations x (n, D), any float dtype, on the coder's device.

    Computed in float32 in chunks of rows; the chunk size depends on the number of latents and the
    kind of device alone, so equal input gives equal output. Raises ValueError for another width.
    """
    n_latents, d_in = coder.encoder_weight.shape
    if x.ndim != 2 or x.shape[1] != d_in:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (n, {d_in})")
    acts = torch.empty((len(x), coder.k), device=x.device)
    indices = torch.empty((len(x), coder.k), dtype=torch.int64, device=x.device)
    buffer = torch.empty((chunk_rows(n_latents, x.device), n_latents), device=x.device)
    with torch.no_grad():
        for rows in chunks(len(x), len(buffer)):
            centered = x[rows].to(torch.float32) - coder.decoder_bias
            out = buffer[: len(centered)]
            torch.addmm(coder.encoder_bias, centered, coder.encoder_weight.T, out=out)
            chosen = choose(out.relu_(), coder.k, coder.info.activation)
            acts[rows], indices[rows] = chosen.top_acts, chosen.top_indices
    return TopActs(acts, indices)


def decode(coder: SparseCoder, latents: TopActs) -> Tensor:
    """Reconstructions (n, D) float32 of n tokens, without ever making dense latents."""
    sums = torch.nn.functional.embedding_bag(
        latents.top_indices,
        coder.decoder_weight,
        per_sample_weights=latents.top_acts,
        mode="sum",
    )
    return sums + coder.decoder_bias


def choose(pre_acts: Tensor, k: int, activation: str) -> TopActs:
    """Active latents of pre-activations (n, M) that went through relu.

    activation: "topk", the k largest of a row; or "groupmax", the largest in each of k equal
    groups of neighbouring latents.
    """
    if activation == "topk":
        acts, indices = pre_acts.topk(k, dim=-1, sorted=False)
        return TopActs(acts, indices)
    acts, indices = pre_acts.unflatten(-1, (k, -1)).max(dim=-1)
    width = pre_acts.shape[1] // k
    return TopActs(acts, indices + torch.arange(k, device=indices.device) * width)


def chunk_rows(n_latents: int, device: torch.device) -> int:
    """Rows whose pre-activations are made at once: a function of width and device kind alone."""
    values = _CHUNK_VALUES.get(device.type, _CHUNK_VALUES["cpu"])
    return max(_MIN_CHUNK_ROWS, values // n_latents)


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(n) in order."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
