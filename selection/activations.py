"""Tokens to activations: the one file that runs a language model.

The model is built only up to the block that is read; deeper weights are never loaded. Samples are
padded on the right, sorted by length, and cut into batches by a pure function, so that a sample's
neighbors in a batch depend on nothing but the list it came in. A causal model needs no attention
mask then: padding lies after every real token, and the fast causal attention of torch applies.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.errors import InputError
from selection.model_loading import (
    DTYPES,
    find_blocks,
    find_device,
    load_module,
    truncated_config,
)
from selection.models import Hookpoint, ResolvedModel
from selection.records import Rendered

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActivationBatch:
    """Activations of the counted tokens of some samples.

    rows:            (b,) int64 positions in the list of samples.
    hidden:          (n, d_model) float32 on the model's device, sample by sample, in token order.
    sample_of_token: (n,) int64 which of `rows` a token belongs to, non-decreasing.
    token_ids:       (n,) int64.
    """

    rows: NDArray[np.int64]
    hidden: torch.Tensor
    sample_of_token: NDArray[np.int64]
    token_ids: NDArray[np.int64]


class ActivationModel:
    """A model cut off above a hookpoint; see `load_activation_model`.

    resolved:     the model's files and sizes.
    hookpoint:    where activations are read.
    device:       where it runs.
    dtype:        of its weights, e.g. "float32".
    plan_reduced: whether a batch had to be halved because the device ran out of memory; floats may
                  then differ in the last bits from those of another run.
    """

    def __init__(
        self, module: torch.nn.Module, resolved: ResolvedModel, hookpoint: Hookpoint
    ) -> None:
        """Watch the last block of a module that ends at the hookpoint."""
        self.resolved, self.hookpoint = resolved, hookpoint
        self.plan_reduced = False
        self._module = module
        weights = next(module.parameters())
        self.device = weights.device
        self.dtype = str(weights.dtype).removeprefix("torch.")
        embeddings: Any = module.get_input_embeddings()  # type: ignore[operator]
        self._n_vocab = int(embeddings.num_embeddings)
        pad = getattr(module.config, "pad_token_id", None)
        self._pad_id = pad if isinstance(pad, int) and 0 <= pad < self._n_vocab else 0
        self._output: torch.Tensor | None = None
        blocks = find_blocks(module, hookpoint.block + 1)
        blocks[hookpoint.block].register_forward_hook(self._keep_output)

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.resolved.d_model

    @property
    def is_causal(self) -> bool:
        """Whether a token's activations are independent of the tokens after it."""
        return self.resolved.kind == "causal"

    def _keep_output(self, module: torch.nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401
        # Blocks return a tensor, or a tuple that starts with it, depending on model and version.
        self._output = output if isinstance(output, torch.Tensor) else output[0]

    @torch.inference_mode()
    def hidden(self, tokens: Sequence[NDArray[np.uint32]]) -> torch.Tensor:
        """Activations (b, longest, d_model) of b token lists, in the model's dtype.

        Positions behind a list's end hold padding and mean nothing.
        """
        lengths = np.array([len(ids) for ids in tokens])
        padded = np.full((len(tokens), lengths.max()), self._pad_id, dtype=np.int64)
        for row, sample in zip(padded, tokens, strict=True):
            row[: len(sample)] = sample
        if padded.max() >= self._n_vocab:
            raise InputError(
                f"the tokenizer has ids that the model, with {self._n_vocab} tokens, does not know",
                remedy="Use the tokenizer that belongs to the model.",
                value=int(padded.max()),
            )
        masked = {}
        if not self.is_causal and lengths.min() < lengths.max():
            real = np.arange(padded.shape[1]) < lengths[:, None]
            masked["attention_mask"] = torch.from_numpy(real.astype(np.int64)).to(self.device)
        ids = torch.from_numpy(padded).to(self.device)
        if self.is_causal:
            masked["use_cache"] = False  # type: ignore[assignment]
        self._module(input_ids=ids, **masked)
        output, self._output = self._output, None
        if output is None:
            raise RuntimeError("the model did not run its last block")
        return output


def load_activation_model(
    resolved: ResolvedModel,
    hookpoint: Hookpoint,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> ActivationModel:
    """Load a model up to the hookpoint.

    device:  "cpu", "cuda", "cuda:1", ...; "auto" is CUDA where there is a usable device.
    dtype:   "float32", "bfloat16" or "float16"; "auto" is float32 on CPU and bfloat16 on CUDA.
    threads: CPU threads of torch for the whole process; None leaves them as they are.

    Raises InputError if device or dtype cannot be had, or weights are missing.
    """
    where = find_device(device)
    if dtype == "auto":
        dtype = "bfloat16" if where.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise InputError(
            "no such dtype",
            remedy=f"Use auto, {', '.join(DTYPES)}.",
            field="dtype",
            value=dtype,
        )
    if threads is not None:
        torch.set_num_threads(threads)
    config = truncated_config(resolved, hookpoint)
    if dtype == "float16" and str(config.model_type).startswith("gemma"):
        raise InputError(
            "activations of Gemma models overflow float16",
            remedy="Use bfloat16 or float32.",
            field="dtype",
            value=dtype,
        )
    module = load_module(resolved, config, DTYPES[dtype])
    return ActivationModel(module.to(where).eval(), resolved, hookpoint)


def batch_plan(n_tokens: NDArray[np.integer], tokens_per_batch: int) -> list[NDArray[np.int64]]:
    """Cut samples into batches: a pure function of their lengths, longest batch first.

    n_tokens:         (n,) length of each sample; samples without tokens are in no batch.
    tokens_per_batch: limit for longest sample x number of samples of a batch, padding included;
                      a longer sample is a batch of its own.
    Samples of equal length stay in the order in which they came.
    """
    order = np.argsort(-n_tokens.astype(np.int64), kind="stable")
    order = order[n_tokens[order] > 0]
    batches, start = [], 0
    while start < len(order):
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


def iter_activations(
    model: ActivationModel, samples: Sequence[Rendered], tokens_per_batch: int
) -> Iterator[ActivationBatch]:
    """Run the samples and yield the activations of their counted tokens, batch by batch.

    Every sample with counted tokens is in exactly one batch; the others are in none. On a CUDA
    device that runs out of memory a batch is halved, and `model.plan_reduced` becomes True.
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
    waiting = batch_plan(lengths, tokens_per_batch)[::-1]
    while waiting:
        rows = waiting.pop()
        batch = None
        with suppress(torch.OutOfMemoryError):
            batch = _run_batch(model, samples, rows, lengths[rows])
        # Outside the handler, where the error's traceback no longer holds the failed tensors.
        if batch is not None:
            yield batch
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
    width = int(lengths.max())
    flat = np.concatenate(
        [
            i * width + np.flatnonzero(samples[row].counted[:n])
            for i, (row, n) in enumerate(zip(rows, lengths, strict=True))
        ]
    )
    hidden = model.hidden(tokens)
    # Outside inference mode, so that an SAE can be trained on the result.
    picked = torch.from_numpy(flat).to(hidden.device)
    hidden = hidden.reshape(-1, hidden.shape[-1]).index_select(0, picked).float()
    ids = [samples[row].tokens[samples[row].counted] for row in rows]
    return ActivationBatch(rows, hidden, flat // width, np.concatenate(ids).astype(np.int64))
