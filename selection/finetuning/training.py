"""A short training run: AdamW over samples in an order that the seed decides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from selection.activations.batching import batch_plan
from selection.finetuning.budgets import steps_of
from selection.finetuning.trainee import Trainee
from selection.records import Rendered

_MICRO_TOKENS = 1024  # Padded tokens of one backward pass; a step adds its passes up.


@dataclass(frozen=True)
class TrainSettings:
    """Of every run of a comparison alike.

    learning_rate: highest; it rises over the first tenth of the steps and then falls to zero.
    step_tokens:   tokens of one step, about.
    """

    learning_rate: float = 3e-4
    step_tokens: int = 512
    max_norm: float = 1.0


def train(
    trainee: Trainee, samples: Sequence[Rendered], settings: TrainSettings, seed: int
) -> None:
    """Train the first weights on every sample once; only response tokens give a loss.

    The token behind a response, which ends the turn, is learnt with it.
    """
    trainee.reset()
    torch.manual_seed(seed)
    learnt = [_with_end(sample) for sample in samples]
    lengths = [len(sample.tokens) for sample in samples]
    steps = steps_of(lengths, max(1, round(sum(lengths) / settings.step_tokens)), seed)
    optimizer = torch.optim.AdamW(trainee.trained, lr=settings.learning_rate, weight_decay=0.0)
    trainee.model.train()
    for number, positions in enumerate(steps):
        rate = settings.learning_rate * schedule(number, len(steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        _step(trainee, [learnt[i] for i in positions.tolist()])
        torch.nn.utils.clip_grad_norm_(trainee.trained, settings.max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def schedule(step: int, n_steps: int) -> float:
    """Share of the learning rate at a step: up over the first tenth, down to the end."""
    n_up = max(1, n_steps // 10)
    return min((step + 1) / n_up, (n_steps - step) / max(1, n_steps - n_up))


def _step(trainee: Trainee, samples: Sequence[Rendered]) -> None:
    """Add the gradients of the mean loss over all response tokens of a step."""
    n = sum(int(sample.content_mask[1:].sum()) for sample in samples)
    for batch in batch_plan(np.array([len(each.tokens) for each in samples]), _MICRO_TOKENS):
        logits, wanted, counts = trainee.logits([samples[i] for i in batch])
        if counts.any():
            loss = cross_entropy(logits[counts].float(), wanted[counts], reduction="sum") / n
            loss.backward()


def _with_end(sample: Rendered) -> Rendered:
    mask = sample.content_mask.copy()
    mask[1:] |= sample.content_mask[:-1]
    return replace(sample, content_mask=np.asarray(mask))
