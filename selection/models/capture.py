"""Where a model is watched: the outputs of blocks, and of the MLP and attention inside them."""

from collections.abc import Sequence
from typing import Any

import torch

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.loading import find_blocks

_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


def watch(
    module: torch.nn.Module, hookpoints: Sequence[Hookpoint]
) -> dict[Hookpoint, torch.Tensor]:
    """A mapping that every forward pass fills with the activations at the hookpoints.

    module: ends at the last hookpoint's block. Raises InputError where a block has no such part.
    """
    outputs: dict[Hookpoint, torch.Tensor] = {}
    for hookpoint, part in _parts(module, hookpoints).items():

        def keep(module: object, inputs: object, output: Any, at: Hookpoint = hookpoint) -> None:
            # Blocks return a tensor, or a tuple that starts with it, by model and version.
            outputs[at] = output if isinstance(output, torch.Tensor) else output[0]

        part.register_forward_hook(keep)
    return outputs


def module_names(module: torch.nn.Module, hookpoints: Sequence[Hookpoint]) -> dict[Hookpoint, str]:
    """How the watched parts are called inside the module, e.g. "layers.4" or "h.4.attn"."""
    names = {id(part): name for name, part in module.named_modules()}
    return {hookpoint: names[id(part)] for hookpoint, part in _parts(module, hookpoints).items()}


def _parts(
    module: torch.nn.Module, hookpoints: Sequence[Hookpoint]
) -> dict[Hookpoint, torch.nn.Module]:
    blocks = find_blocks(module, max(hookpoint.block for hookpoint in hookpoints) + 1)
    return {each: part_of(blocks[each.block], each.site) for each in hookpoints}


def part_of(block: torch.nn.Module, site: str) -> torch.nn.Module:
    """The module whose output is the site: the last one before the residual stream is added to."""
    if site == "resid":
        return block
    norms_outputs = hasattr(block, "post_feedforward_layernorm")  # Gemma 2 and 3, OLMo 2 and 3
    names: tuple[str, ...]
    if site == "mlp":
        names = ("post_feedforward_layernorm",) if norms_outputs else ("output.dense", *_MLPS)
    else:
        names = ("post_attention_layernorm",) if norms_outputs else _ATTENTIONS
        names = ("attention.output.dense", *names)  # the attention of BERT adds the stream itself
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
