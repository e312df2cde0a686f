"""Non-negative codes of tokens on fixed parts, and the coordinate descent that finds them (HALS).

A coordinate is set to its best value while the others stand still, block after block of them, so
that nearly all of it is matrix products and the squared error never rises.
"""

import torch
from torch import Tensor

SWEEPS, REFITS = 4, 16
"""Passes over all latents, and over the k that are kept: part of what `seminmf` means, like k."""
_BLOCK = 64
_GATHERED = 1 << 26  # values of kept parts at once


def sparse_codes(x: Tensor, parts: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values (n, k) >= 0 and latents (n, k) of tokens x (n, D) on parts (M, D), float32.

    Non-negative least squares of all latents, SWEEPS passes from the best multiple of
    relu(x parts^T); the k that contribute most, value times norm of the part; and REFITS passes of
    non-negative least squares of these alone, from their values. A latent of value 0 is none.
    """
    norms = parts.norm(dim=1)
    codes = nonnegative_codes(x, parts)
    latents = (codes * norms).topk(k, dim=1, sorted=False).indices
    values = codes.gather(1, latents)
    size = max(1, _GATHERED // (k * parts.shape[1]))
    for rows in range(0, len(x), size):
        some = slice(rows, rows + size)
        kept = parts[latents[some]]
        gram = kept @ kept.mT
        products = (kept @ x[some, :, None])[..., 0]
        for _ in range(REFITS):
            _refit(values[some], gram, products)
    return values, latents


def nonnegative_codes(x: Tensor, parts: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """Codes (n, M) >= 0 that bring |x - codes parts|^2 down, by `sweeps` passes over latents."""
    codes = (x @ parts.T).relu_()
    rebuilt = codes @ parts
    scale = (x * rebuilt).sum(1, keepdim=True) / rebuilt.square().sum(1, keepdim=True)
    scale = scale.nan_to_num_(0.0, 0.0, 0.0)  # of a token that no part points to
    codes, residual = codes.mul_(scale).T.contiguous(), torch.addcmul(x, rebuilt, scale, value=-1)
    for _ in range(sweeps):
        for start in range(0, len(parts), _BLOCK):
            block = parts[start : start + _BLOCK]
            change = descend(
                codes[start : start + _BLOCK], block @ residual.T, block @ block.T, free=False
            )
            residual.addmm_(change.T, block, alpha=-1)
    return codes.T


def descend(values: Tensor, downhill: Tensor, gram: Tensor, *, free: bool) -> Tensor:
    """Set each of m coordinates to its best in turn, in place; returns by how much they changed.

    values: (m, n) of n problems that share a quadratic form `gram` (m, m); `free` of sign, or >= 0.
    downhill: (m, n) negative gradient at these values; it is used up.
    A coordinate without curvature stays as it is.
    """
    before = values.clone()
    for j, curvature in enumerate(gram.diagonal().cpu().tolist()):
        if curvature <= 0:
            continue
        best = values[j] + downhill[j] / curvature
        if not free:
            best.clamp_min_(0.0)
        downhill.addr_(gram[j], best - values[j], alpha=-1)
        values[j] = best
    return values - before


def _refit(values: Tensor, gram: Tensor, products: Tensor) -> None:
    """One pass over the coordinates (n, k) of n problems, each with its own `gram` (n, k, k)."""
    for j in range(values.shape[1]):
        curvature = gram[:, j, j]
        off = products[:, j] - (gram[:, j] * values).sum(1)
        best = (values[:, j] + off / curvature).clamp_min_(0.0)
        values[:, j] = torch.where(curvature > 0, best, values[:, j])
