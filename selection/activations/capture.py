"""Where a model is watched: the outputs of blocks, and of the MLP and attention inside them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import permutations
from typing import Any

import torch

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint

_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_POST_NORMS = (
    {"mlp": "post_feedforward_layernorm", "attn": "post_attention_layernorm"},  # Gemma 2 on, OLMo 2
    {"mlp": "post_mlp_layernorm", "attn": "post_self_attn_layernorm"},  # GLM 4
    {"mlp": "post_mlp_layernorm", "attn": "post_attention_layernorm"},  # AFMoE
)
"""Norms of what a module adds to the residual stream, by site. A block has both or none of a pair:
the second name of the first pair alone is Llama's norm before the MLP."""
_MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
_BEFORE_SUM = {"mlp": ("mlp.dense_4h_to_h", "ffn.down_proj"), "attn": ("self_attention.dense",)}
"""Of Bloom and MPT, whose modules give their own output plus the stream, by site."""
_FACTORS = ("residual_scale", "residual_multiplier")
"""A number of a block by which what its parts add is multiplied: MiniCPM 3, Granite."""
_MLP_NORMS = (
    *("pre_feedforward_layernorm", "pre_mlp_layernorm", "post_attention_layernorm"),
    *("ln_2", "ffn_norm", "norm_2"),
)
"""Norms before an MLP; of a block that has several of them the first."""
_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_DOWNS = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2", "Wo")
"""Projections of an MLP's hidden units to what it adds."""
ADDED = ("mlp", "attn")
"""Sites that are what a part adds to the stream."""
INPUTS = ("resid_mid", "mlp_norm", "mlp_in", "heads", "mlp_hidden")
"""Sites that are the input of a part, not its output."""


def watch(
    blocks: torch.nn.ModuleList, hookpoints: Sequence[Hookpoint]
) -> dict[Hookpoint, torch.Tensor]:
    """A mapping that every forward pass fills with the activations at the hookpoints.

    Raises InputError where a block has no such part.
    """
    outputs: dict[Hookpoint, torch.Tensor] = {}
    for hookpoint in hookpoints:
        part = part_of(blocks[hookpoint.block], hookpoint.site)

        def keep(module: object, inputs: object, output: Any, at: Hookpoint = hookpoint) -> None:
            states = _states(output)
            # Falcon adds attention's output to that of the MLP in place, after the hook.
            outputs[at] = states if at.site == "resid" else states.clone()
            if at.site in ADDED:
                outputs[at] *= _factor(blocks[at.block])

        def keep_input(module: Any, inputs: Any, named: Any, at: Hookpoint = hookpoint) -> None:
            states = inputs[0] if inputs else next(iter(named.values()))
            outputs[at] = _normed(module, states) if at.site == "mlp_norm" else states

        if hookpoint.site in INPUTS:
            part.register_forward_pre_hook(keep_input, with_kwargs=True)
        else:
            part.register_forward_hook(keep)
    return outputs


def part_of(block: torch.nn.Module, site: str) -> torch.nn.Module:
    """The module whose output, or input, is the site; see `Hookpoint`. Raises InputError."""
    if site == "resid":
        return block
    if site == "mlp_hidden":
        _refuse_experts(block)
    for name in _names_of(block, site):
        part = _at(block, name)
        if part is not None:
            return part
    raise InputError(
        f"the blocks of this model have no part that is known as `{site}`",
        remedy="Use a resid hookpoint.",
        field="hookpoint",
        value=type(block).__name__,
    )


def _refuse_experts(block: torch.nn.Module) -> None:
    """Refuse hidden units of a block that has several MLPs, each of which sees other tokens."""
    for name, part in block.named_modules():
        if "expert" in f"{name} {type(part).__name__}".lower():
            raise InputError(
                f"`mlp_hidden` is not read in a mixture of experts: the down projection is one"
                f" for each expert ({name})",
                remedy="Use mlp_module@ or mlp_in@ of this block, or a block without experts.",
                field="hookpoint",
                value=type(block).__name__,
            )


def _names_of(block: torch.nn.Module, site: str) -> tuple[str, ...]:
    """What the part may be called, most telling names first."""
    if site == "mlp_in":
        return _MLPS
    if site == "heads":
        return tuple(f"{a}.{projection}" for a in _ATTENTIONS for projection in _PROJECTIONS)
    if site == "mlp_hidden":  # OPT's and BERT's blocks hold the projection themselves
        return (*(f"{mlp}.{down}" for mlp in _MLPS for down in _DOWNS), "fc2", "output.dense")
    if site in INPUTS:
        if site == "resid_mid" and getattr(block, "use_parallel_residual", False):
            return ()  # nothing stands between attention and MLP, which run side by side
        # Behind the MLP a norm of OLMo 2 alone means that the other one is behind attention too.
        after = hasattr(block, "post_feedforward_layernorm")
        return _MLP_NORMS[:1] if after else _MLP_NORMS
    kind, _, is_module = site.partition("_")
    names = ("output.dense", *_MLPS) if kind == "mlp" else _ATTENTIONS
    if kind == "attn":
        names = ("attention.output.dense", *names)  # BERT's attention adds the stream itself
    return names if is_module else (*_post_norms(block, kind), *_before_sum(block, kind), *names)


def _at(block: torch.nn.Module, name: str) -> torch.nn.Module | None:
    """The module inside the block with this name, where there is one."""
    part: Any = block
    for step in name.split("."):
        part = getattr(part, step, None)
    return part if isinstance(part, torch.nn.Module) else None


