"""SAELens: `cfg.json` and `sae_weights.safetensors`, version 6 and the flat configs before it.

W_enc (D, M), b_enc (M,), W_dec (M, D), b_dec (D,). BatchTopK and Matryoshka SAEs are saved as
jumprelu with a constant threshold. abstopk chooses by size and keeps the sign: it becomes a TopK
SAE with 2 M latents, of which latent M + j is the negative side of latent j. Old GPT-2 SAEs were
trained on a model whose writing weights were centered: they are refused, since that model's
activations are others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from selection.models.hookpoints import canonical, refuse_inputs
from selection.sae.coder import SparseCoder
from selection.sae.formats.registry import json_keys
from selection.sae.formats.weight_files import (
    built,
    read_safetensors,
    refuse,
    safetensors_shapes,
    tensors_of,
)
from selection.sae.metadata import RECORD, SaeInfo, licence_of, read_object

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_ACTIVATIONS = {
    "standard": "relu",
    "topk": "topk",
    "abstopk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
}
_NORMS = {
    "none": "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "sqrt_d",
    # These two are folded into the weights when training ends, and never applied to activations.
    "expected_average_only_in": "none",
    "covariance_whitening": "none",
}
_FACTOR_KEYS = ("finetuning_scaling_factor", "scaling_factor", "norm_scaling_factor")


def read_info(place: Path) -> SaeInfo:
    """From cfg.json and the header of the weights. Raises InputError."""
    file = place / CONFIG
    config = modern(read_object(file))
    meta = cast(Mapping[str, object], config["metadata"])
    activation = _refuse_unsupported(file, config, meta)
    shapes = safetensors_shapes(place / WEIGHTS)
    (shape, dtype) = shapes.get("W_enc", ((0, 0), ""))
    d_in, n_latents = shape if len(shape) == 2 else (0, 0)
    hook = meta.get("hook_name")
    n_latents *= 2 if config["architecture"] == "abstopk" else 1
    k = config.get("k", 0) if activation == "topk" else 0
    if activation == "topk" and (not isinstance(k, int | float) or not 1 <= k <= n_latents):
        raise refuse(file, f"expected 1 to {n_latents} active latents", field="k", value=k)
    l0 = meta.get("l0")
    ours = json_keys(place / RECORD)  # what saelect wrote beside it
    sha256, name = ours.get("model_sha256"), ours.get("model", meta.get("model_name"))
    return SaeInfo(
        path=str(place),
        hookpoint=canonical(str(hook)) if hook else None,
        model_sha256=str(sha256) if sha256 else None,
        record=ours,
        d_in=d_in,
        num_latents=n_latents,
        k=int(cast(float, k)),
        activation=activation,
        model_name=str(name) if name else None,
        licence=str(ours["licence"]) if ours.get("licence") else licence_of(place),
        family="saelens",
        centers=bool(config.get("apply_b_dec_to_input", True)),
        input_norm=_NORMS[str(config["normalize_activations"])],
        declared_l0=float(l0) if isinstance(l0, int | float) and l0 > 0 else None,
        positions=_positions(meta),
        dtype={"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(dtype, dtype),
    )


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    info, file = read_info(place), place / WEIGHTS
    tensors = read_safetensors(file)
    if "scaling_factor" in tensors and not bool((tensors["scaling_factor"] == 1).all()):
        raise refuse(file, "a fine-tuned scaling factor is not read", field="scaling_factor")
    w_enc, w_dec, b_dec = tensors_of(file, tensors, ("W_enc", "W_dec", "b_dec"))
    w_enc = w_enc.T
    if info.activation == "gated":
        b_gate, b_mag, r_mag = tensors_of(file, tensors, ("b_gate", "b_mag", "r_mag"))
        return built(file, info, (w_enc, b_gate, w_dec, b_dec), magnitude_scale=r_mag.exp(),
                     magnitude_bias=b_mag)  # fmt: skip
    (b_enc,) = tensors_of(file, tensors, ("b_enc",))
    if info.activation == "jumprelu":
        return built(file, info, (w_enc, b_enc, w_dec, b_dec), threshold=_threshold(file, tensors))
    config = modern(read_object(place / CONFIG))
    if config.get("rescale_acts_by_decoder_norm"):
        norms = w_dec.norm(dim=1)
        w_enc, b_enc, w_dec = w_enc * norms[:, None], b_enc * norms, w_dec / norms[:, None]
    if config["architecture"] == "abstopk":
        w_enc, b_enc, w_dec = (torch.cat([t, -t]) for t in (w_enc, b_enc, w_dec))
    return built(file, info, (w_enc, b_enc, w_dec, b_dec))


def modern(config: Mapping[str, object]) -> dict[str, object]:
    """A version-6 config of any version's: flat keys become metadata, old names new ones."""
    found = dict(config)
    for old, new in (
        ("hook_point", "hook_name"),
        ("hook_point_head_index", "hook_head_index"),
        ("activation_fn_str", "activation_fn"),
    ):
        if old in found:
            found.setdefault(new, found.pop(old))
    found.setdefault("architecture", "standard")
    kwargs = found.get("activation_fn_kwargs")
    if found.get("activation_fn") == "topk" and isinstance(kwargs, Mapping) and kwargs.get("k"):
        found["architecture"], found["k"] = "topk", kwargs["k"]
    norm = found.get("normalize_activations")
    if isinstance(norm, bool):
        norm = "expected_average_only_in" if norm else "none"
    found["normalize_activations"] = norm or "none"
    meta = found.get("metadata")
    flat = {key: value for key, value in found.items() if key != "metadata"}
    found["metadata"] = {**flat, **(meta if isinstance(meta, Mapping) else {})}
    return found


