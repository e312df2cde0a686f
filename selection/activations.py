"""Tokens to activations: the one file that runs a language model.

The model is built only up to the last block that is read; deeper weights are never loaded. Samples
are sorted by length and cut into batches by a pure function, so that a sample's neighbors in a
batch depend on nothing but the list it came in. A batch is packed (see `packing`), or padded on
the right where the model or device has no packed attention that is tested.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from selection.errors import InputError
from selection.hooks import watch
from selection.model_loading import (
    DTYPES,
    find_device,
    fitting,
    load_module,
    truncated_config,
)
from selection.models import Hookpoint, ResolvedModel
from selection.packing import NAME, PACKED_KINDS, first_position, packed, register
from selection.records import Rendered

logger = logging.getLogger(__name__)

Packing = Literal["auto", "packed", "padded"]
Result = TypeVar("Result")

_CPU_TOKENS_PER_BATCH = 2048  # measured: what a batch touches stays in the caches
_TOKENS_PER_BATCH = 8192  # elsewhere; not measured


@dataclass(frozen=True, slots=True)
class ActivationBatch:
    """Activations of the counted tokens of some samples.

    rows:            (b,) int64 positions in the list of samples.
    hiddens:         one (n, d_model) float32 per hookpoint of the model, on its device, sample by
                     sample, in token order.
    sample_of_token: (n,) int64 which of `rows` a token belongs to, non-decreasing.
    token_ids:       (n,) int64.
    """

    rows: NDArray[np.int64]
    hiddens: tuple[torch.Tensor, ...]
    sample_of_token: NDArray[np.int64]
    token_ids: NDArray[np.int64]

    @property
    def hidden(self) -> torch.Tensor:
        """Those of the first hookpoint."""
        return self.hiddens[0]

    def only(self, kept: NDArray[np.bool_]) -> "ActivationBatch":
        """The same samples with some of the tokens; kept: (n,)."""
        index = torch.from_numpy(np.flatnonzero(kept)).to(self.hidden.device)
        return ActivationBatch(
            self.rows,
            tuple(part.index_select(0, index) for part in self.hiddens),
            self.sample_of_token[kept],
            self.token_ids[kept],
        )


class ActivationModel:
    """A model cut off above its hookpoints; see `load_activation_model`.

    resolved:     the model's files and sizes.
    hookpoints:   where activations are read, all in one pass.
    device:       where it runs.
    dtype:        of its weights, e.g. "float32".
    packs:        whether batches are packed; else they are padded on the right.
    plan_reduced: whether a batch had to be halved because the device ran out of memory; floats may
                  then differ in the last bits from those of another run.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        resolved: ResolvedModel,
        hookpoints: Sequence[Hookpoint],
        packs: bool = False,
    ) -> None:
        """Watch the hookpoints of a module that ends at the last one."""
        self.resolved, self.hookpoints, self.packs = resolved, tuple(hookpoints), packs
        self.plan_reduced = False
        self._module = module
        weights = next(module.parameters())
        self.device = weights.device
        self.dtype = str(weights.dtype).removeprefix("torch.")
        embeddings = module.get_input_embeddings()  # type: ignore[operator]
        self._n_vocab = int(embeddings.num_embeddings)
        pad = getattr(module.config, "pad_token_id", None)
        self._pad_id = pad if isinstance(pad, int) and 0 <= pad < self._n_vocab else 0
        self._first_position = first_position(module.config)
        self._outputs = watch(module, self.hookpoints)

    @property
    def hookpoint(self) -> Hookpoint:
        """The first one."""
        return self.hookpoints[0]

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.resolved.d_model

    @property
    def is_causal(self) -> bool:
        """Whether a token's activations are independent of the tokens after it."""
        return self.resolved.kind == "causal"

    def tokens_per_batch(self, asked: int | None) -> int:
        """What was asked for, else what suits the kind of device."""
        return asked or (_CPU_TOKENS_PER_BATCH if self.device.type == "cpu" else _TOKENS_PER_BATCH)

    @torch.inference_mode()
    def hidden(self, tokens: Sequence[NDArray[np.uint32]]) -> torch.Tensor:
        """Activations (b, longest, d_model) at the first hookpoint, in the model's dtype.

        Positions behind a list's end hold padding and mean nothing.
        """
        lengths = np.array([len(ids) for ids in tokens])
        found = self._run(tokens)[0]
        if not self.packs:
            return found.reshape(len(tokens), int(lengths.max()), -1)
        return torch.nn.utils.rnn.pad_sequence(found.split(lengths.tolist()), batch_first=True)

    def picked(
        self, tokens: Sequence[NDArray[np.uint32]], counted: Sequence[NDArray[np.bool_]]
    ) -> tuple[torch.Tensor, ...]:
        """Activations (n, d_model) float32 of the counted tokens, one tensor per hookpoint.

        counted: (t,) for each token list. Usable outside inference mode, so that an SAE can be
        trained on them.
        """
        lengths = [len(ids) for ids in tokens]
        starts = (
            np.cumsum([0, *lengths[:-1]]) if self.packs else np.arange(len(tokens)) * max(lengths)
        )
        places = [start + np.flatnonzero(mask) for start, mask in zip(starts, counted, strict=True)]
        index = self._to_device(torch.from_numpy(np.concatenate(places)))
        found = self._run(tokens)
        return tuple(part.index_select(0, index).float() for part in found)

    @torch.inference_mode()
    def _run(self, tokens: Sequence[NDArray[np.uint32]]) -> list[torch.Tensor]:
        """One forward pass; (tokens, d_model) per hookpoint, padding included where it is run."""
        largest = max(int(ids.max()) for ids in tokens)
        if largest >= self._n_vocab:
            raise InputError(
                f"the tokenizer has ids that the model, with {self._n_vocab} tokens, does not know",
                remedy="Use the tokenizer that belongs to the model.",
                value=largest,
            )
        options = {"use_cache": False} if self.is_causal else {}
        try:
            (self._run_packed if self.packs else self._run_padded)(tokens, options)
            found = [self._outputs.get(place) for place in self.hookpoints]
        finally:
            self._outputs.clear()  # of a pass without memory for its end too
        if any(part is None for part in found):
            raise RuntimeError("the model did not run its last block")
        return [part.reshape(-1, part.shape[-1]) for part in found if part is not None]

    def _run_packed(self, tokens: Sequence[NDArray[np.uint32]], options: dict[str, bool]) -> None:
        lengths = [len(ids) for ids in tokens]
        ids = torch.from_numpy(np.concatenate(tokens).astype(np.int64))
        places = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
        positions = torch.from_numpy(places + self._first_position)
        with packed(lengths):
            self._module(
                input_ids=self._to_device(ids)[None],
                position_ids=self._to_device(positions)[None],
                **options,
            )

    def _run_padded(self, tokens: Sequence[NDArray[np.uint32]], options: dict[str, bool]) -> None:
        """A causal model needs no mask: padding lies after every real token."""
        lengths = np.array([len(ids) for ids in tokens])
        padded = np.full((len(tokens), lengths.max()), self._pad_id, dtype=np.int64)
        for row, sample in zip(padded, tokens, strict=True):
            row[: len(sample)] = sample
        masked = {}
        if not self.is_causal and lengths.min() < lengths.max():
            real = np.arange(padded.shape[1]) < lengths[:, None]
            masked["attention_mask"] = self._to_device(torch.from_numpy(real.astype(np.int64)))
        self._module(input_ids=self._to_device(torch.from_numpy(padded)), **masked, **options)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copied while the device computes, where it is another one than the CPU."""
        if self.device.type == "cpu":
            return tensor
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def load_activation_model(
    resolved: ResolvedModel,
    hookpoints: Hookpoint | Sequence[Hookpoint],
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    packing: Packing = "auto",
) -> ActivationModel:
    """Load a model up to its last hookpoint.

    hookpoints: one, or several that are read in the same pass.
    device:     "cpu", "cuda", "cuda:1", ...; "auto" is CUDA where there is a usable device.
    dtype:      "float32", "bfloat16" or "float16"; "auto" is float32 on CPU and bfloat16 on CUDA.
    threads:    CPU threads of torch for the whole process; None leaves them as they are.
    packing:    "packed", "padded", or "auto": packed on CPU, for the models of PACKED_KINDS.

    Raises InputError if device or dtype cannot be had, or weights are missing.
    """
    where = find_device(device)
    places = (hookpoints,) if isinstance(hookpoints, Hookpoint) else tuple(hookpoints)
    dtype = chosen_dtype(where, dtype)
    if dtype not in DTYPES:
        raise InputError(
            "no such dtype",
            remedy=f"Use auto, {', '.join(DTYPES)}.",
            field="dtype",
            value=dtype,
        )
    if threads is not None:
        torch.set_num_threads(threads)
    config = truncated_config(resolved, places)
    kind = str(config.get_text_config().model_type)
    if dtype == "float16" and kind.startswith("gemma"):
        raise InputError(
            "activations of Gemma models overflow float16",
            remedy="Use bfloat16 or float32.",
            field="dtype",
            value=dtype,
        )
    packs = _packs(packing, kind, where)
    register()
    module = load_module(resolved, config, DTYPES[dtype], NAME if packs else None)
    with fitting("the model", "model"):
        module = module.to(where)
    return ActivationModel(module.eval(), resolved, places, packs)


def chosen_dtype(device: torch.device, dtype: str) -> str:
    """What "auto" means: float32 on CPU, bfloat16 on CUDA."""
    return ("bfloat16" if device.type == "cuda" else "float32") if dtype == "auto" else dtype


def _packs(packing: Packing, kind: str, device: torch.device) -> bool:
    if packing == "packed" and kind not in PACKED_KINDS:
        raise InputError(
            f"packing is not tested for models of type {kind}",
            remedy="Use auto or padded.",
            field="packing",
            value=packing,
        )
    # Attention sample by sample is many small kernels, which a GPU runs badly: not measured.
    return packing == "packed" or (
        packing == "auto" and device.type == "cpu" and kind in PACKED_KINDS
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


def needed_lengths(samples: Sequence[Rendered], is_causal: bool) -> NDArray[np.int64]:
    """Tokens of each sample that must be run, (n,) int64; 0 where nothing counts.

    What follows the last counted token cannot change a causal model's activations before it.
    """
    lengths = np.zeros(len(samples), dtype=np.int64)
    for row, sample in enumerate(samples):
        counted = np.flatnonzero(sample.counted)
        if len(counted):
            lengths[row] = counted[-1] + 1 if is_causal else len(sample.tokens)
    return lengths


def all_that_count(readings: Sequence[Sequence[Rendered]]) -> list[Rendered]:
    """The samples with every token counted that any of their readings counts.

    readings: of the same samples; they differ in `counted` alone. Raises ValueError otherwise.
    """
    first = list(readings[0])
    for reading in readings[1:]:
        if not all(map(np.array_equal, _tokens(first), _tokens(reading))):
            raise ValueError("readings of other tokens cannot share a forward pass")
        first = [
            replace(mine, counted=mine.counted | other.counted)
            for mine, other in zip(first, reading, strict=True)
        ]
    return first


def _tokens(samples: Sequence[Rendered]) -> list[NDArray[np.uint32]]:
    return [sample.tokens for sample in samples]


def counted_in(
    batch: ActivationBatch, ran: Sequence[Rendered], reading: Sequence[Rendered]
) -> NDArray[np.bool_]:
    """(n,) which of a batch's tokens a reading counts.

    ran: the samples that the batch was made of; they count every token that `reading` does.
    """
    none = np.zeros(0, np.bool_)
    masks = (reading[row].counted[ran[row].counted] for row in batch.rows)
    return np.concatenate([none, *masks])


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
    waiting = batch_plan(lengths, model.tokens_per_batch(tokens_per_batch), model.packs)[::-1]
    while waiting:
        rows = waiting.pop()
        found: list[Result] = []
        with suppress(torch.OutOfMemoryError):
            found = [work(_run_batch(model, samples, rows, lengths[rows]))]
        # Outside the handler, where the error's traceback no longer holds the failed tensors.
        if found:
            yield found.pop()
        else:
            waiting += _halved(model, rows, int(lengths[rows[0]]))


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
    counted = [samples[row].counted[:n] for row, n in zip(rows, lengths, strict=True)]
    sample_of_token = np.repeat(np.arange(len(rows)), [int(mask.sum()) for mask in counted])
    ids = np.concatenate([t[mask] for t, mask in zip(tokens, counted, strict=True)])
    return ActivationBatch(
        rows, model.picked(tokens, counted), sample_of_token, ids.astype(np.int64)
    )
