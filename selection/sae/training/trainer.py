"""State of a training: parameters, Adam, when a latent was last active; resumes to the bit."""

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.metadata import SaeInfo
from selection.sae.training.pursuit import pursuit_gradient
from selection.sae.training.settings import StepMetrics, TrainReport, TrainSettings
from selection.sae.training.step import Parameters, StepResult, loss_and_gradient

log = logging.getLogger(__name__)

_WINDOW = 100  # steps that the reported training quality is the mean of
_CURVE_POINTS = 200


def _topk(p: Parameters, x: Tensor, k: int, dead: Tensor, s: TrainSettings) -> StepResult:
    per_batch = s.architecture != "topk"
    return loss_and_gradient(p, x, k, dead, s.auxk_alpha, per_batch=per_batch, widths=s.widths)


def _pursuit(p: Parameters, x: Tensor, k: int, dead: Tensor, s: TrainSettings) -> StepResult:
    return pursuit_gradient(p, x, k, dead, s.auxk_alpha, _rest(s, x.shape[1]))


_STEPS: Mapping[str, Callable[[Parameters, Tensor, int, Tensor, TrainSettings], StepResult]] = {
    "topk": _topk,
    "batchtopk": _topk,
    "matryoshka": _topk,
    "matching_pursuit": _pursuit,
}
"""By architecture: loss and gradient of a batch, for k and the dead latents."""
_TIED = ("matching_pursuit",)
"""Architectures without an encoder of their own."""


