"""A language model as it is trained: whole, frozen, with small low-rank adapters that learn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.loading import (
    DTYPES,
    find_blocks,
    find_device,
    load_config,
    load_module,
    refuse_encoder,
)
from selection.core.errors import InputError
from selection.models.resolve import ResolvedModel
from selection.records import Rendered

TOKENS_PER_BATCH = 2048
LEAVE_OUT = "Name a causal language model, or leave `less` and `loss_drop` out."


class LowRank(torch.nn.Module):
    """A frozen linear map with a low-rank one beside it (LoRA), float32; it begins as the base."""

    def __init__(self, base: torch.nn.Module, rank: int, scale: float) -> None:
        """base: an `nn.Linear`, or a `Conv1D` of transformers, whose weight lies the other way."""
        super().__init__()
        d_out, d_in = base.weight.shape  # type: ignore[misc]
        if not isinstance(base, torch.nn.Linear):
            d_in, d_out = d_out, d_in
        self.base, self.scale = base, scale
        self.down = torch.nn.Linear(int(d_in), rank, bias=False)
        self.up = torch.nn.Linear(rank, int(d_out), bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The base's output and what is learned on top of it."""
        out: torch.Tensor = self.base(x)
        learned: torch.Tensor = self.up(self.down(x.float()))
        return out + (self.scale * learned).to(out.dtype)


@dataclass(frozen=True)
class AdaptedModel:
    """A causal language model in evaluation mode; only `layers` learn.

    layers: name -> linear map of an adapter, in the order of the blocks.
    """

    module: torch.nn.Module
    layers: Mapping[str, torch.nn.Linear]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.module.parameters()).device

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of what has been learned, by layer."""
        return {name: layer.weight.detach().clone() for name, layer in self.layers.items()}

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put `weights()` back."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(weights[name])

    def losses(self, samples: Sequence[Rendered]) -> torch.Tensor:
        """(b,) mean loss of each sample's response tokens; one forward pass, padded on the right.

        Every sample must have a response, see `answers`. The head reads response tokens only.
        """
        device, width = self.device, max(len(sample.tokens) for sample in samples)
        ids = np.zeros((len(samples), width), np.int64)
        for row, sample in zip(ids, samples, strict=True):
            row[: len(sample.tokens)] = sample.tokens
        at = [predictors(sample) for sample in samples]
        rows = np.repeat(np.arange(len(samples)), [len(each) for each in at])
        flat = rows * width + np.concatenate(at)
        expected = torch.from_numpy(ids.reshape(-1)[flat + 1]).to(device)
        with _head_reads(self.module, torch.from_numpy(flat).to(device)):
            logits = self.module(input_ids=torch.from_numpy(ids).to(device), use_cache=False).logits
        each = torch.nn.functional.cross_entropy(logits[0].float(), expected, reduction="none")
        owner = torch.from_numpy(rows).to(device)
        totals = torch.zeros(len(samples), device=device).index_add(0, owner, each)
        return totals / torch.bincount(owner, minlength=len(samples))


def load_adapted(
    resolved: ResolvedModel, rank: int, alpha: float, device: str = "auto", dtype: str = "auto"
) -> AdaptedModel:
    """Load a causal language model whole and add adapters to the attention of every block.

    Raises InputError for an encoder, and for weights without the head.
    """
    refuse_encoder(resolved, "--model", LEAVE_OUT)
    where = find_device(device)
    if dtype == "auto":
        dtype = "bfloat16" if where.type == "cuda" else "float32"
    module = load_module(resolved, load_config(resolved), DTYPES[dtype], with_head=True)
    module = module.to(where).eval().requires_grad_(False)
    blocks = find_blocks(module, resolved.n_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = add_adapters(blocks, rank, alpha)
    return AdaptedModel(module.to(where), layers)


def add_adapters(
    blocks: torch.nn.ModuleList, rank: int, alpha: float
) -> dict[str, torch.nn.Linear]:
    """Put a `LowRank` around every linear map of the blocks' attention; returns what learns.

    Blocks whose attention is not called so get adapters on all their linear maps.
    """
    linear = [name for name, part in blocks.named_modules() if _is_linear(part)]
    chosen = [name for name in linear if "attn" in name or "attention" in name] or linear
    if not chosen:
        raise InputError(
            "the model's blocks have no linear maps that an adapter could stand beside",
            value=type(blocks[0]).__name__,
            remedy="Leave `less` and `loss_drop` out for this model.",
        )
    layers: dict[str, torch.nn.Linear] = {}
    for name in chosen:
        parent, _, own = name.rpartition(".")
        base = blocks.get_submodule(name)
        adapter = LowRank(base, rank, alpha / rank).to(base.weight.device)  # type: ignore[arg-type]
        setattr(blocks.get_submodule(parent), own, adapter)
        layers |= {f"{name}.down": adapter.down, f"{name}.up": adapter.up}
    return layers


def _is_linear(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.Linear) or type(part).__name__ == "Conv1D"


def predictors(sample: Rendered) -> NDArray[np.int64]:
    """Positions whose next token is part of the response; the first token is never predicted."""
    return np.flatnonzero(sample.content_mask[1:])


def answers(samples: Sequence[Rendered]) -> NDArray[np.int64]:
    """Which samples have a response to predict."""
    return np.flatnonzero([bool(sample.content_mask[1:].any()) for sample in samples])


def batches(samples: Sequence[Rendered], rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows, shortest first, as many together as TOKENS_PER_BATCH takes, padding included."""
    batch: list[int] = []
    for row in sorted(rows.tolist(), key=lambda each: len(samples[each].tokens)):
        if batch and (len(batch) + 1) * len(samples[row].tokens) > TOKENS_PER_BATCH:
            yield np.array(batch)
            batch = []
        batch.append(row)
    if batch:
        yield np.array(batch)


@torch.no_grad()
def mean_losses(trainee: AdaptedModel, samples: Sequence[Rendered]) -> NDArray[np.float64]:
    """(n,) mean loss of each sample's response tokens; NaN without a response."""
    losses = np.full(len(samples), np.nan)
    for rows in batches(samples, answers(samples)):
        losses[rows] = trainee.losses([samples[row] for row in rows.tolist()]).cpu().numpy()
    return losses


@contextmanager
def _head_reads(module: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Inside, the head gets these positions of the batch, side by side, in one row."""
    head: torch.nn.Module = module.get_output_embeddings()  # type: ignore[operator]

    def choose(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        return (hidden.index_select(0, positions)[None], *inputs[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
