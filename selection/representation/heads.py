"""One pass over samples: batches of activations to rows of each head, before fixed point.

A prefix that samples share is encoded once, as it is run once; so is a hookpoint and SAE that
several heads read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.batching import (
    ActivationBatch,
    each_batch,
    mask_in_batch,
    with_union_mask,
)
from selection.activations.model import ActivationModel
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.records import Rendered
from selection.representation.aggregate import (
    FloatRows,
    TokenAggregate,
    float_rows,
    in_sample_order,
)
from selection.representation.aggregate_kernels import Aggregates, aggregate_cpu, aggregate_device
from selection.sae.coder import SparseCoder
from selection.sae.encode import TopActs, encode


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """How vectors are made of the activations at one hookpoint.

    hookpoint:       one of the model's.
    coder:           best on the model's device already, else it is copied there.
    token_aggregate: of token latents.
    unit:            value of one fixed-point step, from `calibrate_head`.
    keep_top:        number of largest latents to keep per sample, None for all.
    max_norm:        tokens whose activations have a larger norm are left out, None for no limit.
    excluded:        (x,) latents that are left out, for example those that are always on.
    """

    hookpoint: Hookpoint
    coder: SparseCoder
    token_aggregate: TokenAggregate
    unit: float = 1.0
    keep_top: int | None = None
    max_norm: float | None = None
    excluded: NDArray[np.int32] | None = None


class HeadRows(NamedTuple):
    """What a head makes of some samples.

    rows: one a sample; n_outliers: tokens above `max_norm`; norms: (n,) of the content tokens.
    """

    rows: FloatRows
    n_outliers: int
    norms: NDArray[np.float32]


def aggregate_heads(
    samples: Sequence[Rendered],
    model: ActivationModel,
    heads: Sequence[Head],
    tokens_per_batch: int | None,
    on_batch: Callable[[ActivationBatch], None] | None = None,
    samples_by_head: Sequence[Sequence[Rendered]] = (),
) -> list[HeadRows]:
    """For each head the rows in the order of the samples, before fixed point.

    on_batch, samples_by_head: see `selection.representation.represent.represent_heads`.
    """
    groups = _group_heads(samples, samples_by_head or [samples] * len(heads))
    ran = samples if len(groups) == 1 else with_union_mask([variant for variant, _ in groups])
    heads = [replace(head, coder=head.coder.to(model.device)) for head in heads]

    def aggregate(batch: ActivationBatch) -> tuple[NDArray[np.int64], dict[int, HeadRows]]:
        by_number: dict[int, HeadRows] = {}
        latents = _BatchLatents(batch, model)
        for variant, numbers in groups:
            mask = None if ran is variant else mask_in_batch(batch, ran, variant)
            if on_batch is not None and variant is samples:
                on_batch(batch if mask is None else batch.only(mask))
            rows = _rows_of_batch(latents, mask, [heads[number] for number in numbers])
            by_number |= dict(zip(numbers, rows, strict=True))
        return batch.rows, by_number

    batches = list(each_batch(model, ran, tokens_per_batch, aggregate))
    order = [rows for rows, _ in batches]
    result = []
    for number, head in enumerate(heads):
        parts = [by_number[number] for _, by_number in batches]
        width = len(head.coder.encoder_bias)
        rows = in_sample_order([part.rows for part in parts], order, len(samples), width)
        norms = np.concatenate([np.zeros(0, np.float32), *(part.norms for part in parts)])
        result.append(HeadRows(rows, sum(part.n_outliers for part in parts), norms))
    return result


def _group_heads(
    samples: Sequence[Rendered], samples_by_head: Sequence[Sequence[Rendered]]
) -> list[tuple[Sequence[Rendered], list[int]]]:
    """Each variant of the samples, `samples` first, with the numbers of the heads that read it."""
    groups: dict[int, tuple[Sequence[Rendered], list[int]]] = {id(samples): (samples, [])}
    for number, variant in enumerate(samples_by_head):
        groups.setdefault(id(variant), (variant, []))[1].append(number)
    return list(groups.values())


class _BatchLatents:
    """A batch's distinct activations as each SAE encodes them, made once, when first asked for."""

    def __init__(self, batch: ActivationBatch, model: ActivationModel) -> None:
        self.batch, self._hookpoints = batch, model.hookpoints
        self._norms: dict[Hookpoint, torch.Tensor] = {}
        self._latents: dict[object, TopActs] = {}

    def hidden(self, hookpoint: Hookpoint) -> torch.Tensor:
        """(u, d_model) activations."""
        return self.batch.distinct[self._hookpoints.index(hookpoint)]

    def norms(self, hookpoint: Hookpoint) -> torch.Tensor:
        """(u,) norms of the activations."""
        if hookpoint not in self._norms:
            self._norms[hookpoint] = self.hidden(hookpoint).norm(dim=1)
        return self._norms[hookpoint]

    def latents(self, head: Head) -> TopActs:
        """Of all of them by the head's SAE; of those above its largest norm they mean nothing."""
        key = (head.hookpoint, head.coder.info.sae_id, head.max_norm)
        if key not in self._latents:
            hidden = self.hidden(head.hookpoint)
            if head.max_norm is not None:
                # Attention sinks have thousands of latents, and every row is as wide as the widest.
                above = self.norms(head.hookpoint) > head.max_norm
                hidden = hidden.masked_fill(above[:, None], 0.0)
            self._latents[key] = encode(head.coder, hidden)
        return self._latents[key]


