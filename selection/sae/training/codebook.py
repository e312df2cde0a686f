"""Training of a codebook (arXiv 2310.17230): a token is replaced by the sum of its nearest codes.

These are the k codes of highest cosine, in equal shares of each of `groups` parts of the activation
(the paper's heads); the loss is FVU. Which codes a token has is a constant of the gradient: in the
paper it passes straight through that choice to the model below, which is frozen here, so that the
codes alone are trained, each towards what its tokens lack. Codes that fell silent are placed anew
where the codebook fails, on the tokens of largest error.
"""

import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import chunk_rows, chunks, nearest
from selection.sae.metadata import SaeInfo
from selection.sae.training.settings import TrainSettings
from selection.sae.training.step import ByLatent, Parameters, StepResult, decoded
from selection.sae.training.trainer import Trainer


class CodebookTrainer(Trainer):
    """A training in progress; `parameters.w_dec` are the codes (M, D), 0 outside their part."""

    def __init__(self, settings: TrainSettings, first: Tensor) -> None:
        """Codes of a group start at random tokens of the first batch; where it is small, as noise.

        Raises InputError for groups that do not divide the activation's width.
        """
        super().__init__(settings, first)
        self.groups = settings.groups or 1
        if self.d_in % self.groups:
            raise InputError(
                f"activations of width {self.d_in} have no equal parts of this number",
                field="sae.train.groups",
                value=self.groups,
                remedy=f"Choose a divisor of {self.d_in}.",
            )
        tokens = first.detach().to(torch.float32) * self.scale
        tokens = tokens[self.usable(tokens)] - self.center
        generator = torch.Generator().manual_seed(settings.seed)
        width, starts = settings.num_latents // self.groups, []
        for _ in range(self.groups):
            order = torch.randperm(len(tokens), generator=generator)[:width]
            noise = torch.randn(width - len(order), self.d_in, generator=generator)
            starts += [tokens[order.to(tokens.device)], noise.to(tokens.device)]
        codes = in_groups(torch.cat(starts) * (self.groups / settings.k), self.groups)
        empty = codes.new_zeros(0)
        self.parameters = Parameters(empty, empty, codes, self.center.clone())
        self.adam = torch.optim.Adam(self.state(), lr=self.peak_rate, fused=True)

    def state(self) -> list[Tensor]:
        """What is trained, in a fixed order."""
        return [self.parameters.w_dec, self.parameters.b_dec]

    def coder(self) -> SparseCoder:
        """The trained coder, for activations as they come."""
        codes, center = (tensor.cpu() for tensor in self.state())
        info = SaeInfo(
            "",
            None,
            self.d_in,
            len(codes),
            self.settings.k,
            activation="codebook",
            family="saelens",
            groups=self.groups,
        )
        zeros = codes.new_zeros(len(codes))
        return make_coder(
            directions(codes), zeros, codes / self.scale, center / self.scale, info=info
        )

    def learn(self, x: Tensor, k: int, dead: Tensor, lr: float) -> StepResult:
        """One step of Adam on one batch x (n, D), scaled; then dead codes are placed anew."""
        result, residual = codebook_gradient(self.parameters, x, k, self.groups)
        for tensor, gradient in zip(
            self.state(), (result.gradient.w_dec, result.gradient.b_dec), strict=True
        ):
            tensor.grad = gradient
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self._revive(dead & ~result.live, x, residual)
        return result

    def _revive(self, dead: Tensor, x: Tensor, residual: Tensor) -> None:
        """Place dead codes of each group on the tokens where its part has the largest error."""
        codes, moments = self.parameters.w_dec, self.adam.state[self.parameters.w_dec]
        errors = residual.unflatten(1, (self.groups, -1)).square().sum(2)
        for group, is_dead in enumerate(dead.view(self.groups, -1)):
            lost = is_dead.nonzero().flatten()[: len(x)] + group * len(is_dead)
            worst = errors[:, group].argsort(descending=True, stable=True)[: len(lost)]
            codes[lost] = (x[worst] - self.parameters.b_dec) * (self.groups / self.settings.k)
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name][lost] = 0.0
            self.tokens_since_active[lost] = 0
        in_groups(codes, self.groups)


def codebook_gradient(p: Parameters, x: Tensor, k: int, groups: int) -> tuple[StepResult, Tensor]:
    """Gradient of the loss over one batch x (n, D), n >= 1, and reconstruction less x.

    p: `w_dec` are the codes; `w_enc` and `b_enc` are not used, nor given a gradient.
    """
    unit = directions(p.w_dec).T
    indices = torch.cat(
        [
            nearest((x[rows] - p.b_dec) @ unit, k // groups, groups).top_indices
            for rows in chunks(len(x), chunk_rows(len(p.w_dec), x.device))
        ]
    )
    ones = torch.ones_like(indices, dtype=torch.float32)
    residual = decoded(ones, indices, p.w_dec) + p.b_dec - x
    variance = (x - x.mean(0)).square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    outward = residual * (2 / variance)
    by_code = in_groups(ByLatent(indices, len(p.w_dec)).sums(ones, outward), groups)
    live = torch.zeros(len(p.w_dec), dtype=torch.bool, device=x.device)
    live[indices.flatten()] = True
    fvu = float(residual.square().sum() / variance)
    gradient = Parameters(p.w_enc, p.b_enc, by_code, outward.sum(0))
    return StepResult(gradient, live, fvu, auxk=0.0, l0=float(k), loss=fvu), residual


def directions(codes: Tensor) -> Tensor:
    """Codes (M, D) at norm 1: their products with a token are in the order of its cosines."""
    return codes / codes.norm(dim=1, keepdim=True).clamp_min(torch.finfo(codes.dtype).tiny)


def in_groups(codes: Tensor, groups: int) -> Tensor:
    """Codes (M, D), those of each group 0 outside its part, in place; returns them."""
    parts = codes.view(groups, len(codes) // groups, groups, -1)
    for group in range(groups):
        parts[group, :, :group] = 0.0
        parts[group, :, group + 1 :] = 0.0
    return codes
