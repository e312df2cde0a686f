"""Training on what a model does with samples: an endless stream of batches of activations."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.batching import iter_activations
from selection.activations.model import ActivationModel
from selection.records import Rendered
from selection.sae.coder import SparseCoder
from selection.sae.training.settings import TrainReport, TrainSettings
from selection.sae.training.train import steps_done, train_sae

BLOCK_SAMPLES = 512  # Samples whose tokens are shuffled together.
TOKENS_PER_BATCH = 8192  # Of the forward pass; the SAE's own batch is a setting.


def token_batches(
    model: ActivationModel,
    samples: Callable[[NDArray[np.int64]], list[Rendered]],
    n_content: NDArray[np.int64],
    batch_tokens: int,
    seed: int,
    skip: int = 0,
) -> Iterator[torch.Tensor]:
    """Endless batches (batch_tokens, d_model) of content tokens' activations, after `skip` others.

    samples:   rendered samples by their numbers. n_content: (n,) content tokens of each; samples
               without any are left out.
    Samples are expected in an order that says nothing of them, such as that of their ids. Tokens
    are shuffled within a block, and the part of a block that fills no batch is left out. What is
    skipped costs no forward pass.
    """
    usable = np.flatnonzero(n_content)
    for epoch in count():
        for first in range(0, len(usable), BLOCK_SAMPLES):
            rows = usable[first : first + BLOCK_SAMPLES]
            n_batches = int(n_content[rows].sum()) // batch_tokens
            if n_batches == 0 and len(usable) <= BLOCK_SAMPLES:
                n_batches = 1  # A pool smaller than one batch: all of it is the batch.
            if skip >= n_batches:
                skip -= n_batches
                continue
            parts = [b.hidden for b in iter_activations(model, samples(rows), TOKENS_PER_BATCH)]
            tokens = torch.cat(parts)
            order = np.random.default_rng([seed, epoch, first]).permutation(len(tokens))
            tokens = tokens[torch.from_numpy(order).to(tokens.device)]
            batches = tokens[: n_batches * batch_tokens].split(batch_tokens)
            yield from batches[skip:]
            skip = 0


def train_on_samples(
    model: ActivationModel,
    samples: Callable[[NDArray[np.int64]], list[Rendered]],
    n_content: NDArray[np.int64],
    settings: TrainSettings,
    checkpoint: Path,
    advance: Callable[[int], object],
) -> tuple[SparseCoder, TrainReport]:
    """Train on a model's activations over samples, from where the checkpoint ends.

    samples, n_content: as for `token_batches`. advance: called with 1 after each step.
    """
    skipped = steps_done(checkpoint)
    return train_sae(
        token_batches(model, samples, n_content, settings.batch_tokens, settings.seed, skipped),
        settings,
        checkpoint=checkpoint,
        batches_skipped=skipped,
        on_step=lambda _: advance(1),
    )
