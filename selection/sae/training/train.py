"""Train a sparse autoencoder on a stream of activations; resumable to the bit.

Recipe: encoder and decoder start tied at random unit rows, the decoder bias at the mean of the
first batch; Adam with warm-up and a linear end; AuxK for latents that stopped firing; decoder rows
stay at unit length. While training, activations are scaled to a median length of sqrt(D). TopK,
BatchTopK (with a running threshold, by which it selects afterwards) or Matryoshka.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder
from selection.sae.metadata import SaeInfo
from selection.sae.training.settings import StepMetrics, TrainReport, TrainSettings
from selection.sae.training.trainer import Trainer, load_trainer

__all__ = ["StepMetrics", "TrainReport", "TrainSettings", "shuffled", "steps_done", "train_sae"]

log = logging.getLogger(__name__)


def train_sae(
    batches: Iterable[Tensor],
    *,
    d_in: int,
    num_latents: int,
    k: int,
    n_steps: int | None = None,
    n_tokens: int | None = None,
    lr: float | None = None,
    warmup_steps: int = 1000,
    decay_share: float = 0.2,
    auxk_alpha: float = 1 / 32,
    dead_after_tokens: int | None = None,
    max_norm_ratio: float = 10.0,
    seed: int = 0,
    architecture: str = "topk",
    widths: Sequence[int] = (),
    k_start: int | None = None,
    k_anneal_share: float = 0.0,
    threshold_rate: float = 0.01,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    batches_skipped: int = 0,
    on_step: Callable[[StepMetrics], None] | None = None,
    hookpoint: str | None = None,
    model_name: str | None = None,
    model_sha256: str | None = None,
) -> tuple[SparseCoder, TrainReport]:
    """Train on batches (n, D) of float activations, in the order given, on their device.

    n_steps, n_tokens: how long; give one. Tokens are counted in batches as large as the first.
    lr:                default 2e-4 / sqrt(num_latents / 2^14).
    warmup_steps:      at most a tenth of the steps is used.
    dead_after_tokens: default a twentieth of all tokens, at most 10 million.
    architecture, widths, k_start, k_anneal_share, threshold_rate: see TrainSettings. Widths are of
                       "matryoshka" alone; default a sixteenth, a quarter and all of the latents.
    checkpoint:        file to continue from if it is there, written every `checkpoint_every`
                       steps. The same batches must come again: those used already are passed
                       over, except the first `batches_skipped`, which the caller has left out
                       (see `steps_done`). An interrupted training ends in the same bytes as an
                       uninterrupted one (same environment and thread count, CPU).
    hookpoint, model_name, model_sha256: recorded in the coder's info.
    Batches that end before n_steps end the training, with a warning. The coder is on the CPU.
    Raises InputError when there are no activations or a checkpoint belongs to other settings;
    ValueError for contradictory arguments or another width.
    """
    if (n_steps is None) == (n_tokens is None):
        raise ValueError("give either n_steps or n_tokens")
    if not 1 <= k <= num_latents:
        raise ValueError(f"k is {k}, expected 1 to num_latents ({num_latents})")
    started = time.perf_counter()
    widths = _widths(architecture, widths, num_latents)
    asked: dict[str, object] = {
        "d_in": d_in,
        "num_latents": num_latents,
        "k": k,
        "n_steps": n_steps,
        "n_tokens": n_tokens,
        "lr": lr,
        "warmup_steps": warmup_steps,
        "decay_share": decay_share,
        "auxk_alpha": auxk_alpha,
        "dead_after_tokens": dead_after_tokens,
        "max_norm_ratio": max_norm_ratio,
        "seed": seed,
        "architecture": architecture,
        "widths": list(widths),
        "k_start": k_start,
        "k_anneal_share": k_anneal_share,
        "threshold_rate": threshold_rate,
    }
    first, stream = _peek(batches)
    if checkpoint is not None and checkpoint.exists():
        trainer = load_trainer(checkpoint, first, asked)
    else:
        trainer = Trainer(_settings(asked, len(first)), first)
    to_do = islice(stream, max(0, trainer.n_steps - batches_skipped), None)
    for batch in islice(to_do, max(0, trainer.settings.n_steps - trainer.n_steps)):
        metrics = trainer.step(batch)
        if on_step is not None:
            on_step(metrics)
        if checkpoint is not None and metrics.step % checkpoint_every == 0:
            trainer.save(checkpoint, asked)
    if checkpoint is not None:
        trainer.save(checkpoint, asked)
    if trainer.n_steps < trainer.settings.n_steps:
        log.warning(
            "the activations ended after %d of %d steps", trainer.n_steps, trainer.settings.n_steps
        )
    info = SaeInfo("", hookpoint, d_in, num_latents, k, "topk", model_name, model_sha256)
    return trainer.coder(info), trainer.report(time.perf_counter() - started)


def steps_done(checkpoint: Path) -> int:
    """Batches that a checkpoint has used already; 0 when there is none."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["counts"][0])


