"""One gradient per sample, as Adam would step on it, projected to a few thousand dimensions.

Adapters are linear maps, so a sample's gradient is the sum over its tokens of (gradient of the
output) x (input): one backward pass gives those of a whole batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.evaluation.influence.adapted import AdaptedModel, answers, batches
from selection.evaluation.influence.warm_up import BETAS, EPS, AdamState
from selection.records import Rendered


def sample_gradients(
    trainee: AdaptedModel, samples: Sequence[Rendered]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Layer by layer (name, (b, d_out, d_in)) gradients of each sample's own mean loss."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(_: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = (inputs[0].detach(), output)

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in trainee.layers.items()]
    try:
        total = trainee.losses(samples).sum()
    finally:
        for handle in handles:
            handle.remove()
    outputs = torch.autograd.grad(total, [output for _, output in seen.values()])
    for (name, (inputs, _)), output in zip(seen.items(), outputs, strict=True):
        yield name, output.transpose(1, 2) @ inputs


def adam_direction(
    gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, step: int
) -> torch.Tensor:
    """Adam's next update, without the learning rate, if this were the gradient of step + 1."""
    mean = (BETAS[0] * first + (1 - BETAS[0]) * gradient) / (1 - BETAS[0] ** (step + 1))
    square = (BETAS[1] * second + (1 - BETAS[1]) * gradient**2) / (1 - BETAS[1] ** (step + 1))
    return mean / (square.sqrt() + EPS)


@dataclass(frozen=True)
class Projection:
    """A seeded random map of n values to k sums: every value has a random sign and a random sum.

    All sums have equally many values. An inner product of vectors of length 1 keeps its
    expectation, and its standard deviation over seeds is at most sqrt(2 / k).
    """

    order: torch.Tensor
    signs: torch.Tensor
    k: int

    @classmethod
    def seeded(cls, n: int, k: int, seed: Sequence[int], device: torch.device) -> "Projection":
        """The same map for the same n, k and seed, on any device."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(-(-n // k) * k)  # positions from n on hold 0
        signs = rng.integers(0, 2, n).astype(np.float32) * 2 - 1
        return cls(torch.from_numpy(order).to(device), torch.from_numpy(signs).to(device), k)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """(b, k) of (b, n)."""
        signed = values * self.signs
        padding = len(self.order) - len(self.signs)
        full = torch.nn.functional.pad(signed, (0, padding))
        return full[:, self.order].reshape(len(values), -1, self.k).sum(1)


def projections(trainee: AdaptedModel, k: int, seed: int) -> dict[str, Projection]:
    """A map for each layer; the sums of all layers are added up."""
    return {
        name: Projection.seeded(layer.weight.numel(), k, (seed, number), layer.weight.device)
        for number, (name, layer) in enumerate(trainee.layers.items())
    }


def projected_gradients(
    trainee: AdaptedModel,
    samples: Sequence[Rendered],
    maps: dict[str, Projection],
    states: Sequence[AdamState | None],
) -> NDArray[np.float32]:
    """(states, n, k) gradients of length 1, one per sample; 0 where there is no response.

    states: gradients become the steps of this Adam; None leaves them as they are.
    """
    k = next(iter(maps.values())).k
    features = np.zeros((len(states), len(samples), k), np.float32)
    for rows in batches(samples, answers(samples)):
        totals = torch.zeros(len(states), len(rows), k, device=trainee.device)
        for name, gradient in sample_gradients(trainee, [samples[row] for row in rows.tolist()]):
            for total, adam in zip(totals, states, strict=True):
                step = gradient
                if adam is not None:
                    moments = adam.first[name], adam.second[name]
                    step = adam_direction(gradient, *moments, adam.step)
                total += maps[name](step.flatten(1))
        features[:, rows] = torch.nn.functional.normalize(totals, dim=2).cpu().numpy()
    return features
