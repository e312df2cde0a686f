"""How well a sparse autoencoder fits activations it was not trained on."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder
from selection.sae.encode import encode, reconstruct
from selection.sae.metadata import SaeInfo


@dataclass(frozen=True, slots=True)
class SaeQuality:
    """Measured over all tokens together, never as a mean over batches.

    fvu:        fraction of variance unexplained: squared error of the reconstructions over the
                squared distance from the mean of all tokens; 0 is perfect, 1 is no better than
                that mean, and it can exceed 1. None for a transcoder, which does not reconstruct
                what it reads.
    l0:         mean number of latents that are active (above zero) on a token.
    dead_share: share of latents active on none of these tokens.
    n_tokens:   tokens measured.
    """

    fvu: float | None
    l0: float
    dead_share: float
    n_tokens: int

    def as_record(self) -> dict[str, object]:
        """For `saelect.json` and reports."""
        return asdict(self)


def measure(coder: SparseCoder, batches: Iterable[Tensor]) -> SaeQuality:
    """Measure on batches (n, D) of float activations, on the coder's device.

    Sums are in float64 around the first batch's mean, so that a large mean does not swallow the
    variance. Raises InputError when there are no tokens or all of them are equal.
    """
    n_latents, d_in = coder.encoder_weight.shape
    device = coder.encoder_weight.device
    total = torch.zeros(d_in, dtype=torch.float64, device=device)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    error, n_active, n_tokens = torch.zeros_like(squares), torch.zeros_like(squares), 0
    active_once = torch.zeros(n_latents, dtype=torch.bool, device=device)
    around = None
    for batch in batches:
        x = batch.detach().to(torch.float32)
        latents = encode(coder, x)
        around = x.mean(0) if around is None else around
        centered = (x - around).double()
        total += centered.sum(0)
        squares += centered.square().sum()
        if not coder.info.is_transcoder:
            error += (reconstruct(coder, latents, x) - x).double().square().sum()
        active = latents.top_acts > 0
        n_active += active.sum()
        active_once[latents.top_indices[active]] = True
        n_tokens += len(x)
    variance = float(squares - total.square().sum() / max(1, n_tokens))
    if not variance > 0:
        raise InputError(
            "the SAE's quality needs at least two different tokens",
            value=n_tokens,
            remedy="Measure on more text.",
        )
    return SaeQuality(
        fvu=None if coder.info.is_transcoder else float(error) / variance,
        l0=float(n_active) / n_tokens,
        dead_share=1 - float(active_once.sum()) / n_latents,
        n_tokens=n_tokens,
    )


L0_TOLERANCE = 0.5
FVU_LIMIT = 0.9


def misses_declared_l0(info: SaeInfo, quality: SaeQuality) -> bool:
    """Whether active latents are more than half off what was published for the SAE."""
    expected = info.declared_l0
    return expected is not None and abs(quality.l0 - expected) > L0_TOLERANCE * expected


def problems(info: SaeInfo, quality: SaeQuality) -> list[str]:
    """What is wrong, one clause each; empty when all is well.

    An SAE that is read by other conventions than its own, or at another hookpoint, on another
    model or kind of text, shows it here: its active latents are half or half as many again as
    declared, or its reconstructions explain (almost) nothing.
    """
    clauses, expected = [], info.expected_l0
    if expected is not None and abs(quality.l0 - expected) > L0_TOLERANCE * expected:
        clauses.append(f"{quality.l0:.1f} latents are active per token, {expected:g} are declared")
    if quality.fvu is not None and not quality.fvu < FVU_LIMIT:
        clauses.append(
            f"its reconstructions leave {quality.fvu:.2f} of the variance unexplained (FVU)"
        )
    return clauses
