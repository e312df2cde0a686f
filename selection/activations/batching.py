"""Samples to batches of activations: what runs beside what, and what is handed on of it.

Samples are cut into batches by a pure function of the list they came in, so that a sample's
neighbors depend on nothing else: sorted by length where a batch is padded, by their tokens where
shared prefixes are run once.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.model import ActivationModel
from selection.activations.prefixes import prefix_plan, shared_with_previous
from selection.core.errors import InputError
from selection.records import Rendered

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ActivationBatch:
    """Activations of the counted tokens of some samples.

    A prefix that several samples share was run once, and its activations are there once.

    rows:            (b,) int64 positions in the list of samples.
    distinct:        one (u, d_model) float32 per hookpoint of the model, on its device.
    row_positions:   (u,) int64 where these activations are in the row that the model ran.
    index:           (n,) int64 which of the u each token has, sample by sample, in token order.
    sample_of_token: (n,) int64 which of `rows` a token belongs to, non-decreasing.
    token_ids:       (n,) int64.
    """

    rows: NDArray[np.int64]
    distinct: tuple[torch.Tensor, ...]
    row_positions: NDArray[np.int64]
    index: NDArray[np.int64]
    sample_of_token: NDArray[np.int64]
    token_ids: NDArray[np.int64]

    @property
    def hidden(self) -> torch.Tensor:
        """Activations at the first hookpoint; see `at`."""
        return self.at(0)

    def at(self, hookpoint: int) -> torch.Tensor:
        """(n, d_model) activations at one of the hookpoints, token by token."""
        hidden = self.distinct[hookpoint]
        if np.array_equal(self.index, np.arange(len(hidden))):  # nothing shared, nothing left out
            return hidden
        return hidden.index_select(0, torch.from_numpy(self.index).to(hidden.device))

    @property
    def positions(self) -> NDArray[np.int64]:
        """(n,) which of its sample's counted tokens each is, from 0."""
        first = np.searchsorted(self.sample_of_token, np.arange(len(self.rows)))
        return np.arange(len(self.sample_of_token)) - first[self.sample_of_token]

    def only(self, kept: NDArray[np.bool_]) -> "ActivationBatch":
        """The same samples with some of the tokens; kept: (n,)."""
        return replace(
            self,
            index=self.index[kept],
            sample_of_token=self.sample_of_token[kept],
            token_ids=self.token_ids[kept],
        )


