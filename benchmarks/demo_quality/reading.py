"""One forward pass, everything that is judged: block means and the SAE's stored vectors.

Samples go through the project's own renderer, model, encoder, aggregates and fixed point.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations import ActivationModel, load_activation_model
from selection.aggregate import TokenAggregate, aggregate_tokens, quantize
from selection.batching import ActivationBatch, iter_activations, needed_lengths
from selection.labelled import as_messages
from selection.model_loading import DTYPES, find_blocks, load_module, truncated_config
from selection.models import Hookpoint, ResolvedModel
from selection.records import Rendered, SparseRows
from selection.rendering import load_renderer
from selection.representation import calibrate
from selection.sae.encode import encode
from selection.sae.formats import SparseCoder
from selection.sparse import concatenate, empty, take
from storage.files import write_atomically

AGGREGATES: tuple[TokenAggregate, ...] = ("mean", "max")
CALIBRATION_TEXTS = files("selection") / "calibration" / "texts.jsonl"
CALIBRATION_MAX_LENGTH = 512  # tokens, as in the main job


@dataclass(frozen=True, slots=True)
class SampleVectors:
    """What a model makes of n samples.

    blocks: (n_blocks, n, d_model) float16, mean over counted tokens of every block's output; zeros
            for a sample without such tokens.
    sae:    stored vectors by aggregate, n rows each; empty without an SAE.
    """

    blocks: NDArray[np.float16]
    sae: dict[str, SparseRows]

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        arrays: dict[str, Any] = {"blocks": self.blocks}
        for name, rows in self.sae.items():
            arrays |= {f"{name}_indptr": rows.indptr, f"{name}_latents": rows.latents}
            arrays |= {f"{name}_values": rows.values, f"{name}_n_latents": rows.n_latents}

        def write(temp: Path) -> None:
            with temp.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)

        write_atomically(path, write)


def load_block(path: Path, block: int) -> NDArray[np.float32]:
    """Means (n, d_model) of one block from a file of SampleVectors."""
    with np.load(path) as stored:
        return np.asarray(stored["blocks"][block], np.float32)


def load_rows(path: Path, aggregate: str) -> SparseRows:
    """Stored vectors of one aggregate from a file of SampleVectors."""
    with np.load(path) as stored:
        return SparseRows(
            stored[f"{aggregate}_indptr"],
            stored[f"{aggregate}_latents"],
            stored[f"{aggregate}_values"],
            int(stored[f"{aggregate}_n_latents"]),
        )


class BlockReader:
    """A model read at the output of every block, and at one of them through an SAE."""

    def __init__(
        self,
        resolved: ResolvedModel,
        block: int,
        coder: SparseCoder | None,
        units: dict[str, float],
        *,
        dtype: str,
        max_tokens: int,
        tokens_per_batch: int,
    ) -> None:
        """Load the weights; `block` is the SAE's, `units` are from `calibrated_units`."""
        last = Hookpoint("resid", resolved.n_layers - 1)
        module = load_module(resolved, truncated_config(resolved, [last]), DTYPES[dtype]).eval()
        self.model = ActivationModel(module, resolved, [last])
        self.block, self.coder, self.units = block, coder, units
        self.tokens_per_batch = tokens_per_batch
        self.renderer = load_renderer(resolved.path, max_length=max_tokens)
        self._outputs: list[torch.Tensor] = []
        for layer in find_blocks(module, resolved.n_layers):
            layer.register_forward_hook(self._keep)

    def _keep(self, module: torch.nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401
        self._outputs.append(output if isinstance(output, torch.Tensor) else output[0])

    def read(self, turns: Sequence[tuple[str, str]]) -> SampleVectors:
        """Vectors of the samples, in their order."""
        samples = self.renderer.render_batch([(as_messages(pair), None) for pair in turns])
        resolved = self.model.resolved
        blocks = np.zeros((resolved.n_layers, len(samples), resolved.d_model), np.float16)
        parts: dict[str, list[SparseRows]] = {how: [] for how in self.units}
        places: list[NDArray[np.int64]] = []
        self._outputs.clear()
        for batch in iter_activations(self.model, samples, self.tokens_per_batch):
            outputs, self._outputs = self._outputs, []
            counted = _counted_places(samples, batch.rows, self.model.is_causal)
            for number, output in enumerate(outputs):
                states = output.reshape(-1, resolved.d_model)[counted].float()
                blocks[number, batch.rows] = _means(states, batch)
                if self.coder is not None and number == self.block:
                    for how, rows in _stored(self.coder, states, batch, self.units).items():
                        parts[how].append(rows)
            places.append(batch.rows)
        return SampleVectors(
            blocks, {how: _in_order(rows, places, len(samples)) for how, rows in parts.items()}
        )


def calibrated_units(
    resolved: ResolvedModel, block: int, coder: SparseCoder, *, dtype: str, tokens_per_batch: int
) -> dict[str, float]:
    """The fixed-point unit of each aggregate, from the project's calibration texts."""
    length = min(CALIBRATION_MAX_LENGTH, resolved.max_positions or CALIBRATION_MAX_LENGTH)
    renderer = load_renderer(resolved.path, max_length=length)
    lines = CALIBRATION_TEXTS.read_text(encoding="utf-8").splitlines()
    samples = renderer.render_batch([(json.loads(line)["messages"], None) for line in lines])
    model = load_activation_model(
        resolved, Hookpoint("resid", block), device="cpu", dtype=dtype, packing="padded"
    )
    return {
        how: calibrate(
            samples, model, coder, token_aggregate=how, tokens_per_batch=tokens_per_batch
        )
        for how in AGGREGATES
    }


def _counted_places(
    samples: Sequence[Rendered], rows: NDArray[np.int64], is_causal: bool
) -> torch.Tensor:
    """Where the counted tokens are in a batch's outputs when all positions are laid end to end."""
    width = int(needed_lengths([samples[row] for row in rows], is_causal).max())
    places = [i * width + np.flatnonzero(samples[row].counted) for i, row in enumerate(rows)]
    return torch.from_numpy(np.concatenate(places))


def _means(states: torch.Tensor, batch: ActivationBatch) -> NDArray[np.float32]:
    """Mean state (b, d_model) of each sample's counted tokens."""
    sample = torch.from_numpy(batch.sample_of_token)
    sums = torch.zeros(len(batch.rows), states.shape[1]).index_add_(0, sample, states)
    return (sums / torch.bincount(sample, minlength=len(batch.rows))[:, None]).numpy()


def _stored(
    coder: SparseCoder, states: torch.Tensor, batch: ActivationBatch, units: dict[str, float]
) -> dict[str, SparseRows]:
    """Stored vectors of a batch by aggregate, in the order of its rows."""
    found = encode(coder, states)
    acts, indices = found.top_acts.numpy(), found.top_indices.numpy()
    sample, n_samples, n_latents = batch.sample_of_token, len(batch.rows), coder.info.num_latents
    return {
        how: quantize(
            aggregate_tokens(acts, indices, sample, n_samples, n_latents, how), units[how]
        )[0]
        for how in AGGREGATES
    }


def _in_order(
    parts: Sequence[SparseRows], places: Sequence[NDArray[np.int64]], n_samples: int
) -> SparseRows:
    """Rows of all batches in the order of the samples; samples in no batch have empty rows."""
    n_latents = parts[0].n_latents if parts else 0
    joined = concatenate([*parts, empty(1, n_latents)])  # the last row stands for the missing ones
    position = np.full(n_samples, len(joined) - 1, np.int64)
    for start, rows in zip(np.cumsum([0, *map(len, places)])[:-1], places, strict=True):
        position[rows] = start + np.arange(len(rows))
    return take(joined, position)
