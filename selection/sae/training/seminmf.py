"""Training of a semi-NMF, tokens = codes times parts, codes >= 0, without a gradient.

Semi-NMF (Ding, Li, Jordan 2010, doi:10.1109/TPAMI.2008.277; of MLP activations: arXiv 2506.10920)
on a stream of batches: the codes of a batch for the parts as they are, then the parts for all codes
so far, of which two sums are kept, codes^T codes (M, M) and codes^T tokens (M, D), as in online
dictionary learning (Mairal et al. 2010, JMLR 11). Both halves are coordinate descent, whose error
never rises for the codes or sums that are given. The paper keeps the largest neurons of each part;
here the k largest codes of each token are kept, since a sample is represented by these.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import chunk_rows, chunks
from selection.sae.metadata import SaeInfo
from selection.sae.nonnegative import descend, sparse_codes
from selection.sae.training.settings import TrainSettings
from selection.sae.training.step import ByLatent, Parameters, StepResult, decoded
from selection.sae.training.trainer import Trainer

_FORGETTING = 2.0  # a step's codes count as (step / steps so far) to this power: parts moved since
_BLOCK = 64


class SemiNmfTrainer(Trainer):
    """A training in progress; `parameters.w_dec` are the parts (M, D), of unit norm.

    gram:  (M, M) sum of codes^T codes, older steps forgotten.
    cross: (M, D) sum of codes^T tokens, likewise.
    """

    def __init__(self, settings: TrainSettings, first: Tensor) -> None:
        """The parts start as random tokens of the first batch; where it is too small, as noise."""
        super().__init__(settings, first)
        x, n = first.detach().to(torch.float32), settings.num_latents
        generator = torch.Generator().manual_seed(settings.seed)
        order = torch.randperm(len(x), generator=generator)[:n]
        noise = torch.randn(n - len(order), self.d_in, generator=generator)
        parts = normalize(torch.cat([x[order.to(x.device)], noise.to(x.device)]), dim=1)
        empty = x.new_zeros(0)
        self.parameters = Parameters(empty, empty, parts, empty)
        self.gram, self.cross = x.new_zeros((n, n)), torch.zeros_like(parts)

    def state(self) -> list[Tensor]:
        """What a step changes, in a fixed order."""
        return [self.parameters.w_dec, self.gram, self.cross]

    def coder(self) -> SparseCoder:
        """The trained coder: its parts are encoder and decoder, and no scale is in them."""
        parts, s = self.parameters.w_dec.cpu(), self.settings
        info = SaeInfo(
            "",
            None,
            self.d_in,
            s.num_latents,
            s.k,
            activation="seminmf",
            family="saelens",
            centers=False,
            declared_l0=self.mean_l0() or None,
        )
        zeros = torch.zeros(s.num_latents), torch.zeros(self.d_in)
        return make_coder(parts, zeros[0], parts, zeros[1], info=info)

    def learn(self, x: Tensor, k: int, dead: Tensor, lr: float) -> StepResult:
        """Codes of one batch x (n, D), then one pass over the parts; lr is not used."""
        parts = self.parameters.w_dec
        error, (values, latents) = batch_codes(x, parts, k)
        kept = (1 - 1 / self.n_steps) ** _FORGETTING
        dense = torch.zeros((len(x), len(parts)), device=x.device).scatter_(1, latents, values)
        by_latent = ByLatent(latents, len(parts))
        self.gram.mul_(kept).add_(by_latent.sums(values, dense))
        self.cross.mul_(kept).add_(by_latent.sums(values, x))
        variance = (x - x.mean(0)).square().sum().clamp_min(torch.finfo(torch.float32).tiny)
        active = values > 0
        live = torch.zeros_like(dead)
        live[latents[active]] = True
        improve_parts(parts, self.gram, self.cross)
        residual = x - decoded(values, latents, parts)
        self._unit_norm()
        self._revive((dead & ~live).nonzero().flatten(), residual)
        return StepResult(
            self.parameters,
            live,
            fvu=float(error / variance),
            auxk=0.0,
            l0=float(active.sum() / len(x)),
            loss=float(error / variance),
        )

    def _unit_norm(self) -> None:
        """Parts of norm 1, and sums as if all codes had been for these."""
        norms = self.parameters.w_dec.norm(dim=1, keepdim=True)
        norms = torch.where(norms > 0, norms, 1.0)
        self.parameters.w_dec.div_(norms)
        self.gram.mul_(norms).mul_(norms.T)
        self.cross.mul_(norms)

    def _revive(self, dead: Tensor, residual: Tensor) -> None:
        """Let dead parts start anew as what is left over of the tokens that are explained least."""
        dead = dead[: len(residual)]
        worst = residual.norm(dim=1).argsort(descending=True, stable=True)[: len(dead)]
        self.parameters.w_dec[dead] = normalize(residual[worst], dim=1)
        self.gram[dead], self.gram[:, dead], self.cross[dead] = 0.0, 0.0, 0.0
        self.tokens_since_active[dead] = 0


def batch_codes(x: Tensor, parts: Tensor, k: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Squared error of a batch x (n, D), and its codes as values and latents, both (n, k)."""
    codes = [sparse_codes(x[r], parts, k) for r in chunks(len(x), chunk_rows(len(parts), x.device))]
    values, latents = (torch.cat(each) for each in zip(*codes, strict=True))
    return (x - decoded(values, latents, parts)).square().sum(), (values, latents)


def improve_parts(parts: Tensor, gram: Tensor, cross: Tensor) -> None:
    """One pass of coordinate descent over the parts (M, D) for given sums of codes, in place.

    It brings |tokens - codes parts|^2 down; parts that no code uses stay.
    """
    for start in range(0, len(parts), _BLOCK):
        some = slice(start, start + _BLOCK)
        descend(parts[some], cross[some] - gram[some] @ parts, gram[some, some], free=True)