def batch_plan(
    n_tokens: NDArray[np.integer], tokens_per_batch: int, packs: bool = False
) -> list[NDArray[np.int64]]:
    """Cut samples into batches: a pure function of their lengths, longest batch first.

    n_tokens:         (n,) length of each sample; samples without tokens are in no batch.
    tokens_per_batch: limit for the tokens of a batch, padding included where it is padded;
                      a longer sample is a batch of its own.
    packs:            whether the batches are packed: their tokens are then the sum of the lengths,
                      else the longest times the number of samples.
    Samples of equal length stay in the order in which they came.
    """
    order = np.argsort(-n_tokens.astype(np.int64), kind="stable")
    order = order[n_tokens[order] > 0]
    sums = np.cumsum(np.concatenate([[0], n_tokens[order]]), dtype=np.int64)
    batches, start = [], 0
    while start < len(order):
        if packs:
            end = int(np.searchsorted(sums, sums[start] + tokens_per_batch, side="right")) - 1
            n_rows = max(1, end - start)
        else:
            n_rows = max(1, tokens_per_batch // int(n_tokens[order[start]]))
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches


def plan_of(
    model: ActivationModel, samples: Sequence[Rendered], tokens_per_batch: int | None = None
) -> list[NDArray[np.int64]]:
    """The batches in which the model runs the samples."""
    lengths = needed_lengths(samples, model.is_causal)
    limit = model.tokens_per_batch(tokens_per_batch)
    if not model.shares:
        return batch_plan(lengths, limit, model.packs)
    return prefix_plan([s.tokens[:n] for s, n in zip(samples, lengths, strict=True)], limit)


def tokens_to_run(
    model: ActivationModel, samples: Sequence[Rendered], tokens_per_batch: int | None = None
) -> int:
    """Tokens that the model runs for some samples: shared prefixes once a batch, no padding."""
    lengths = needed_lengths(samples, model.is_causal)
    total = int(lengths.sum())
    if model.shares:
        for rows in plan_of(model, samples, tokens_per_batch):
            ran = [samples[row].tokens[: lengths[row]] for row in rows]
            total -= int(shared_with_previous(ran).sum())
    return total


def needed_lengths(samples: Sequence[Rendered], is_causal: bool) -> NDArray[np.int64]:
    """Tokens of each sample that must be run, (n,) int64; 0 where nothing counts.

    What follows the last counted token cannot change a causal model's activations before it.
    """
    lengths = np.zeros(len(samples), dtype=np.int64)
    for row, sample in enumerate(samples):
        counted = np.flatnonzero(sample.content_mask)
        if len(counted):
            lengths[row] = counted[-1] + 1 if is_causal else len(sample.tokens)
    return lengths


def with_union_mask(variants: Sequence[Sequence[Rendered]]) -> list[Rendered]:
    """The samples with the content mask that is the union of several.

    variants: the same samples with different content masks. Raises ValueError where tokens differ.
    """
    union = list(variants[0])
    for variant in variants[1:]:
        if not all(
            np.array_equal(ours.tokens, theirs.tokens)
            for ours, theirs in zip(union, variant, strict=True)
        ):
            raise ValueError("samples of other tokens cannot share a forward pass")
        union = [
            replace(ours, content_mask=ours.content_mask | theirs.content_mask)
            for ours, theirs in zip(union, variant, strict=True)
        ]
    return union


def mask_in_batch(
    batch: ActivationBatch, ran: Sequence[Rendered], variant: Sequence[Rendered]
) -> NDArray[np.bool_]:
    """(n,) which of a batch's tokens are content tokens of a variant of the samples.

    ran: the samples that the batch was made of; their masks hold every content token of `variant`.
    """
    masks = (variant[row].content_mask[ran[row].content_mask] for row in batch.rows)
    return np.concatenate([np.zeros(0, np.bool_), *masks])


def iter_activations(
    model: ActivationModel, samples: Sequence[Rendered], tokens_per_batch: int | None
) -> Iterator[ActivationBatch]:
    """Run the samples and yield the activations of their counted tokens, batch by batch."""
    return each_batch(model, samples, tokens_per_batch, lambda batch: batch)


def each_batch(
    model: ActivationModel,
    samples: Sequence[Rendered],
    tokens_per_batch: int | None,
    work: Callable[[ActivationBatch], Result],
) -> Iterator[Result]:
    """Run the samples and yield what `work` makes of each batch.

    Every sample with counted tokens is in exactly one batch; the others are in none. Where the
    device runs out of memory, in the model or in `work`, the batch is halved, the first half comes
    first, and `model.plan_reduced` becomes True.
    """
    lengths = needed_lengths(samples, model.is_causal)
    limit = model.resolved.max_positions
    if limit is not None and lengths.max(initial=0) > limit:
        raise InputError(
            f"a sample is longer than the {limit} tokens that the model was made for",
            remedy=f"Set max_length to {limit} or less.",
            field="max_length",
            value=int(lengths.max()),
        )
    waiting = plan_of(model, samples, tokens_per_batch)[::-1]
    while waiting:
        rows = waiting.pop()
        results: list[Result] = []
        with suppress(torch.OutOfMemoryError):
            results = [work(_run_batch(model, samples, rows, lengths[rows]))]
        # Outside the handler, where the error's traceback no longer holds the failed tensors.
        if results:
            yield results.pop()
        else:
            waiting += _halved(model, rows, int(lengths[rows].max()))


def _halved(
    model: ActivationModel, rows: NDArray[np.int64], longest: int
) -> list[NDArray[np.int64]]:
    """The two halves of a batch that did not fit, last one first."""
    torch.cuda.empty_cache()
    half = len(rows) // 2
    if half == 0:
        raise InputError(
            "the device has too little memory for one sample",
            remedy="Lower max_length, or use a device with more memory.",
            field="max_length",
            value=longest,
        )
    logger.warning("out of memory with %d samples at a time, trying %d", len(rows), half)
    model.plan_reduced = True
    return [rows[half:], rows[:half]]


def _run_batch(
    model: ActivationModel,
    samples: Sequence[Rendered],
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> ActivationBatch:
    """One forward pass; keeps the counted tokens."""
    tokens = [samples[row].tokens[:n] for row, n in zip(rows, lengths, strict=True)]
    counted = [samples[row].content_mask[:n] for row, n in zip(rows, lengths, strict=True)]
    sample_of_token = np.repeat(np.arange(len(rows)), [int(mask.sum()) for mask in counted])
    ids = np.concatenate([t[mask] for t, mask in zip(tokens, counted, strict=True)])
    distinct, row_positions, index = model.read_tokens(tokens, counted)
    return ActivationBatch(
        rows, distinct, row_positions, index, sample_of_token, ids.astype(np.int64)
    )
