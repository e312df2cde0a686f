"""One pass over samples: batches of activations to rows of each head, before fixed point.

A beginning that samples share is encoded once, as it is run once; so is a place and SAE that
several heads read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.models.activations import ActivationModel
from selection.models.batching import ActivationBatch, all_that_count, counted_in, each_batch
from selection.models.hookpoints import Hookpoint
from selection.records import Rendered
from selection.representation.aggregate import FloatRows, TokenAggregate, float_rows, in_order
from selection.representation.aggregate_kernels import Aggregates, aggregate_cpu, aggregate_device
from selection.sae.coder import SparseCoder
from selection.sae.encode import TopActs, encode


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """How vectors are made of the activations at one hookpoint.

    hookpoint:       one of the model's.
    coder:           best on the model's device already, else it is copied there.
    token_aggregate: of token latents.
    unit:            value of one fixed-point step, from `calibrate`.
    keep_top:        number of largest latents to keep per sample, None for all.
    largest_norm:    tokens whose activations are longer do not count, None for no limit.
    excluded:        (x,) latents that are left out, for example those that are always on.
    """

    hookpoint: Hookpoint
    coder: SparseCoder
    token_aggregate: TokenAggregate
    unit: float = 1.0
    keep_top: int | None = None
    largest_norm: float | None = None
    excluded: NDArray[np.int32] | None = None


def read_heads(
    samples: Sequence[Rendered],
    model: ActivationModel,
    heads: Sequence[Head],
    tokens_per_batch: int | None,
    also: Callable[[ActivationBatch], None] | None = None,
    readings: Sequence[Sequence[Rendered]] = (),
) -> list[tuple[FloatRows, int, NDArray[np.float32]]]:
    """For each head: rows in the order of the samples, outliers, norms of the counted tokens.

    also, readings: see `selection.representation.represent.represent_heads`.
    """
    together = _alike(samples, readings or [samples] * len(heads))
    ran = samples if len(together) == 1 else all_that_count([each for each, _ in together])
    heads = [replace(head, coder=head.coder.to(model.device)) for head in heads]
    widths = [len(head.coder.encoder_bias) for head in heads]
    parts: list[list[FloatRows]] = [[] for _ in heads]
    norms: list[list[NDArray[np.float32]]] = [[] for _ in heads]
    outliers, places = [0] * len(heads), []

    def work(
        batch: ActivationBatch,
    ) -> tuple[NDArray[np.int64], list[tuple[FloatRows, int, NDArray[np.float32]]]]:
        made: dict[int, tuple[FloatRows, int, NDArray[np.float32]]] = {}
        tokens = _BatchLatents(batch, model)
        for reading, numbers in together:
            counted = None if ran is reading else counted_in(batch, ran, reading)
            if also is not None and reading is samples:
                also(batch if counted is None else batch.only(counted))
            found = _heads_of(tokens, counted, [heads[number] for number in numbers])
            made |= dict(zip(numbers, found, strict=True))
        return batch.rows, [made[number] for number in range(len(heads))]

    for rows, made in each_batch(model, ran, tokens_per_batch, work):
        places.append(rows)
        for number, (part, n_outliers, lengths) in enumerate(made):
            parts[number].append(part)
            norms[number].append(lengths)
            outliers[number] += n_outliers
    none = np.zeros(0, np.float32)
    return [
        (in_order(part, places, len(samples), width), n, np.concatenate([none, *norm]))
        for part, width, n, norm in zip(parts, widths, outliers, norms, strict=True)
    ]


def _alike(
    samples: Sequence[Rendered], readings: Sequence[Sequence[Rendered]]
) -> list[tuple[Sequence[Rendered], list[int]]]:
    """Each different reading, `samples` first, with the numbers of the heads that read so."""
    groups: dict[int, tuple[Sequence[Rendered], list[int]]] = {id(samples): (samples, [])}
    for number, reading in enumerate(readings):
        groups.setdefault(id(reading), (reading, []))[1].append(number)
    return list(groups.values())


class _BatchLatents:
    """A batch's distinct activations as each SAE encodes them, made once, when first asked for."""

    def __init__(self, batch: ActivationBatch, model: ActivationModel) -> None:
        self.batch, self._places = batch, model.hookpoints
        self._norms: dict[Hookpoint, torch.Tensor] = {}
        self._latents: dict[object, TopActs] = {}

    def hidden(self, place: Hookpoint) -> torch.Tensor:
        """(u, d_model) activations."""
        return self.batch.distinct[self._places.index(place)]

    def norms(self, place: Hookpoint) -> torch.Tensor:
        """(u,) lengths of the activations."""
        if place not in self._norms:
            self._norms[place] = self.hidden(place).norm(dim=1)
        return self._norms[place]

    def latents(self, head: Head) -> TopActs:
        """Of all of them by the head's SAE."""
        key = (head.hookpoint, head.coder.info.sae_id)
        if key not in self._latents:
            self._latents[key] = encode(head.coder, self.hidden(head.hookpoint))
        return self._latents[key]


def _heads_of(
    tokens: _BatchLatents, counted: NDArray[np.bool_] | None, heads: Sequence[Head]
) -> list[tuple[FloatRows, int, NDArray[np.float32]]]:
    """Rows, outliers and norms of one batch for each head; equal work is done once.

    counted: (n,) the tokens that these heads count; None for all.
    """
    done: dict[object, tuple[Aggregates, NDArray[np.int64], int, NDArray[np.float32]]] = {}
    result = []
    for head in heads:
        key = (head.hookpoint, head.coder.info.sae_id, head.largest_norm)
        if key not in done:
            done[key] = _aggregate_batch(tokens, counted, head)
        found, n_tokens, n_outliers, norms = done[key]
        width = len(head.coder.encoder_bias)
        rows = float_rows(found, n_tokens, width, head.token_aggregate)
        result.append((rows, n_outliers, norms))
    return result


def _aggregate_batch(
    tokens: _BatchLatents, counted: NDArray[np.bool_] | None, head: Head
) -> tuple[Aggregates, NDArray[np.int64], int, NDArray[np.float32]]:
    """Sums and maxima, the tokens of each sample, outliers, and the norms of the counted tokens."""
    batch = tokens.batch if counted is None else tokens.batch.only(counted)
    sample, n_samples, n_outliers = batch.sample_of_token, len(batch.rows), 0
    which = torch.from_numpy(batch.which).to(tokens.hidden(head.hookpoint).device)
    norms = tokens.norms(head.hookpoint)[which]
    if head.largest_norm is not None:
        kept = norms <= head.largest_norm
        n_outliers = int((norms > head.largest_norm).sum())
        which, sample = which[kept], sample[kept.cpu().numpy()]
    found = tokens.latents(head)
    found = TopActs(found.top_acts[which], found.top_indices[which])
    if not bool(torch.isfinite(norms).all() & torch.isfinite(found.top_acts).all()):
        raise InputError(
            "the model's activations are not finite",
            field="model.dtype",
            remedy="Use bfloat16 or float32; float16 overflows in many models.",
        )
    n_tokens, width = np.bincount(sample, minlength=n_samples), len(head.coder.encoder_bias)
    if found.top_acts.device.type == "cpu":
        acts, indices = found.top_acts.numpy(), found.top_indices.numpy()
        sums = aggregate_cpu(acts, indices, n_tokens, width)
    else:
        where = torch.from_numpy(sample).to(found.top_acts.device)
        sums = aggregate_device(*found, where, n_samples, width)
    return sums, n_tokens, n_outliers, norms.cpu().numpy()
