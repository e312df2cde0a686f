"""How a model is run, proven by comparing it with the plain model before it is relied on.

The plain model is the whole one, run one sample at a time. Faster ways (fewer blocks built, samples
packed or padded side by side, shared prefixes run once) are taken only where activations at the
hookpoints stay the same. What a model needs is kept by the hash of its weights.
"""

import gc
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.capture import ADDED
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.core.json_text import parsed
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel

log = logging.getLogger(__name__)

Depth = Literal["truncated", "cut", "whole"]
Batching = Literal["shared", "packed", "padded", "masked", "alone"]

DEPTHS: tuple[Depth, ...] = ("truncated", "cut", "whole")
"""Fewer blocks are built; all are loaded and the deeper ones dropped; all are run."""
BATCHINGS: tuple[Batching, ...] = ("shared", "packed", "padded", "masked", "alone")
"""Fastest first: packed with shared prefixes, packed, padded on the right, padded and masked, one
sample at a time."""

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02}
"""Largest difference of a token's activations, relative to their norm. Those of 16 bits are not
measured on a GPU, and leave out a quarter of a sample's tokens: in SmolLM2-135M and bfloat16,
rounding alone changes single tokens by 64 %. What runs a model wrongly changes more of them."""
_ROUNDING = {
    "float32": 1e-5,
    "bfloat16": 0.01,
    "float16": 2e-3,
}  # of the stream, where it is added to
VERSION = 5
_PREFIX, _LENGTHS = 12, (5, 23, 40, 31, 64)
_LOOKS_AHEAD = "tokens see those behind them, though the model is called causal"
_MAX_WINDOW = 512  # longer sliding windows are not exercised
_FAILURES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a model is run, see DEPTHS and BATCHINGS.

    difference: largest difference from the plain model that was measured; None where it was not.
    reason:     why faster ways are not taken; "" where they are.
    looks_ahead: whether tokens see those behind them though the model is called causal: then a
                sample is run to its end, and masked where it is padded.
    flex:       whether packed rows are run by flex attention, see `packing.whole_row_attention`.
    """

    depth: Depth
    batching: Batching
    difference: float | None = None
    reason: str = ""
    looks_ahead: bool = False
    flex: bool = False


class Runnable(Protocol):
    """A model as the check runs it; see `ActivationModel`."""

    @property
    def n_vocab(self) -> int:
        """Number of token ids."""

    @property
    def sliding_window(self) -> int | None:
        """Tokens that attention looks back, where that is limited."""

    def read_samples(self, tokens: Sequence[NDArray[np.uint32]]) -> list[list[torch.Tensor]]:
        """Activations of each sample at each hookpoint."""

    def added_errors(self, tokens: NDArray[np.uint32], rounding: float) -> dict[Hookpoint, float]:
        """Of hookpoints that are what a part adds to the stream; above 1 is wrong."""


Build = Callable[[RunPlan], Runnable]
"""Makes the model that is run as a plan says."""


def proven_plan(
    resolved: ResolvedModel,
    hookpoints: Sequence[Hookpoint],
    device: torch.device,
    dtype: str,
    wanted: RunPlan,
    folder: Path,
    build: Build,
) -> RunPlan:
    """The fastest way from `wanted` on that gives the activations of the plain model.

    folder: where results are kept, by weights, hookpoints, device, dtype and versions.
    Raises InputError where no way does, naming what differs.
    """
    import transformers

    key = {
        "model": resolved.weights_sha256,
        "config": _config_text(resolved),
        "hookpoints": [str(hookpoint) for hookpoint in hookpoints],
        "device": device.type,
        "dtype": dtype,
        "wanted": [wanted.depth, wanted.batching, wanted.flex],
        "versions": [torch.__version__, transformers.__version__, str(VERSION)],
    }
    file = folder / f"{content_id(key)}.json"
    with suppress(OSError, ValueError, TypeError):  # not there, or damaged: proven anew
        return RunPlan(**parsed(file.read_text(encoding="utf-8")))
    plan = _prove(resolved, dtype, wanted, build)
    gc.collect()
    if plan.reason:
        log.warning(
            "%s is run more slowly than others (%s, %s): %s",
            resolved.name,
            plan.depth,
            plan.batching,
            plan.reason,
        )
    folder.mkdir(parents=True, exist_ok=True)
    temp = file.with_name(f".tmp-{os.getpid()}-{file.name}")
    temp.write_text(json.dumps(asdict(plan)) + "\n", encoding="utf-8")
    os.replace(temp, file)
    return plan


def _config_text(resolved: ResolvedModel) -> str:
    """The model's configuration; a GGUF file holds it, and its hash is the model's."""
    file = resolved.path / "config.json"
    return "" if resolved.gguf_file else file.read_text(encoding="utf-8")


def check_samples(n_vocab: int, window: int | None, limit: int | None) -> list[NDArray[np.uint32]]:
    """Random token ids of mixed lengths; two share a prefix, and one is longer than the window."""
    rng = np.random.default_rng(0)
    lengths = list(_LENGTHS)
    if window is not None and lengths[-1] <= window <= _MAX_WINDOW:
        lengths[-1] = window + 24
    if limit is not None:
        lengths = [min(length, limit) for length in lengths]
    samples = [rng.integers(0, n_vocab, length).astype(np.uint32) for length in lengths]
    samples[2][:_PREFIX] = samples[1][:_PREFIX]
    return samples


def _prove(resolved: ResolvedModel, dtype: str, wanted: RunPlan, build: Build) -> RunPlan:
    try:
        samples, expected, looks_ahead = _plain_activations(resolved, dtype, build)
    except InputError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            return replace(wanted, reason="not compared: the whole model does not fit the device")
        raise
    problems = [_LOOKS_AHEAD] * looks_ahead

    def difference_of(depth: Depth, batching: Batching) -> float | None:
        """Where it is small enough; else what went wrong is noted."""
        gc.collect()  # else what was built before may still take the device's memory
        try:
            plan = replace(wanted, depth=depth, batching=batching, looks_ahead=looks_ahead)
            model = build(plan)
            difference = _difference(model.read_samples(samples), expected, dtype)
            problem = f"activations differ by {difference:.1g} of their norm"
        except _FAILURES as error:
            difference, first = float("inf"), (str(error).splitlines() or [""])[0]
            problem = f"{type(error).__name__} {first[:120]}"
        if difference <= TOLERANCES[dtype]:
            return difference
        problems.append(f"{depth}, {batching}: {problem}")
        return None

    batchings = BATCHINGS[BATCHINGS.index(wanted.batching) :]
    for depth in DEPTHS[DEPTHS.index(wanted.depth) :]:
        for batching in batchings:
            difference = difference_of(depth, batching)
            if difference is not None:
                return RunPlan(
                    depth, batching, difference, "; ".join(problems), looks_ahead, wanted.flex
                )
            # Where even single samples differ, no batching helps.
            if batching == batchings[0] != "alone" and difference_of(depth, "alone") is None:
                break
    return RunPlan("whole", "alone", 0.0, "; ".join(problems), looks_ahead)


def _plain_activations(
    resolved: ResolvedModel, dtype: str, build: Build
) -> tuple[list[NDArray[np.uint32]], list[list[torch.Tensor]], bool]:
    """Samples, and what the plain model gives for them, twice the same; and `looks_ahead`.

    Raises InputError.
    """
    try:
        plain = build(RunPlan("whole", "alone"))
        samples = check_samples(plain.n_vocab, plain.sliding_window, resolved.max_positions)
        expected = plain.read_samples(samples)
        again = _difference(plain.read_samples(samples), expected, dtype)
        begun = [sample[: max(1, len(sample) // 2)] for sample in samples]
        cut = [
            [part[: len(tokens)] for part in parts]
            for parts, tokens in zip(expected, begun, strict=True)
        ]
        unlike = _difference(plain.read_samples(begun), cut, dtype)
        added = plain.added_errors(samples[-1], _ROUNDING[dtype])
    except InputError:
        raise
    except _FAILURES as error:
        raise InputError(
            f"this model cannot be run ({type(error).__name__}: {str(error)[:120]})",
            file=resolved.path,
            remedy="Use another model, or another version of transformers.",
        ) from error
    _refuse_what_is_not_added(added, resolved.path)
    if not all(bool(part.isfinite().all()) for parts in expected for part in parts):
        raise InputError(
            "the model's activations are not finite",
            file=resolved.path,
            remedy="Its weights are damaged: download them again; for float16, use bfloat16.",
        )
    if not again <= TOLERANCES[dtype]:
        raise InputError(
            f"the same tokens give other activations when they are run again (by {again:.1g} of"
            " their norm)",
            file=resolved.path,
            remedy="Such a model cannot represent samples; use another.",
        )
    return samples, expected, resolved.kind == "causal" and not unlike <= TOLERANCES[dtype]


def _refuse_what_is_not_added(errors: Mapping[Hookpoint, float], folder: Path) -> None:
    for hookpoint, error in errors.items():
        if error <= 1:
            continue
        problem = "the norm that seems to be the MLP's gives something else than the MLP is given"
        remedy = "Use a resid hookpoint."
        if hookpoint.site in ADDED:
            problem = (
                "what this part of the model gives is not what is added to the residual stream:"
                " the block changes it first"
            )
            remedy = (
                f"Use {hookpoint.site}_module@{hookpoint.block}, the module's own output, or a"
                " resid hookpoint."
            )
        raise InputError(
            problem, file=folder, field="hookpoint", value=str(hookpoint), remedy=remedy
        )


def _difference(
    computed: Sequence[Sequence[torch.Tensor]],
    expected: Sequence[Sequence[torch.Tensor]],
    dtype: str,
) -> float:
    """Largest over samples, hookpoints and tokens, relative to the token's norm; NaN is infinite.

    Both hold, for each sample, one (t, d_model) tensor for each hookpoint. See TOLERANCES for what
    16 bits leave out.
    """
    largest = 0.0
    for ours, theirs in zip(computed, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            relative = (one - other).norm(dim=1) / other.norm(dim=1).clamp_min(1e-6)
            ordered = relative.nan_to_num(float("inf"), float("inf")).sort().values
            left_out = 0 if dtype == "float32" else len(ordered) // 4
            largest = max(largest, float(ordered[len(ordered) - 1 - left_out]))
    return largest
