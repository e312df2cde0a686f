"""Loss and gradient of one training step, by hand: the decoder is never densified.

The loss is FVU + auxk_alpha * AuxK. TopK keeps the k largest latents of each token, BatchTopK the
k n largest of a batch of n tokens, so that a token may have more than another. A Matryoshka SAE is
a BatchTopK SAE whose FVU is the sum over several widths, each of them reconstructing with the
first latents alone. AuxK lets dead latents predict what the living ones left over
(the residual, a constant for this purpose), decoded without the decoder bias, which the
reconstruction contains already; its gradient reaches the dead latents' encoder rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from selection.sae.encode import choose, chunk_rows, chunks


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """What is trained: w_enc (M, D), b_enc (M,), w_dec (M, D), b_dec (D,), all float32."""

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor

    def tensors(self) -> list[Tensor]:
        """In a fixed order."""
        return [self.w_enc, self.b_enc, self.w_dec, self.b_dec]


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """What a step gives.

    gradient: of the loss, shaped like the parameters.
    live:     (M,) bool, latents active on at least one token.
    fvu:      squared error over squared distance from the batch's mean.
    auxk:     the AuxK term before auxk_alpha, 0 without dead latents.
    l0:       mean number of active latents per token.
    loss:     what the gradient is of.
    smallest: smallest positive value that BatchTopK kept, else None.
    """

    gradient: Parameters
    live: Tensor
    fvu: float
    auxk: float
    l0: float
    loss: float
    smallest: float | None = None


def loss_and_gradient(
    p: Parameters,
    x: Tensor,
    k: int,
    dead: Tensor,
    auxk_alpha: float,
    *,
    per_batch: bool = False,
    widths: Sequence[int] = (),
) -> StepResult:
    """Gradient of the loss over one batch x (n, D), n >= 1.

    dead:      (M,) bool, latents that AuxK is for.
    per_batch: BatchTopK instead of TopK.
    widths:    Matryoshka: numbers of first latents that reconstruct alone, ascending, the last
               being M; () means M alone.
    Rows go through in chunks that bound the memory for pre-activations; sums are in a fixed order.
    """
    grad = Parameters(*(torch.zeros_like(tensor) for tensor in p.tensors()))
    variance = (x - x.mean(0)).square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    dead_rows = dead.nonzero().flatten() if auxk_alpha > 0 else dead.new_zeros(0).long()
    live = torch.zeros_like(dead)
    parts = list(widths) or [len(p.w_enc)]
    errors = torch.zeros(len(parts), device=x.device)
    auxk, n_active = (torch.zeros((), device=x.device) for _ in range(2))
    cut = _batch_cut(p, x, k) if per_batch else None
    for centered, pre in _pre_acts(p, x):
        pre.relu_()
        acts, indices = choose(pre, k, "topk") if cut is None else _above(pre, cut)
        for i, width in enumerate(parts):
            first_acts = acts if width == len(p.w_enc) else acts * (indices < width)
            scale = 2 / variance
            sums, act_gradient = _decode(first_acts, indices, p.w_dec, centered, scale)
            residual = sums - centered
            _add_living(grad, first_acts, act_gradient, indices, centered, residual * scale)
            errors[i] += residual.square().sum()
        active = acts > 0
        n_active += active.sum()
        live[indices[active]] = True
        if len(dead_rows):
            acts, scale = pre[:, dead_rows], auxk_alpha / variance
            auxk += add_dead(grad, p, acts, dead_rows, centered, residual, scale)
    grad.b_dec.sub_(p.w_enc.T @ grad.b_enc)  # the encoder reads x - b_dec
    return StepResult(
        grad,
        live,
        fvu=float(errors[-1] / variance),
        auxk=float(auxk / variance),
        l0=float(n_active / len(x)),
        loss=float((errors.sum() + auxk_alpha * auxk) / variance),
        smallest=None if cut is None else float(cut),
    )


def _pre_acts(p: Parameters, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of rows: centered (c, D), and their pre-activations (c, M), scratch."""
    size = chunk_rows(len(p.w_enc), x.device)
    buffer = torch.empty((min(size, len(x)), len(p.w_enc)), device=x.device)
    for rows in chunks(len(x), size):
        centered = x[rows] - p.b_dec
        pre = buffer[: len(centered)]
        torch.addmm(p.b_enc, centered, p.w_enc.T, out=pre)
        yield centered, pre


