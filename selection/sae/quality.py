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


class QualitySums:
    """Sums over the tokens of an SAE's input seen so far, from which its quality follows.

    They are in float64 around the first batch's mean, so that a large mean does not swallow the
    variance.
    """

    def __init__(self, coder: SparseCoder) -> None:
        """No tokens yet; all sums are on the coder's device."""
        n_latents, d_in = coder.encoder_weight.shape
        device = coder.encoder_weight.device
        self._coder = coder
        self._around: Tensor | None = None
        self._total = torch.zeros(d_in, dtype=torch.float64, device=device)
        self._squares = torch.zeros((), dtype=torch.float64, device=device)
        self._error, self._n_active = torch.zeros_like(self._squares), self._squares.clone()
        self._active_once = torch.zeros(n_latents, dtype=torch.bool, device=device)
        self.n_tokens = 0

    def add(self, batch: Tensor) -> None:
        """Add a batch (n, D) of float activations; one that raises for lack of memory adds none."""
        x = batch.detach().to(torch.float32)
        latents = encode(self._coder, x)
        if self._around is None:
            self._around = x.mean(0)
        centered, error = (x - self._around).double(), torch.zeros_like(self._error)
        total, squares = centered.sum(0), centered.square().sum()
        if not self._coder.info.is_transcoder:
            error = (reconstruct(self._coder, latents, x) - x).double().square().sum()
        active = latents.top_acts > 0
        self._active_once[latents.top_indices[active]] = True
        n_active = active.sum()
        self._total += total
        self._squares += squares
        self._error += error
        self._n_active += n_active
        self.n_tokens += len(x)

    def quality(self) -> SaeQuality:
        """Of all batches. Raises InputError when there are no tokens or all of them are equal."""
        variance = float(self._squares - self._total.square().sum() / max(1, self.n_tokens))
        if not variance > 0:
            raise InputError(
                "the SAE's quality needs at least two different tokens",
                value=self.n_tokens,
                remedy="Measure on more text.",
            )
        return SaeQuality(
            fvu=None if self._coder.info.is_transcoder else float(self._error) / variance,
            l0=float(self._n_active) / self.n_tokens,
            dead_share=1 - float(self._active_once.sum()) / len(self._active_once),
            n_tokens=self.n_tokens,
        )


def measure(coder: SparseCoder, batches: Iterable[Tensor]) -> SaeQuality:
    """Measure on batches (n, D) of float activations; see `QualitySums`. Raises InputError."""
    sums = QualitySums(coder)
    for batch in batches:
        sums.add(batch)
    return sums.quality()


L0_TOLERANCE = 0.5
FVU_LIMIT = 0.9
FVU_ABSURD = 10.0


def is_wrong(info: SaeInfo, quality: SaeQuality) -> bool:
    """Whether active latents are more than half off what was published, or FVU is absurd.

    Ten times the variance: even another model's activations are not that far off.
    """
    expected, fvu = info.declared_l0, quality.fvu
    misses = expected is not None and abs(quality.l0 - expected) > L0_TOLERANCE * expected
    return misses or (fvu is not None and not fvu < FVU_ABSURD)


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