def _before_sum(block: torch.nn.Module, site: str) -> tuple[str, ...]:
    """What the site is in a block whose modules are given the stream to add it themselves."""
    kind = type(block).__name__
    return _BEFORE_SUM[site] if kind.startswith(("Bloom", "Mpt")) else ()


def _factor(block: torch.nn.Module) -> float:
    return float(next((getattr(block, name) for name in _FACTORS if hasattr(block, name)), 1.0))


def added_errors(
    blocks: torch.nn.ModuleList,
    hookpoints: Sequence[Hookpoint],
    run: Callable[[], object],
    rounding: float,
) -> dict[Hookpoint, float]:
    """How far what is read as added by a part is from the change of the stream; above 1 is wrong.

    The stream is seen at the block's ends and at its norms: between two of these, what was added
    makes the difference, alone or beside what the other part adds. Of what stands before the MLP's
    norm, the error says whether the MLP is given what that norm makes.
    run: a forward pass. rounding: of the stream, relative. Other hookpoints are not named.
    """
    watched, handed_on = {}, {}
    for hookpoint in hookpoints:
        if hookpoint.site in ("resid_mid", "mlp_norm"):
            with suppress(InputError):  # of a block whose MLP is no module
                handed_on[hookpoint] = _watch_mlp(blocks[hookpoint.block])
        if hookpoint.site in ADDED:
            block = torch.nn.ModuleList([blocks[hookpoint.block]])
            sites = [Hookpoint(hookpoint.site, 0)]
            with suppress(InputError):
                other = ADDED[hookpoint.site == ADDED[0]]
                part_of(block[0], other)
                sites.append(Hookpoint(other, 0))
            stream = _watch_stream(block[0], [part_of(block[0], at.site) for at in sites])
            watched[hookpoint] = (sites, watch(block, sites), stream)
    if watched or handed_on:
        run()
    errors = {
        hookpoint: 0.0 if len(seen) == 2 and torch.equal(*seen) else float("inf")
        for hookpoint, seen in handed_on.items()
    }
    for hookpoint, (sites, outputs, stream) in watched.items():
        added, *others = (_flat(outputs[at]) for at in sites if at in outputs)
        steps = [added, *(added + other for other in others if other.shape == added.shape)]
        errors[hookpoint] = min(
            (
                _relative(after - before - step, added, after, rounding)
                for before, after in permutations(stream, 2)
                if before.shape == after.shape == added.shape
                for step in steps
            ),
            default=float("inf"),
        )
    return errors


def _watch_mlp(block: torch.nn.Module) -> list[torch.Tensor]:
    """Filled by a pass with what the norm of the MLP gives, and what the MLP is given."""
    seen: list[torch.Tensor] = []

    def keep_input(_: object, inputs: Any, named: Any) -> None:
        seen.append(_flat(inputs[0] if inputs else next(iter(named.values()))))

    mlp = part_of(block, "mlp_in")
    part_of(block, "mlp_norm").register_forward_hook(lambda _, __, out: seen.append(_flat(out)))
    mlp.register_forward_pre_hook(keep_input, with_kwargs=True)
    return seen


def _watch_stream(block: torch.nn.Module, parts: Sequence[torch.nn.Module]) -> list[torch.Tensor]:
    """Filled by a pass with what goes into the block and its norms, and comes out of them.

    parts: what adds to the stream; a norm among these gives what is added, not the stream.
    """
    seen: list[torch.Tensor] = []

    def keep(part: object, inputs: Any, named: Any, out: Any) -> None:
        if not any(part is one for one in parts):
            states = inputs[0] if inputs else next(iter(named.values()))
            seen.extend(map(_flat, (states, out)))
            if part is block and isinstance(scale, torch.Tensor):
                seen.append(_flat(out) / scale)

    scale = getattr(block, "layer_scalar", None)  # Gemma 4 multiplies its whole stream
    for name, part in block.named_modules():
        is_norm = "norm" in type(part).__name__.lower()
        if part is block or is_norm or name == "per_layer_input_gate":
            part.register_forward_hook(keep, with_kwargs=True)
    return seen


def _states(output: Any) -> torch.Tensor:
    """What a module gives: a tensor, or a tuple that starts with it, by model and version.

    Blocks of Gemma 3n hand on several streams; the first is the one they compute.
    """
    states: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return states[0] if states.ndim == 4 else states


def _flat(output: Any) -> torch.Tensor:
    """(tokens, width) float32."""
    states = _states(output)
    return states.reshape(-1, states.shape[-1]).float()


def _relative(
    off: torch.Tensor, added: torch.Tensor, stream: torch.Tensor, rounding: float
) -> float:
    """Median over tokens of an error, in parts of what rounding explains."""
    allowed = max(1e-3, 5 * rounding) * added.norm(dim=1) + rounding * stream.norm(dim=1)
    return float((off.norm(dim=1) / allowed.clamp_min(1e-12)).median())


def _normed(norm: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """What a norm makes of its input before its own weight and bias."""
    x = states.float()
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0))
    if isinstance(norm, torch.nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + float(epsilon))


def _post_norms(block: torch.nn.Module, site: str) -> tuple[str, ...]:
    return tuple(
        pair[site] for pair in _POST_NORMS if all(hasattr(block, name) for name in pair.values())
    )
