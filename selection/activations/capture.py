"""Where a model is watched: the outputs of blocks, and of the MLP and attention inside them."""

from collections.abc import Sequence
from typing import Any

import torch

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint

_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_POST_NORMS = (
    {"mlp": "post_feedforward_layernorm", "attn": "post_attention_layernorm"},  # Gemma 2 on, OLMo 2
    {"mlp": "post_mlp_layernorm", "attn": "post_self_attn_layernorm"},  # GLM 4
)
"""Norms of what a module adds to the residual stream, by site. A block has both or none of a pair:
the second name of the first pair alone is Llama's norm before the MLP."""
_MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


def watch(
    blocks: torch.nn.ModuleList, hookpoints: Sequence[Hookpoint]
) -> dict[Hookpoint, torch.Tensor]:
    """A mapping that every forward pass fills with the activations at the hookpoints.

    Raises InputError where a block has no such part.
    """
    outputs: dict[Hookpoint, torch.Tensor] = {}
    for hookpoint in hookpoints:

        def keep(module: object, inputs: object, output: Any, at: Hookpoint = hookpoint) -> None:
            # Blocks return a tensor, or a tuple that starts with it, by model and version.
            states = output if isinstance(output, torch.Tensor) else output[0]
            # Blocks of Gemma 3n hand on several streams; the first is the one they compute.
            outputs[at] = states[0] if states.ndim == 4 else states

        part_of(blocks[hookpoint.block], hookpoint.site).register_forward_hook(keep)
    return outputs


def part_of(block: torch.nn.Module, site: str) -> torch.nn.Module:
    """The module whose output is the site; see `Hookpoint`. Raises InputError for none."""
    if site == "resid":
        return block
    kind, _, is_module = site.partition("_")
    names = ("output.dense", *_MLPS) if kind == "mlp" else _ATTENTIONS
    if kind == "attn":
        names = ("attention.output.dense", *names)  # BERT's attention adds the stream itself
    if not is_module:
        names = (*_post_norms(block, kind), *names)
    for name in names:
        part: Any = block
        for step in name.split("."):
            part = getattr(part, step, None)
        if isinstance(part, torch.nn.Module):
            return part
    raise InputError(
        f"the blocks of this model have no part that is known as `{site}`",
        remedy="Use a resid hookpoint.",
        field="hookpoint",
        value=type(block).__name__,
    )


def _post_norms(block: torch.nn.Module, site: str) -> tuple[str, ...]:
    return tuple(pair[site] for pair in _POST_NORMS
                 if all(hasattr(block, name) for name in pair.values()))  # fmt: skip