class Trainer:
    """A training in progress, on the device of its first batch."""

    def __init__(self, settings: TrainSettings, first: Tensor) -> None:
        """Initialize from the first batch (n, D): its mean and its median distance from it."""
        self.settings, self.d_in = settings.resolved(), first.shape[-1]
        assert self.settings.dead_after_tokens is not None, "resolved settings have no gaps"
        self.dead_after = self.settings.dead_after_tokens
        self.peak_rate = self.settings.learning_rate or 0.0  # semi-NMF has none
        self.n_steps = self.n_tokens = self.n_skipped = 0
        self.recent: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self.curve: list[tuple[float, ...]] = []
        self.cuts: deque[float] = deque(maxlen=max(1, self.settings.n_steps // 10))
        x = _checked(first, self.d_in)
        mean = x.mean(0)
        distance = float((x - mean).norm(dim=1).median())
        self.scale = math.sqrt(self.d_in) / distance if distance > 0 else 1.0
        generator = torch.Generator().manual_seed(settings.seed)
        rows = torch.empty(settings.num_latents, self.d_in)
        rows = rows.uniform_(-1, 1, generator=generator).to(x.device) / math.sqrt(self.d_in)
        unit = rows / rows.norm(dim=1, keepdim=True)
        encoder = rows[:0] if settings.architecture in _TIED else rows
        biases = torch.zeros(len(encoder), device=x.device)
        self.parameters = Parameters(encoder, biases, unit, mean * self.scale)
        self.center = mean * self.scale
        self.tokens_since_active = torch.zeros(len(rows), dtype=torch.int64, device=x.device)
        self.adam = torch.optim.Adam(self.parameters.tensors(), lr=self.peak_rate, fused=True)

    def step(self, batch: Tensor) -> StepMetrics:
        """Train on one batch (n, D) and count it; a batch without usable tokens changes nothing."""
        x = _checked(batch, self.d_in) * self.scale
        usable = self.usable(x)
        self.n_steps += 1
        self.n_tokens += len(batch)
        self.n_skipped += len(batch) - int(usable.sum())
        x = x if bool(usable.all()) else x[usable]
        dead = self.dead()
        lr = self._lr()
        if not len(x):
            return StepMetrics(self.n_steps, 0, 0.0, 0.0, 0.0, int(dead.sum()), lr)
        s, k = self.settings, self.settings.k_at(self.n_steps)
        result = self.learn(x, k, dead, lr)
        self._follow(result.smallest, k)
        self.tokens_since_active += len(x)
        self.tokens_since_active[result.live] = 0
        self.recent.append((result.fvu, result.l0))
        if self.n_steps % -(-s.n_steps // _CURVE_POINTS) == 0 or self.n_steps == 1:
            n_dead = int(self.dead().sum())
            self.curve.append((self.n_steps, result.fvu, result.l0, n_dead / s.num_latents, k))
        return StepMetrics(
            self.n_steps, len(x), result.fvu, result.auxk, result.l0, int(dead.sum()), lr
        )

    def usable(self, x: Tensor) -> Tensor:
        """(n,) bool: tokens x (n, D), scaled, that are neither too far from the mean nor NaN."""
        limit = self.settings.max_norm_ratio * math.sqrt(self.d_in)
        return (x - self.center).norm(dim=1) <= limit

    def learn(self, x: Tensor, k: int, dead: Tensor, lr: float) -> StepResult:
        """Change the parameters by what one batch x (n, D), scaled, says."""
        s = self.settings
        result = _STEPS[s.architecture](self.parameters, x, k, dead, s)
        self._update(result, lr)
        return result

    def state(self) -> list[Tensor]:
        """What `learn` changes beside Adam's moments, in a fixed order."""
        return self.parameters.tensors()

    def dead(self) -> Tensor:
        """(M,) bool: latents that did not fire within `dead_after_tokens`."""
        return self.tokens_since_active >= self.dead_after

    def coder(self) -> SparseCoder:
        """The trained coder, for activations as they come: the scale goes into the biases."""
        p, s = self.parameters, self.settings
        info = SaeInfo("", None, self.d_in, s.num_latents, s.k)
        threshold = self._threshold()
        if threshold is not None:
            info = replace(
                info, activation="jumprelu", k=0, declared_l0=float(s.k), family="saelens"
            )
        if s.architecture == "matching_pursuit":
            info = replace(
                info,
                activation=s.architecture,
                declared_l0=self.mean_l0() or None,
                family="saelens",
                residual_threshold=_rest(s, self.d_in) / self.scale,
            )
            p = Parameters(p.w_dec, p.w_dec.new_zeros(len(p.w_dec)), p.w_dec, p.b_dec)
        return make_coder(
            p.w_enc.cpu(),
            p.b_enc.cpu() / self.scale,
            p.w_dec.cpu(),
            p.b_dec.cpu() / self.scale,
            info=info,
            threshold=None if threshold is None else torch.full((len(p.w_enc),), threshold),
        )

    def mean_l0(self) -> float:
        """Active latents per token in the last steps."""
        return sum(l0 for _, l0 in self.recent) / max(1, len(self.recent))

    def _threshold(self) -> float | None:
        """In the units of activations as they come: the mean of what the last steps cut at.

        The last tenth of the steps, where the rate has fallen: a slower mean lags behind the
        weights.
        """
        if self.settings.architecture not in ("batchtopk", "matryoshka"):
            return None
        return sum(self.cuts) / max(1, len(self.cuts)) / self.scale

    def _follow(self, smallest: float | None, k: int) -> None:
        """Keep the smallest value that a step kept.

        Only of steps with the final k: earlier ones keep more, and smaller ones.
        """
        if smallest is not None and math.isfinite(smallest) and k == self.settings.k:
            self.cuts.append(smallest)

    def report(self, seconds: float) -> TrainReport:
        """Counts and training quality so far."""
        n = max(1, len(self.recent))
        return TrainReport(
            self.settings,
            n_steps=self.n_steps,
            n_tokens=self.n_tokens,
            n_skipped_tokens=self.n_skipped,
            fvu=sum(fvu for fvu, _ in self.recent) / n,
            l0=self.mean_l0(),
            dead_share=float(self.dead().float().mean()),
            seconds=seconds,
            input_scale=self.scale,
            threshold=self._threshold(),
            curve=tuple(self.curve),
        )

    def save(self, file: Path) -> None:
        """Write the whole state so that `file` is the old one or the new one, never half."""
        state = {
            "settings": self.settings.model_dump(),
            "cuts": list(self.cuts),
            "curve": [list(point) for point in self.curve],
            "counts": [self.n_steps, self.n_tokens, self.n_skipped],
            "recent": [list(pair) for pair in self.recent],
            "scale": self.scale,
            "center": self.center,
            "parameters": self.state(),
            "tokens_since_active": self.tokens_since_active,
            "adam": self.adam.state_dict(),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        temp = file.with_name(f".tmp-{os.getpid()}-{file.name}")
        with temp.open("wb") as out:
            torch.save(state, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temp, file)

    def _update(self, result: StepResult, lr: float) -> None:
        """One step of Adam; decoder rows move across themselves only and stay at unit norm."""
        w_dec, gradient = self.parameters.w_dec, result.gradient
        along = (gradient.w_dec * w_dec).sum(1, keepdim=True)
        gradient.w_dec.sub_(along * w_dec)
        for tensor, its_gradient in zip(self.parameters.tensors(), gradient.tensors(), strict=True):
            tensor.grad = its_gradient
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        w_dec.div_(w_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(w_dec.dtype).tiny))

    def _lr(self) -> float:
        """Rate of the current step: up over the warm-up, down over the last share of the steps."""
        s = self.settings
        rise = self.n_steps / max(1, s.warmup_steps)
        fall = (s.n_steps - self.n_steps + 1) / max(1.0, s.decay_share * s.n_steps)
        return self.peak_rate * min(1.0, rise, fall)


def load_trainer(
    file: Path, first: Tensor, settings: TrainSettings, kind: type[Trainer] = Trainer
) -> Trainer:
    """Continue what `Trainer.save` wrote, on the device of `first`.

    Raises InputError when the file is damaged or was made with other settings.
    """
    try:
        state = torch.load(file, map_location=first.device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            file=file,
            remedy="Delete it; the training then starts from the beginning.",
        ) from None
    before, wanted = state["settings"], settings.resolved().model_dump()
    keys = {**before, **wanted}  # An older version may have had others.
    other = {key: before.get(key) for key in keys if before.get(key) != wanted.get(key)}
    if other:
        raise InputError(
            f"the checkpoint is of a training with other settings ({', '.join(sorted(other))})",
            file=file,
            value=other,
            remedy="Delete it to start anew, or go back to those settings.",
        )
    trainer = kind(settings, first)
    trainer.n_steps, trainer.n_tokens, trainer.n_skipped = state["counts"]
    trainer.recent.extend((fvu, l0) for fvu, l0 in state["recent"])
    trainer.cuts.extend(state["cuts"])
    trainer.curve = [tuple(point) for point in state["curve"]]
    trainer.scale, trainer.center = state["scale"], state["center"]
    for tensor, saved in zip(trainer.state(), state["parameters"], strict=True):
        tensor.copy_(saved)
    trainer.tokens_since_active.copy_(state["tokens_since_active"])
    trainer.adam.load_state_dict(state["adam"])
    log.info("continuing the SAE training after step %d", trainer.n_steps)
    return trainer


def _rest(s: TrainSettings, d_in: int) -> float:
    """Norm of what may be left over, of activations whose median norm is sqrt(D)."""
    return (s.residual_threshold or 0.0) * math.sqrt(d_in)


def _checked(batch: Tensor, d_in: int) -> Tensor:
    if batch.ndim != 2 or batch.shape[1] != d_in:
        raise ValueError(f"a batch has shape {tuple(batch.shape)}, expected (n, {d_in})")
    return batch.detach().to(torch.float32)