def _batch_cut(p: Parameters, x: Tensor, k: int) -> Tensor:
    """The smallest positive value among the k n largest of the batch; infinity without any.

    The batch's pre-activations are made twice, here and for the loss, rather than kept.
    """
    n_kept = k * len(x)
    best = x.new_zeros(0)
    for _, pre in _pre_acts(p, x):
        flat = pre.flatten()
        best = torch.cat([best, flat.topk(min(n_kept, len(flat)), sorted=False).values])
        best = best.topk(min(n_kept, len(best)), sorted=False).values
    positive = best[best > 0]
    return positive.min() if len(positive) else x.new_full((), float("inf"))


def _above(pre_acts: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Acts (c, w) and indices of what is at least `cut`, in rows as wide as the widest needs."""
    kept = pre_acts >= cut
    width = max(1, int(kept.sum(dim=1).max()))
    acts, indices = torch.where(kept, pre_acts, 0.0).topk(width, dim=1, sorted=False)
    return acts, indices


class ByLatent:
    """The latents (n, k) of n tokens, sorted by latent, those of equal latents in token order."""

    def __init__(self, latents: Tensor, n_latents: int) -> None:
        """Sort them once, for all sums over them."""
        flat = latents.flatten()
        self.order = torch.argsort(flat, stable=True)
        self.tokens = self.order // latents.shape[1]
        self.counts = torch.bincount(flat, minlength=n_latents)
        self.starts = self.counts.cumsum(0) - self.counts

    def sums(self, values: Tensor, source: Tensor) -> Tensor:
        """(M, w) sums over tokens of value, (n, k), times the token's row of `source` (n, w)."""
        weights = values.flatten()[self.order]
        return embedding_bag(
            self.tokens, source, self.starts, per_sample_weights=weights, mode="sum"
        )


def decoded(values: Tensor, latents: Tensor, rows: Tensor) -> Tensor:
    """(n, D) sums of value, (n, k), times the latent's row of `rows` (M, D)."""
    return embedding_bag(latents, rows, per_sample_weights=values, mode="sum")


def _decode(
    acts: Tensor, indices: Tensor, w_dec: Tensor, target: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sums of decoder rows (c, D), and d(scale/2 * squared error)/d(acts) (c, k).

    A zero act is no latent: it gets no gradient, whatever index stands beside it.
    """
    leaf = acts.detach().requires_grad_()
    sums = decoded(leaf, indices, w_dec)
    outward = (sums.detach() - target) * scale
    (gradient,) = torch.autograd.grad(sums, leaf, outward)
    return sums.detach(), gradient * (acts > 0)


def _add_living(
    grad: Parameters,
    acts: Tensor,
    act_gradient: Tensor,
    indices: Tensor,
    centered: Tensor,
    outward: Tensor,
) -> None:
    """Add the reconstruction's gradient: sums over tokens of each latent, in token order."""
    by_latent = ByLatent(indices, len(grad.w_enc))
    grad.w_dec.add_(by_latent.sums(acts, outward))
    grad.w_enc.add_(by_latent.sums(act_gradient, centered))
    gradient, counts = act_gradient.flatten()[by_latent.order], by_latent.counts
    grad.b_enc.add_(torch.segment_reduce(gradient, "sum", lengths=counts, unsafe=True))
    grad.b_dec.add_(outward.sum(0))


def add_dead(
    grad: Parameters,
    p: Parameters,
    acts: Tensor,
    dead_rows: Tensor,
    centered: Tensor,
    residual: Tensor,
    alpha: Tensor,
) -> Tensor:
    """Add the AuxK gradient and return its squared error, both scaled down for few dead latents.

    acts: (c, n_dead) of the dead latents. centered: (c, D), what their encoder rows read.
    The D / 2 strongest dead latents of a token predict the residual x - reconstruction. Dense
    products over the dead latents alone: there are few of them, or else a sparse form would save
    nothing.
    """
    k_aux = centered.shape[1] // 2
    scale = min(len(dead_rows) / k_aux, 1.0)
    if len(dead_rows) > k_aux:
        kept, where = acts.topk(k_aux, dim=-1, sorted=False)
        acts = torch.zeros_like(acts).scatter_(1, where, kept)
    directions = p.w_dec[dead_rows]
    miss = acts @ directions + residual  # residual is reconstruction - x
    outward = miss * (2 * alpha * scale)
    act_gradient = (outward @ directions.T) * (acts > 0)
    grad.w_dec[dead_rows] += acts.T @ outward
    grad.w_enc[dead_rows] += act_gradient.T @ centered
    grad.b_enc[dead_rows] += act_gradient.sum(0)
    return miss.square().sum() * scale
