"""Train a sparse autoencoder on a stream of activations; resumable to the bit.

Recipe: the encoder starts as torch's nn.Linear does, the decoder at the same rows brought to unit
norm, its bias at the mean of the first batch; Adam with warm-up and a linear end; AuxK for latents
that stopped firing; decoder rows stay at unit norm. While training, activations are scaled to a
median norm of sqrt(D). TopK, BatchTopK (which selects afterwards by a threshold of its last steps)
or Matryoshka; matching pursuit; or a semi-NMF or a codebook, see `seminmf` and `codebook`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder
from selection.sae.training.codebook import CodebookTrainer
from selection.sae.training.seminmf import SemiNmfTrainer
from selection.sae.training.settings import StepMetrics, TrainReport, TrainSettings
from selection.sae.training.trainer import Trainer, load_trainer

log = logging.getLogger(__name__)

_TRAINERS: Mapping[str, type[Trainer]] = {"seminmf": SemiNmfTrainer, "codebook": CodebookTrainer}
"""By architecture, where a step is another than that of an SAE with decoder rows of norm 1."""


def train_sae(
    batches: Iterable[Tensor],
    settings: TrainSettings,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    batches_skipped: int = 0,
    on_step: Callable[[StepMetrics], object] | None = None,
) -> tuple[SparseCoder, TrainReport]:
    """Train on batches (n, D) of float activations, in the order given, on their device.

    checkpoint: file to continue from if it is there, written every `checkpoint_every` steps. The
                same batches must come again: those used already are passed over, except the first
                `batches_skipped`, which the caller has left out (see `steps_done`). An interrupted
                training ends in the same bytes as an uninterrupted one (same environment and
                thread count, CPU).
    Batches that end before n_steps end the training, with a warning. The coder is on the CPU; what
    it was trained on is for the caller to record (`SparseCoder.trained_on`).
    Raises InputError when there are no activations or a checkpoint belongs to other settings;
    ValueError for another width.
    """
    started = time.perf_counter()
    first, stream = _peek(batches)
    kind = _TRAINERS.get(settings.architecture, Trainer)
    if checkpoint is not None and checkpoint.exists():
        trainer = load_trainer(checkpoint, first, settings, kind)
    else:
        trainer = kind(settings, first)
    to_do = islice(stream, max(0, trainer.n_steps - batches_skipped), None)
    for batch in islice(to_do, max(0, trainer.settings.n_steps - trainer.n_steps)):
        metrics = trainer.step(batch)
        if on_step is not None:
            on_step(metrics)
        if checkpoint is not None and metrics.step % checkpoint_every == 0:
            trainer.save(checkpoint)
    if checkpoint is not None:
        trainer.save(checkpoint)
    if trainer.n_steps < trainer.settings.n_steps:
        log.warning(
            "the activations ended after %d of %d steps", trainer.n_steps, trainer.settings.n_steps
        )
    return trainer.coder(), trainer.report(time.perf_counter() - started)


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