def shuffled(
    batches: Iterable[Tensor], batch_tokens: int, buffer_tokens: int, seed: int
) -> Iterator[Tensor]:
    """Re-cut a stream of activations (n, D) into full batches of mixed tokens.

    Neighbouring tokens resemble each other, and a step should see variety: at least
    `buffer_tokens` are collected, shuffled, and half of them given out before more are read.
    Every token comes out once, except a last incomplete batch. Deterministic in the seed and the
    tokens' order.
    """
    generator = torch.Generator().manual_seed(seed)
    capacity = max(buffer_tokens, 2 * batch_tokens)
    held: list[Tensor] = []
    n_held = 0
    for batch in batches:
        held.append(batch)
        n_held += len(batch)
        if n_held >= capacity:
            mixed = _mixed(held, generator)
            n_out = n_held // 2 // batch_tokens * batch_tokens
            yield from mixed[:n_out].split(batch_tokens)
            held, n_held = [mixed[n_out:].clone()], n_held - n_out
    if n_held >= batch_tokens:
        mixed = _mixed(held, generator)
        yield from mixed[: n_held // batch_tokens * batch_tokens].split(batch_tokens)


def _mixed(held: list[Tensor], generator: torch.Generator) -> Tensor:
    tokens = torch.cat(held)
    return tokens[torch.randperm(len(tokens), generator=generator).to(tokens.device)]


def _peek(batches: Iterable[Tensor]) -> tuple[Tensor, Iterator[Tensor]]:
    """The first batch, and all of them again."""
    stream = iter(batches)
    first = next(stream, None)
    if first is None or not len(first):
        raise InputError(
            "there are no activations to train the SAE on",
            field="sae.train",
            remedy="Check that the pool has rows with counted tokens.",
        )
    return first, chain([first], stream)


def _widths(architecture: str, widths: Sequence[int], num_latents: int) -> tuple[int, ...]:
    """Widths of the nested SAEs, or () for one. Raises ValueError."""
    if architecture not in ("topk", "batchtopk", "matryoshka"):
        raise ValueError(f"no such architecture: {architecture}")
    if architecture != "matryoshka":
        if widths:
            raise ValueError(f"widths are for matryoshka, not for {architecture}")
        return ()
    found = tuple(widths) or (num_latents // 16, num_latents // 4, num_latents)
    if list(found) != sorted({*found}) or found[0] < 1 or found[-1] != num_latents:
        raise ValueError(f"widths are {found}, expected to rise from 1 or more to {num_latents}")
    return found


def _settings(asked: dict[str, object], n_first: int) -> TrainSettings:
    """Fill in what the caller left to the defaults."""
    given: dict[str, Any] = {
        key: value for key, value in asked.items() if value is not None and key != "n_tokens"
    }
    n_tokens, num_latents = asked["n_tokens"], cast(int, asked["num_latents"])
    n_steps = cast(int, asked["n_steps"] or math.ceil(cast(int, n_tokens) / n_first))
    given["widths"] = tuple(given["widths"])
    given["n_steps"] = n_steps
    given.setdefault("lr", 2e-4 / math.sqrt(num_latents / 2**14))
    given.setdefault("dead_after_tokens", max(1, min(10_000_000, n_steps * n_first // 20)))
    given["warmup_steps"] = min(given["warmup_steps"], max(1, n_steps // 10))
    return TrainSettings(**given)