def _rows_of_batch(
    latents: _BatchLatents, mask: NDArray[np.bool_] | None, heads: Sequence[Head]
) -> list[HeadRows]:
    """Rows of one batch for each head; equal work is done once.

    mask: (n,) the content tokens of these heads; None for all.
    """
    done: dict[object, tuple[Aggregates, NDArray[np.int64], int, NDArray[np.float32]]] = {}
    result = []
    for head in heads:
        key = (head.hookpoint, head.coder.info.sae_id, head.max_norm)
        if key not in done:
            done[key] = _aggregate_batch(latents, mask, head)
        sums, n_tokens, n_outliers, norms = done[key]
        width = len(head.coder.encoder_bias)
        rows = float_rows(sums, n_tokens, width, head.token_aggregate)
        result.append(HeadRows(rows, n_outliers, norms))
    return result


def _aggregate_batch(
    latents: _BatchLatents, mask: NDArray[np.bool_] | None, head: Head
) -> tuple[Aggregates, NDArray[np.int64], int, NDArray[np.float32]]:
    """Sums and maxima, the tokens of each sample, outliers, and the norms of the content tokens."""
    batch = latents.batch if mask is None else latents.batch.only(mask)
    sample, n_samples, n_outliers = batch.sample_of_token, len(batch.rows), 0
    index = torch.from_numpy(batch.index).to(latents.hidden(head.hookpoint).device)
    norms = latents.norms(head.hookpoint)[index]
    if head.max_norm is not None:
        kept = norms <= head.max_norm
        n_outliers = int((norms > head.max_norm).sum())
        index, sample = index[kept], sample[kept.cpu().numpy()]
    distinct = latents.latents(head)
    top = TopActs(distinct.top_acts[index], distinct.top_indices[index])
    if not bool(torch.isfinite(norms).all() & torch.isfinite(top.top_acts).all()):
        raise InputError(
            "the model's activations are not finite",
            field="model.dtype",
            remedy="Use bfloat16 or float32; float16 overflows in many models.",
        )
    n_tokens, width = np.bincount(sample, minlength=n_samples), len(head.coder.encoder_bias)
    if top.top_acts.device.type == "cpu":
        acts, indices = top.top_acts.numpy(), top.top_indices.numpy()
        sums = aggregate_cpu(acts, indices, n_tokens, width)
    else:
        sample_on_device = torch.from_numpy(sample).to(top.top_acts.device)
        sums = aggregate_device(*top, sample_on_device, n_samples, width)
    return sums, n_tokens, n_outliers, norms.cpu().numpy()
