"""Where in a model activations are read, and the names that SAE libraries give these hookpoints."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from selection.core.errors import InputError

_BLOCK = r"(?:layers|layer|h|blocks)\.(\d+)"
_ATTENTION = r"(?:self_attn|attn|attention|self_attention)"
SITES = (
    "resid",
    "mlp",
    "attn",
    "mlp_module",
    "attn_module",
    "resid_mid",
    "mlp_norm",
    "mlp_in",
    "heads",
    "mlp_hidden",
)
"""Where a block can be read; see `Hookpoint`."""
_PROJECTION = r"(?:o_proj|out_proj|c_proj|dense)"
_DOWN = r"(?:down_proj|c_proj|dense_4h_to_h|fc_out|fc2|w2)"
_SPELLINGS = (
    (rf"(?:^|\.){_BLOCK}(?:\.output)?$", "resid"),
    (rf"(?:^|\.){_BLOCK}\.(?:mlp|feed_forward)(?:\.output)?$", "mlp_module"),
    (rf"(?:^|\.){_BLOCK}\.{_ATTENTION}(?:\.output)?$", "attn_module"),
    (rf"(?:^|\.){_BLOCK}\.{_ATTENTION}\.{_PROJECTION}\.input$", "heads"),
    (rf"(?:^|\.){_BLOCK}\.(?:mlp|feed_forward)\.input$", "mlp_in"),
    (rf"(?:^|\.){_BLOCK}\.(?:mlp|feed_forward)\.{_DOWN}\.input$", "mlp_hidden"),
    (rf"(?:^|\.){_BLOCK}\.pre_feedforward_layernorm\.output$", "mlp_in"),
    (rf"(?:^|\.){_BLOCK}\.post_feedforward_layernorm\.output$", "mlp"),
    (r"^blocks\.(\d+)\.hook_resid_post$", "resid"),
    (r"^blocks\.(\d+)\.hook_(?:resid_mid|mlp_in)$", "resid_mid"),
    (r"^blocks\.(\d+)\.ln2\.hook_normalized$", "mlp_norm"),
    (r"^blocks\.(\d+)\.mlp\.hook_in$", "mlp_in"),
    (r"^blocks\.(\d+)\.attn\.hook_z$", "heads"),
    (r"^blocks\.(\d+)\.mlp\.hook_post$", "mlp_hidden"),
    (r"^blocks\.(\d+)\.hook_mlp_out$", "mlp"),
    (r"^blocks\.(\d+)\.hook_attn_out$", "attn"),
    (r"^(?:resid|R)@?(\d+)$", "resid"),
    *((rf"^{site}@(\d+)$", site) for site in SITES[1:]),
)
_INPUTS = (
    "hook_z",
    "o_proj",
    "ln1",
    "ln2",
    ".input",
    "hook_embed",
    "resid_pre",
    "hook_q",
    "hook_v",
)


@dataclass(frozen=True, slots=True)
class Hookpoint:
    """Where a model is read: a site at block `block`, counted from 0.

    site: "resid" is the block's output; "mlp" and "attn" are what its MLP and its attention add to
          the residual stream: their outputs, behind the norm that some models apply to these.
          "mlp_module" and "attn_module" are the outputs of the modules themselves, before that
          norm; in models without one (Llama, Qwen, GPT) they are the same activations.
          Inside a block: "resid_mid" is the stream between attention and MLP, "mlp_norm" the same
          behind the norm of the MLP before its weight, "mlp_in" what the MLP gets, "mlp_hidden"
          its hidden units as its down projection gets them (act(gate) * up, or act(fc)), and
          "heads" the outputs of the attention heads side by side, before their projection.
    """

    site: str
    block: int

    def __str__(self) -> str:
        """The spelling of configs, e.g. resid@4."""
        return f"{self.site}@{self.block}"


def hookpoint_of(name: str | None) -> Hookpoint | None:
    """The hookpoint that a name means; None where it says neither site nor block.

    Understands module names ("layers.4", "h.3.attn", "model.layers.5.output"), TransformerLens
    names ("blocks.4.hook_resid_post") and ours ("mlp@4").
    """
    for pattern, site in _SPELLINGS:
        match = re.search(pattern, name or "")
        if match:
            return Hookpoint(site, int(match[1]))
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", name or "")
    if match and int(match[1]) > 0:  # what enters block L has left block L - 1
        return Hookpoint("resid", int(match[1]) - 1)
    return None


def canonical(name: str | None) -> str | None:
    """The name that SAEs are shown and saved with: "layers.4" or "mlp@4"; others as they are."""
    hookpoint = hookpoint_of(name)
    if hookpoint is None:
        return name
    return f"layers.{hookpoint.block}" if hookpoint.site == "resid" else str(hookpoint)


def refuse_inputs(name: str, file: object, field: str) -> None:
    """Refuse a name that is no output of a block, MLP or attention. Raises InputError."""
    if hookpoint_of(name) is None and any(part in name for part in _INPUTS):
        raise InputError(
            "this SAE reads activations that saelect cannot: blocks are read at"
            f" {', '.join(SITES)}",
            file=str(file),
            field=field,
            value=name,
            remedy="Use an SAE of the residual stream, for example at the next block.",
        )


def parse_hookpoint(text: str, n_layers: int) -> Hookpoint:
    """Read "resid@4", "resid@0.66" (relative depth) or "layers.4" for a model of n_layers blocks.

    Relative depth r is block floor(r * (n_layers - 1)); 1.0 is the last block. A number with a
    decimal point is a depth, one without is a block.
    """
    match = re.fullmatch(rf"(?:({'|'.join(SITES)})@|layers\.)(\d+\.\d*|\.\d+|\d+)", text.strip())
    if match is None or (match[1] is None and "." in match[2]):
        raise InputError(
            "this is not a hookpoint",
            remedy=f"Write resid@B (or {', '.join(f'{site}@B' for site in SITES[1:])}) with a block"
            f" B from 0 to {n_layers - 1}, or resid@0.66.",
            field="hookpoint",
            value=text,
        )
    site, number = match[1] or "resid", match[2]
    if "." in number:
        depth = Fraction(number)  # Exact: as a float, 0.29 of 100 steps would be block 28.
        block = math.floor(depth * (n_layers - 1)) if depth <= 1 else n_layers
    else:
        block = int(number)
    if block >= n_layers:
        raise InputError(
            f"the model has {n_layers} blocks, so there is no such hookpoint",
            remedy=f"Use resid@0 to resid@{n_layers - 1}, or a depth from resid@0.0 to resid@1.0.",
            field="hookpoint",
            value=text,
        )
    return Hookpoint(site, block)
