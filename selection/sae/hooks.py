"""Names of places in a model, as SAE libraries write them, and what they mean here."""

import re

from selection.errors import InputError

_BLOCK = r"(?:layers|layer|h|blocks)\.(\d+)"
_MODULES = (
    (rf"(?:^|\.){_BLOCK}(?:\.output)?$", "resid"),
    (rf"(?:^|\.){_BLOCK}\.(?:mlp|feed_forward)(?:\.output)?$", "mlp"),
    (rf"(?:^|\.){_BLOCK}\.(?:self_attn|attn|attention|self_attention)(?:\.output)?$", "attn"),
    (r"^blocks\.(\d+)\.hook_resid_post$", "resid"),
    (r"^blocks\.(\d+)\.hook_mlp_out$", "mlp"),
    (r"^blocks\.(\d+)\.hook_attn_out$", "attn"),
    (r"^(?:resid|R)@?(\d+)$", "resid"),
    (r"^mlp@(\d+)$", "mlp"),
    (r"^attn@(\d+)$", "attn"),
)


def place_of(hookpoint: str | None) -> tuple[str, int] | None:
    """(site, block) of a hookpoint's name, e.g. ("resid", 4); None where it says neither.

    Understands module names ("layers.4", "h.3.attn", "model.layers.5.output"), TransformerLens
    names ("blocks.4.hook_resid_post") and ours ("mlp@4").
    """
    for pattern, site in _MODULES:
        match = re.search(pattern, hookpoint or "")
        if match:
            return site, int(match[1])
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", hookpoint or "")
    if match and int(match[1]) > 0:  # what enters block L has left block L - 1
        return "resid", int(match[1]) - 1
    return None


def canonical(hookpoint: str | None) -> str | None:
    """The name that saelect shows and reads: "layers.4" or "mlp@4"; others as they are."""
    place = place_of(hookpoint)
    if place is None:
        return hookpoint
    return f"layers.{place[1]}" if place[0] == "resid" else f"{place[0]}@{place[1]}"


def refuse_inputs(hookpoint: str | None, file: object, field: str) -> None:
    """Refuse a place that is no output of a block, MLP or attention. Raises InputError."""
    name = hookpoint or ""
    if place_of(name) is not None or not name:
        return
    inputs = ("hook_z", "o_proj", "ln2", "hook_mlp_in", ".input", "hook_embed", "resid_pre",
              "hook_resid_mid", "pre_feedforward")  # fmt: skip
    if any(part in name for part in inputs):
        raise InputError(
            "this SAE reads a place that saelect cannot: only outputs of blocks, MLPs and"
            " attention are read",
            file=str(file),
            field=field,
            value=name,
            remedy="Use an SAE of the residual stream, for example at the next block.",
        )
