"""Which attention head drives a latent of an SAE that reads the heads' outputs side by side.

The encoder is affine, so what it gives a latent before the selection (its pre-activation) is a sum:
one product for each head's slice of the input, and a bias. The share of a head is its part of that
sum over all tokens on which the latent is active. Shares and the bias add up to 1; a head that
works against the latent has a share below 0.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selection.models.hookpoints import Hookpoint
from selection.sae.coder import SparseCoder
from selection.sae.encode import TopActs, normed

_VALUES = 1 << 24  # products at once
_AFFINE = ("topk", "groupmax", "relu", "jumprelu", "gated")
_SHOWN, _LEAST = 3, 0.1


@dataclass(frozen=True, slots=True)
class HeadShares:
    """heads: (M, H) float64 shares, bias: (M,); NaN for a latent that was never active."""

    heads: NDArray[np.float64]
    bias: NDArray[np.float64]

    def strongest(self, latent: int) -> list[tuple[int, float]]:
        """Heads and shares, largest first whatever their sign: one, or three from 10 % on."""
        shares = self.heads[latent]
        order = np.argsort(-np.abs(shares), kind="stable")[:_SHOWN].tolist()
        large = [head for head in order if abs(shares[head]) >= _LEAST]
        return [(head, float(shares[head])) for head in large or order[:1]]

    def words(self, latent: int) -> str:
        """E.g. "pre-activation 62 % from head 3, 21 % from head 0, 4 % bias"."""
        named = [f"{100 * share:.0f} % from head {head}" for head, share in self.strongest(latent)]
        return f"pre-activation {', '.join(named)}, {100 * self.bias[latent]:.0f} % bias"


class HeadSums:
    """Sums of the heads' parts over the tokens on which each latent is active."""

    def __init__(self, coder: SparseCoder, n_heads: int) -> None:
        """coder: one whose input is `n_heads` slices of equal width."""
        self._coder, n_latents = coder, coder.info.num_latents
        self._parts = torch.zeros((n_latents, n_heads), dtype=torch.float64)
        self._n = torch.zeros(n_latents, dtype=torch.float64)

    def add(self, x: Tensor, latents: TopActs) -> None:
        """Activations x (n, D) and the latents that they gave."""
        coder = self._coder = self._coder.to(x.device)
        z = normed(coder.info.input_norm, x.to(torch.float32))
        tokens, places = (latents.top_acts > 0).nonzero(as_tuple=True)
        active = latents.top_indices[tokens, places]
        for rows in torch.arange(len(active), device=x.device).split(max(1, _VALUES // x.shape[1])):
            chosen = active[rows]
            products = coder.encoder_weight[chosen] * z[tokens[rows]]
            parts = products.unflatten(1, (self._parts.shape[1], -1)).sum(2)
            self._parts.index_add_(0, chosen.cpu(), parts.double().cpu())
            self._n.index_add_(0, chosen.cpu(), torch.ones(len(chosen), dtype=torch.float64))

    def shares(self) -> HeadShares:
        """Of all tokens that were added."""
        coder = self._coder.to("cpu")
        parts, bias = self._parts, coder.encoder_bias.double()
        if coder.magnitude_scale is not None and coder.magnitude_bias is not None:
            parts, bias = parts * coder.magnitude_scale[:, None], coder.magnitude_bias.double()
        if coder.info.centers:
            off = coder.encoder_weight.double() @ coder.decoder_bias.double()
            bias = bias - (off if coder.magnitude_scale is None else off * coder.magnitude_scale)
        biases = bias * self._n
        whole = parts.sum(1) + biases
        whole = torch.where(self._n > 0, whole, torch.nan)
        return HeadShares((parts / whole[:, None]).numpy(), (biases / whole).numpy())


def head_sums(coder: SparseCoder, hookpoint: Hookpoint, n_heads: int | None) -> HeadSums | None:
    """Sums for an SAE of heads; None for others, and where what it computes is no sum of heads."""
    if hookpoint.site != "heads" or coder.info.activation not in _AFFINE:
        return None
    return HeadSums(coder, n_heads) if n_heads and coder.info.d_in % n_heads == 0 else None
