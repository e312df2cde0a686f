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
from selection.activations.model import ActivationModel, to_device
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.records import Rendered
from selection.representation.aggregate import (
    FloatRows,
    TokenAggregate,
    float_rows,
    in_sample_order,
)
from selection.representation.aggregate_kernels import (
    Aggregates,
    aggregate_cpu,
    aggregate_device,
    cells_of,
)
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
    samples_by_head = samples_by_head or [samples] * len(heads)
    variants = list({id(each): each for each in (samples, *samples_by_head)}.values())
    ran = samples if len(variants) == 1 else with_union_mask(variants)
    heads = [replace(head, coder=head.coder.to(model.device)) for head in heads]

    def aggregate(batch: ActivationBatch) -> tuple[NDArray[np.int64], list[HeadRows]]:
        latents, tokens = _BatchLatents(batch, model), {id(samples): batch}
        for variant in variants:
            if variant is not ran:
                tokens[id(variant)] = batch.only(mask_in_batch(batch, ran, variant))
        if on_batch is not None:
            on_batch(tokens[id(samples)])
        works = [
            _Work(tokens[id(variant)], head)
            for variant, head in zip(samples_by_head, heads, strict=True)
        ]
        return batch.rows, _rows_of_batch(latents, works)

    batches = list(each_batch(model, ran, tokens_per_batch, aggregate))
    order = [rows for rows, _ in batches]
    result = []
    for number, head in enumerate(heads):
        parts = [by_head[number] for _, by_head in batches]
        width = len(head.coder.encoder_bias)
        rows = in_sample_order([part.rows for part in parts], order, len(samples), width)
        norms = np.concatenate([np.zeros(0, np.float32), *(part.norms for part in parts)])
        result.append(HeadRows(rows, sum(part.n_outliers for part in parts), norms))
    return result


class _Work(NamedTuple):
    """A batch with the content tokens of a head."""

    batch: ActivationBatch
    head: Head

    @property
    def key(self) -> object:
        """Equal where the same latents are aggregated of the same tokens."""
        return id(self.batch), *_encoding(self.head)


def _encoding(head: Head) -> tuple[object, ...]:
    """What decides the latents of a token."""
    return head.hookpoint, head.coder.info.sae_id, head.coder.inputs, head.max_norm


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
        key = _encoding(head)
        if key not in self._latents:
            hidden = self.hidden(head.hookpoint)
            if head.max_norm is not None:
                hidden = without_sinks(hidden, self.norms(head.hookpoint), head.max_norm)
            self._latents[key] = encode(head.coder, hidden)
        return self._latents[key]


def without_sinks(hidden: torch.Tensor, norms: torch.Tensor, max_norm: float) -> torch.Tensor:
    """Activations (u, d_model) with zeros for those of a larger norm.

    Attention sinks have thousands of latents, and every row of latents is as wide as the widest.
    """
    return hidden.masked_fill((norms > max_norm)[:, None], 0.0)


class _Sums(NamedTuple):
    """Sums and maxima of a batch's samples, and how many tokens of each went into them.

    n_outliers: tokens above the head's largest norm. norms: (n,) of the content tokens.
    """

    sums: Aggregates
    n_tokens: NDArray[np.int64]
    n_outliers: int
    norms: NDArray[np.float32]


def _rows_of_batch(latents: _BatchLatents, works: Sequence[_Work]) -> list[HeadRows]:
    """Rows of one batch for each work; equal ones are done once."""
    distinct = {work.key: work for work in works}
    summed = _sums_here if latents.batch.distinct[0].device.type == "cpu" else _sums_on_device
    try:
        done = dict(zip(distinct, summed(latents, list(distinct.values())), strict=True))
    except FloatingPointError:
        raise _not_finite(latents, works) from None
    result = []
    for work in works:
        sums, n_tokens, n_outliers, norms = done[work.key]
        width = len(work.head.coder.encoder_bias)
        rows = float_rows(sums, n_tokens, width, work.head.token_aggregate)
        result.append(HeadRows(rows, n_outliers, norms))
    return result


def _not_finite(latents: _BatchLatents, works: Sequence[_Work]) -> InputError:
    """The error for values that are not finite; it says of what."""
    norms = [latents.norms(work.head.hookpoint) for work in works]
    if all(bool(torch.isfinite(each).all()) for each in norms):
        return InputError(
            "an SAE makes values that are not finite of the model's activations",
            field="sae",
            remedy="Its weights are damaged or too large: download or train it again.",
        )
    return InputError(
        "the model's activations are not finite",
        field="model.dtype",
        remedy="Use bfloat16 or float32; float16 overflows in many models.",
    )


def _sums_here(latents: _BatchLatents, works: Sequence[_Work]) -> list[_Sums]:
    """On the CPU; tokens above the largest norm are taken out."""
    result = []
    for batch, head in works:
        index, sample = torch.from_numpy(batch.index), batch.sample_of_token
        norms = latents.norms(head.hookpoint)[index]
        n_content = len(index)
        if head.max_norm is not None:
            kept = norms <= head.max_norm
            index, sample = index[kept], sample[kept.numpy()]
        acts, indices = (part[index] for part in latents.latents(head))
        if not bool(torch.isfinite(norms).all() & torch.isfinite(acts).all()):
            raise FloatingPointError("activations that are not finite")
        n_tokens = np.bincount(sample, minlength=len(batch.rows))
        width = len(head.coder.encoder_bias)
        sums = aggregate_cpu(acts.numpy(), indices.numpy(), n_tokens, width)
        result.append(_Sums(sums, n_tokens, n_content - len(index), norms.numpy()))
    return result


def _sums_on_device(latents: _BatchLatents, works: Sequence[_Work]) -> list[_Sums]:
    """On another device, which is waited for twice, however many works there are.

    Tokens above the largest norm keep their place and lose their latents.
    """
    cells = []
    for batch, head in works:
        device = latents.hidden(head.hookpoint).device
        index, sample = (
            to_device(torch.from_numpy(each), device)
            for each in (batch.index, batch.sample_of_token)
        )
        norms = latents.norms(head.hookpoint).index_select(0, index)
        acts, indices = (part.index_select(0, index) for part in latents.latents(head))
        if head.max_norm is not None:
            acts = without_sinks(acts, norms, head.max_norm)
        width = len(head.coder.encoder_bias)
        cells.append(cells_of(acts, indices, norms, sample, len(batch.rows), width))
    result = []
    for (batch, head), (sums, norms_here) in zip(works, aggregate_device(cells), strict=True):
        sample_here = batch.sample_of_token
        if head.max_norm is not None:
            sample_here = sample_here[norms_here <= np.float32(head.max_norm)]
        n_tokens = np.bincount(sample_here, minlength=len(batch.rows))
        n_outliers = len(norms_here) - len(sample_here)
        result.append(_Sums(sums, n_tokens, n_outliers, norms_here))
    return result
