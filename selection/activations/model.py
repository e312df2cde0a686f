"""Tokens to activations: the one file that runs a model for its activations.

The model is built only up to the last block that is read; deeper weights are never loaded. What it
runs at once is packed (see `packing`), with shared prefixes only once (see `prefixes`), or padded
on the right where the model or device has no packed attention that is tested.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.capture import added_errors, part_of, watch
from selection.activations.loading import (
    DTYPES,
    KINDS_OF_TRUE_DEPTH,
    find_blocks,
    find_device,
    fitting,
    load_config,
    load_module,
)
from selection.activations.packing import (
    FLEX,
    NAME,
    PACKED_KINDS,
    Visibility,
    first_position,
    packed,
    register,
    visibility_of,
)
from selection.activations.prefixes import positions_in_row, shared_with_previous
from selection.activations.run_plan import RunPlan, proven_plan
from selection.core.errors import InputError
from selection.models.adapters import merge
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel

Packing = Literal["auto", "packed", "padded", "flex"]
Positions = list[NDArray[np.int64]]
"""For each token list where its tokens are in the row that the model runs."""

_CPU_TOKENS_PER_BATCH = 2048  # measured: what a batch touches stays in the caches
_TOKENS_PER_BATCH = 8192  # elsewhere; not measured
_CUDA_TOKENS = (2048, 65_536)  # at least and at most; not measured
_BYTES_PER_TOKEN = 128  # of working memory, for each unit of d_model; an estimate from above


class ActivationModel:
    """A model that is read at hookpoints; see `load_activation_model`.

    resolved:     the model's files and sizes.
    hookpoints:   where activations are read, all in one pass.
    plan:         how it is run.
    module:       what is run, of transformers.
    device:       where it runs.
    dtype:        of its weights, e.g. "float32".
    n_vocab:      token ids that it knows.
    packs:        whether batches are packed; else they are padded on the right.
    shares:       whether a prefix that neighbors share is run once; packed causal models.
    plan_reduced: whether a batch had to be halved because the device ran out of memory; floats may
                  then differ in the last bits from those of another run.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        resolved: ResolvedModel,
        hookpoints: Sequence[Hookpoint],
        plan: RunPlan,
    ) -> None:
        """Watch the hookpoints of a module."""
        self.resolved, self.hookpoints, self.plan = resolved, tuple(hookpoints), plan
        self.packs = plan.batching in ("shared", "packed")
        self.shares = plan.batching == "shared" and self.is_causal
        self.plan_reduced = False
        self.module = module
        weights = next(module.parameters())
        self.device = weights.device
        self.dtype = str(weights.dtype).removeprefix("torch.")
        embeddings = module.get_input_embeddings()  # type: ignore[operator]
        self.n_vocab = int(embeddings.num_embeddings)
        pad = getattr(module.config, "pad_token_id", None)
        self._pad_id = pad if isinstance(pad, int) and 0 <= pad < self.n_vocab else 0
        self._first_position = first_position(module.config)
        last = max(hookpoint.block for hookpoint in self.hookpoints)
        self.blocks = find_blocks(module, resolved.n_layers if plan.depth == "whole" else last + 1)
        self._outputs = watch(self.blocks, self.hookpoints)

    @property
    def hookpoint(self) -> Hookpoint:
        """The first one."""
        return self.hookpoints[0]

    def module_name(self, hookpoint: Hookpoint) -> str:
        """How the part of the model is called whose output this hookpoint is."""
        part = part_of(self.blocks[hookpoint.block], hookpoint.site)
        return next(name for name, module in self.module.named_modules() if module is part)

    @property
    def sliding_window(self) -> int | None:
        """Tokens that local attention sees; None without any."""
        window = getattr(self.module.config, "sliding_window", None)
        return window if isinstance(window, int) and window > 0 else None

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.resolved.d_model

    @property
    def is_causal(self) -> bool:
        """Whether a token's activations are independent of the tokens after it."""
        return self.resolved.kind == "causal" and not self.plan.looks_ahead

    def tokens_per_batch(self, limit: int | None) -> int:
        """The limit, else what suits the device; 1 where samples run one at a time."""
        if self.plan.batching == "alone":
            return 1
        return limit or self._suitable_tokens

    @cached_property
    def _suitable_tokens(self) -> int:
        """On CUDA the power of two that takes at most half of what is free at first use."""
        if self.device.type != "cuda":
            return _CPU_TOKENS_PER_BATCH if self.device.type == "cpu" else _TOKENS_PER_BATCH
        free, _ = torch.cuda.mem_get_info(self.device)
        most = free // 2 // (_BYTES_PER_TOKEN * self.d_model)
        least, largest = _CUDA_TOKENS
        return min(largest, max(least, 1 << max(0, most.bit_length() - 1)))

    @torch.inference_mode()
    def hidden(self, tokens: Sequence[NDArray[np.uint32]]) -> torch.Tensor:
        """Activations (b, longest, d_model) at the first hookpoint, in the model's dtype.

        Positions behind a list's end hold padding and mean nothing.
        """
        [hidden, *_], positions = self._run(tokens)
        if not self.packs:
            return hidden.reshape(len(tokens), max(map(len, tokens)), -1)
        return torch.nn.utils.rnn.pad_sequence(
            [hidden[torch.from_numpy(each).to(hidden.device)] for each in positions],
            batch_first=True,
        )

    def read_samples(self, tokens: Sequence[NDArray[np.uint32]]) -> list[list[torch.Tensor]]:
        """For each token list its activations at every hookpoint, (t, d_model) float32 on the CPU.

        All lists run side by side, or one at a time where the plan says so.
        """
        if self.plan.batching == "alone" and len(tokens) > 1:
            return [part for each in tokens for part in self.read_samples([each])]
        outputs, positions = self._run(tokens)
        outputs = [part.float().cpu() for part in outputs]
        return [[part[torch.from_numpy(at)] for part in outputs] for at in positions]

    def added_errors(self, tokens: NDArray[np.uint32], rounding: float) -> dict[Hookpoint, float]:
        """See `selection.activations.capture.added_errors`; of the pass over one sample."""
        with torch.inference_mode():
            return added_errors(self.blocks, self.hookpoints, lambda: self._run([tokens]), rounding)

    def read_tokens(
        self, tokens: Sequence[NDArray[np.uint32]], masks: Sequence[NDArray[np.bool_]]
    ) -> tuple[tuple[torch.Tensor, ...], NDArray[np.int64], NDArray[np.int64]]:
        """Activations of the masked tokens; a prefix that several lists share is there once.

        masks: (t,) for each token list. Returns one (u, d_model) float32 tensor per hookpoint;
        (u,) positions of these activations in the row that the model ran, ascending; and for each
        of the n masked tokens, list by list, which of the u it is, (n,). The tensors are usable
        outside inference mode, so that an SAE can be trained on them.
        """
        outputs, positions = self._run(tokens)
        wanted = np.concatenate([each[mask] for each, mask in zip(positions, masks, strict=True)])
        distinct, index = wanted, np.arange(len(wanted))
        if self.shares:
            distinct, index = np.unique(wanted, return_inverse=True)
        chosen = self._to_device(torch.from_numpy(distinct))
        return tuple(part.index_select(0, chosen).float() for part in outputs), distinct, index

    @torch.inference_mode()
    def _run(self, tokens: Sequence[NDArray[np.uint32]]) -> tuple[list[torch.Tensor], Positions]:
        """One forward pass; (tokens, d_model) per hookpoint, padding included where it is run.

        Also where each list's tokens are among them.
        """
        largest = max(int(ids.max()) for ids in tokens)
        if largest >= self.n_vocab:
            raise InputError(
                f"the tokenizer has ids that the model, with {self.n_vocab} tokens, does not know",
                remedy="Use the tokenizer that belongs to the model.",
                value=largest,
            )
        options = {"use_cache": False} if self.resolved.kind == "causal" else {}
        try:
            positions = (self._run_packed if self.packs else self._run_padded)(tokens, options)
            outputs = [self._outputs.get(hookpoint) for hookpoint in self.hookpoints]
        finally:
            self._outputs.clear()  # of a pass without memory for its end too
        if any(part is None for part in outputs):
            raise RuntimeError("the model did not run its last block")
        flat = [part.reshape(-1, part.shape[-1]) for part in outputs if part is not None]
        n_ran = self._n_ran(tokens, positions)
        for hookpoint, part in zip(self.hookpoints, flat, strict=True):
            if len(part) != n_ran:
                raise InputError(
                    f"this model gives {len(part)} activations at {hookpoint} for {n_ran} tokens:"
                    " it adds tokens of its own, or keeps several streams",
                    file=self.resolved.path,
                    remedy="Use another model.",
                )
        return flat, positions

    def _n_ran(self, tokens: Sequence[NDArray[np.uint32]], positions: Positions) -> int:
        """Tokens of a forward pass, padding included."""
        if self.packs:
            return 1 + max(int(each[-1]) for each in positions)
        return len(tokens) * max(map(len, tokens))

    def _run_packed(
        self, tokens: Sequence[NDArray[np.uint32]], options: dict[str, bool]
    ) -> Positions:
        shared = np.zeros(len(tokens), np.int64)
        if self.shares:
            shared = shared_with_previous(tokens)
        starts = shared.tolist()
        unshared = [ids[start:] for ids, start in zip(tokens, starts, strict=True)]
        ids = torch.from_numpy(np.concatenate(unshared).astype(np.int64))
        at = [np.arange(start, len(ids)) for ids, start in zip(tokens, starts, strict=True)]
        position_ids = torch.from_numpy(np.concatenate(at) + self._first_position)
        positions = positions_in_row([len(each) for each in tokens], shared)
        on_device = self._to_device(torch.from_numpy(np.concatenate(positions))).split(
            [len(each) for each in positions]
        )
        looked_up = [each if start else None for each, start in zip(on_device, starts, strict=True)]
        seen = None
        if self.plan.flex:
            arrays = visibility_of(positions, shared)
            seen = Visibility(*(self._to_device(torch.from_numpy(each)) for each in arrays))
        with packed([len(each) for each in unshared], looked_up, seen):
            self.module(
                input_ids=self._to_device(ids)[None],
                position_ids=self._to_device(position_ids)[None],
                **options,
            )
        return positions

    def _run_padded(
        self, tokens: Sequence[NDArray[np.uint32]], options: dict[str, bool]
    ) -> Positions:
        """A causal model needs no mask: padding lies after every real token."""
        lengths = np.array([len(ids) for ids in tokens])
        padded = np.full((len(tokens), lengths.max()), self._pad_id, dtype=np.int64)
        for row, sample in zip(padded, tokens, strict=True):
            row[: len(sample)] = sample
        masked = {}
        needs_mask = self.plan.batching == "masked" or not self.is_causal
        if needs_mask and lengths.min() < lengths.max():
            real = np.arange(padded.shape[1]) < lengths[:, None]
            masked["attention_mask"] = self._to_device(torch.from_numpy(real.astype(np.int64)))
        self.module(input_ids=self._to_device(torch.from_numpy(padded)), **masked, **options)
        width = padded.shape[1]
        return [row * width + np.arange(n) for row, n in enumerate(lengths.tolist())]

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return to_device(tensor, self.device)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor there: copied while the device computes, where it is another one than the CPU."""
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def load_activation_model(
    resolved: ResolvedModel,
    hookpoints: Hookpoint | Sequence[Hookpoint],
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    packing: Packing = "auto",
    share_prefixes: bool = True,
    checks: Path | None = None,
) -> ActivationModel:
    """Load a model up to its last hookpoint.

    hookpoints: one, or several that are read in the same pass.
    device:     "cpu", "cuda", "cuda:1", ...; "auto" is CUDA where there is a usable device.
    dtype:      "float32", "bfloat16" or "float16"; "auto" is float32 on CPU and bfloat16 on CUDA.
    threads:    CPU threads of torch for the whole process; None leaves them as they are.
    packing:    "packed", "padded", or "auto": packed on CPU, for the models of PACKED_KINDS.
                "flex" is packed by flex attention, for GPUs; it was not measured on one.
    share_prefixes: run a prefix that neighbors share once, where batches are packed and the
                model is causal.
    checks:     folder of results of `proven_plan`: how the model is run is compared with the plain
                model at first use, and falls back to what equals it. None compares nothing.

    Raises InputError if device or dtype cannot be had, or weights are missing.
    """
    where = find_device(device)
    hookpoints = (hookpoints,) if isinstance(hookpoints, Hookpoint) else tuple(hookpoints)
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
    kind = resolved.model_type
    if dtype == "float16" and kind.startswith("gemma"):
        raise InputError(
            "activations of Gemma models overflow float16",
            remedy="Use bfloat16 or float32.",
            field="dtype",
            value=dtype,
        )
    packs = _packs(packing, resolved, where)
    shares = packs and share_prefixes and resolved.kind == "causal"
    plan = RunPlan(
        "cut" if resolved.gguf_file or kind.startswith(KINDS_OF_TRUE_DEPTH) else "truncated",
        "shared" if shares else "packed" if packs else "padded",
        flex=packing == "flex",
    )
    build = partial(build_model, resolved, hookpoints, where, dtype)
    if checks is not None:
        plan = proven_plan(resolved, hookpoints, where, dtype, plan, checks, build)
    return build(plan)


def build_model(
    resolved: ResolvedModel,
    hookpoints: Sequence[Hookpoint],
    device: torch.device,
    dtype: str,
    plan: RunPlan,
) -> ActivationModel:
    """The model on the device, built as the plan says. Raises InputError; see above."""
    n_blocks = max(hookpoint.block for hookpoint in hookpoints) + 1
    config = load_config(resolved, n_blocks if plan.depth == "truncated" else None)
    register()
    packs = plan.batching in ("shared", "packed")
    attention = (FLEX if plan.flex else NAME) if packs else None
    module = load_module(resolved, config, DTYPES[dtype], attention)
    if plan.depth == "cut":
        del find_blocks(module, resolved.n_layers)[n_blocks:]
    if resolved.adapter is not None:
        there = resolved.n_layers if plan.depth == "whole" else n_blocks
        merge(resolved.adapter, module, there)
    with fitting("the model", "model"):
        module = module.to(device)
    return ActivationModel(module.eval(), resolved, hookpoints, plan)


def chosen_dtype(device: torch.device, dtype: str) -> str:
    """What "auto" means: float32 on CPU, bfloat16 on CUDA."""
    return ("bfloat16" if device.type == "cuda" else "float32") if dtype == "auto" else dtype


def _packs(packing: Packing, resolved: ResolvedModel, device: torch.device) -> bool:
    known = resolved.model_type in PACKED_KINDS
    # The window of a bidirectional Gemma counts otherwise than packed attention does.
    known &= not (resolved.kind == "encoder" and resolved.model_type.startswith("gemma"))
    if packing in ("packed", "flex") and not known:
        raise InputError(
            f"packing is not tested for models of type {resolved.model_type}",
            remedy="Use auto or padded.",
            field="packing",
            value=packing,
        )
    # Attention sample by sample is many small kernels, which a GPU runs badly: not measured.
    return packing in ("packed", "flex") or (packing == "auto" and device.type == "cpu" and known)
