"""A short training of a trainee's adapters, and the state that Adam has then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from selection.evaluation.influence.adapted import AdaptedModel, answers, batches
from selection.records import Rendered

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class WarmUp:
    """How adapters are trained: Adam without weight decay, rate falling linearly to 0."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int = 0


@dataclass(frozen=True)
class AdamState:
    """Adam's running means of gradients and of their squares, by layer, after `step` steps."""

    first: Mapping[str, torch.Tensor]
    second: Mapping[str, torch.Tensor]
    step: int

    def without_first(self) -> "AdamState":
        """The same without the mean of earlier gradients, which all steps would share."""
        zeros = {name: torch.zeros_like(mean) for name, mean in self.first.items()}
        return AdamState(zeros, self.second, self.step)


def warm_up(trainee: AdaptedModel, samples: Sequence[Rendered], settings: WarmUp) -> AdamState:
    """Train the adapters on the responses of all samples that have one; samples weigh the same."""
    rows = answers(samples)
    rng = np.random.default_rng(settings.seed)
    steps = settings.epochs * -(-len(rows) // settings.batch)
    parameters = [layer.weight for layer in trainee.layers.values()]
    optimizer = torch.optim.Adam(parameters, settings.learning_rate, BETAS, EPS)
    done = 0
    for _ in range(settings.epochs):
        shuffled = rng.permutation(rows)
        for first in range(0, len(shuffled), settings.batch):
            chosen = shuffled[first : first + settings.batch]
            for part in batches(samples, chosen):  # what fits memory; gradients add up
                losses = trainee.losses([samples[row] for row in part.tolist()])
                (losses.sum() / len(chosen)).backward()
            optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - done / steps)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
    state = [optimizer.state[weight] for weight in parameters]
    return AdamState(
        {name: each["exp_avg"] for name, each in zip(trainee.layers, state, strict=True)},
        {name: each["exp_avg_sq"] for name, each in zip(trainee.layers, state, strict=True)},
        done,
    )