def _refuse_unsupported(
    file: Path, config: Mapping[str, object], meta: Mapping[str, object]
) -> str:
    """The canonical activation, or InputError for what cannot be read correctly."""
    architecture = str(config["architecture"])
    if "transcoder" in architecture or config.get("d_out") not in (None, config.get("d_in")):
        raise refuse(file, "this is a transcoder: it reads a module's input, while saelect reads"
                     " the output of a hookpoint", field="architecture",
                     value=architecture)  # fmt: skip
    if architecture not in _ACTIVATIONS:
        raise refuse(file, f"this architecture is not read (known: {', '.join(_ACTIVATIONS)})",
                     field="architecture", value=architecture)  # fmt: skip
    function = config.get("activation_fn", "relu")
    if architecture == "standard" and function not in ("relu", None):
        raise refuse(file, "only relu is read here", field="activation_fn", value=function)
    norm = str(config["normalize_activations"])
    if norm not in _NORMS:
        raise refuse(file, "this input norm is not known", field="normalize_activations",
                     value=norm)  # fmt: skip
    hook = str(meta.get("hook_name") or "")
    if config.get("reshape_activations", "none") != "none" or hook.endswith("hook_z"):
        raise refuse(file, "this SAE reads the attention heads' outputs side by side (hook_z), not"
                     " the output of a module", field="hook_name", value=hook)  # fmt: skip
    refuse_inputs(hook, file, "hook_name")
    for key in _FACTOR_KEYS:
        if config.get(key):
            raise refuse(file, "a scaling factor that is not folded into the weights is not read",
                         field=key, value=config[key])  # fmt: skip
    kwargs = meta.get("model_from_pretrained_kwargs")
    if isinstance(kwargs, Mapping) and kwargs.get("center_writing_weights"):
        raise refuse(file, "it was trained on a model with centered writing weights, whose"
                     " activations are others", field="model_from_pretrained_kwargs",
                     value=dict(kwargs))  # fmt: skip
    return _ACTIVATIONS[architecture]


def _threshold(file: Path, tensors: Mapping[str, Tensor]) -> Tensor:
    if "threshold" in tensors or "log_threshold" not in tensors:
        (threshold,) = tensors_of(file, tensors, ("threshold",))
    else:
        threshold = tensors["log_threshold"].to(torch.float32).exp()
    if bool((threshold < 0).any()):
        raise refuse(file, "a threshold is below 0, so it was never set", field="threshold",
                     value=float(threshold.min()))  # fmt: skip
    return threshold


def _positions(meta: Mapping[str, object]) -> str | None:
    """Which tokens it was trained on, as far as the config says."""
    said = []
    if "prepend_bos" in meta:
        said.append("BOS prepended" if meta["prepend_bos"] else "no BOS")
    if meta.get("exclude_special_tokens"):
        said.append("special tokens left out")
    if meta.get("context_size"):
        said.append(f"context {meta['context_size']}")
    return ", ".join(said) or None
