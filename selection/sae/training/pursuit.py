"""Loss and gradient of one training step of a matching pursuit SAE (arXiv 2506.03093), by hand.

The loss is FVU + auxk_alpha * AuxK. Encoder and decoder are one dictionary W with rows of norm 1,
as in the paper: a step's value is then the exact projection, and the residual never grows.

The gradient goes through the unrolled steps, as in the paper: which latent a step takes is a
constant, and the residual r' = r - v w, v = w.r, of the row w that it takes is differentiated in r
and in w. With g the gradient of the loss by r', that is -v g - (g.w) r for w, and g - (g.w) w for
r, from the last step back to the first. A gradient through the reconstruction alone would miss that
an early row decides what the later ones are given.

AuxK lets dead latents predict what the living ones left over, as in `step`.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from selection.sae.encode import Pursuit, chunk_rows, chunks, pursue
from selection.sae.training.step import Parameters, StepResult, add_dead


def pursuit_gradient(
    p: Parameters, x: Tensor, k: int, dead: Tensor, auxk_alpha: float, threshold: float = 0.0
) -> StepResult:
    """Gradient of the loss over one batch x (n, D), n >= 1; see `step.loss_and_gradient`.

    p:         `w_dec` is the dictionary; `w_enc` and `b_enc` are not used, nor given a gradient.
    threshold: norm of the residual below which a token's steps end.
    """
    grad = Parameters(*(torch.zeros_like(tensor) for tensor in p.tensors()))
    tied = Parameters(grad.w_dec, torch.zeros(len(dead), device=x.device), grad.w_dec, grad.b_dec)
    variance = (x - x.mean(0)).square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    dead_rows = dead.nonzero().flatten() if auxk_alpha > 0 else dead.new_zeros(0).long()
    live = torch.zeros_like(dead)
    error, auxk, n_active = (torch.zeros((), device=x.device) for _ in range(3))
    for rows in chunks(len(x), chunk_rows(len(p.w_dec), x.device)):
        steps = pursue(
            x[rows] - p.b_dec, p.w_dec, k, threshold, lambda rest: (rest @ p.w_dec.T).max(dim=1)
        )
        residual, (acts, indices) = steps.residual, steps.latents()
        error += residual.square().sum()
        live[indices[acts > 0]] = True
        n_active += (acts > 0).sum()
        if len(dead_rows):
            acts = (residual @ p.w_dec[dead_rows].T).relu()
            scale = auxk_alpha / variance
            auxk += add_dead(tied, p, acts, dead_rows, residual, -residual, scale)
        _add_steps(grad, p, steps, 2 / variance)
    loss = (error + auxk_alpha * auxk) / variance
    return StepResult(
        grad,
        live,
        fvu=float(error / variance),
        auxk=float(auxk / variance),
        l0=float(n_active / len(x)),
        loss=float(loss),
    )


def _add_steps(grad: Parameters, p: Parameters, steps: Pursuit, scale: Tensor) -> None:
    """Add the gradient of scale/2 * squared residual, from the last step to the first."""
    values, chosen, residual = steps
    outward = residual * scale
    for step in reversed(range(values.shape[1])):
        value, latents = values[:, step], chosen[:, step]
        row = p.w_dec[latents]
        residual = torch.addcmul(residual, row, value[:, None])  # as it was before the step
        along = (outward * row).sum(1) * (value > 0)
        _add_by_latent(grad.w_dec, latents, outward, -value)
        _add_by_latent(grad.w_dec, latents, residual, -along)
        outward = torch.addcmul(outward, row, along[:, None], value=-1)
    grad.b_dec.sub_(outward.sum(0))


def _add_by_latent(target: Tensor, latents: Tensor, source: Tensor, weights: Tensor) -> None:
    """Add weighted rows of `source` to the rows of their latents, in token order."""
    order = torch.argsort(latents, stable=True)
    present, counts = torch.unique_consecutive(latents[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    target[present] += embedding_bag(
        order, source, starts, per_sample_weights=weights[order], mode="sum"
    )
