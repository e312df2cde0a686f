"""Gemma Scope 2: `config.json` and `params.safetensors` in a folder named after place and width.

w_enc (D, M), w_dec (M, D), b_enc, b_dec, threshold (M,); JumpReLU, no subtraction of the decoder's
bias. Hook names are those of the transformers modules.
"""

import re
from pathlib import Path

from selection.models.hookpoints import canonical, place_of
from selection.sae.coder import SparseCoder
from selection.sae.formats.weight_files import (
    built,
    read_safetensors,
    refuse,
    safetensors_shapes,
    tensors_of,
)
from selection.sae.metadata import SaeInfo, licence_of, read_object

CONFIG, WEIGHTS = "config.json", "params.safetensors"
_MLP_OUT = re.compile(r"layers\.(\d+)\.post_feedforward_layernorm\.output$")


def read_info(place: Path) -> SaeInfo:
    """From config.json and the header of the weights. Raises InputError."""
    file, shapes = place / CONFIG, safetensors_shapes(place / WEIGHTS)
    config = read_object(file)
    if config.get("architecture") not in ("jump_relu", "jumprelu"):
        raise refuse(file, "only jump_relu is read here", field="architecture",
                     value=config.get("architecture"))  # fmt: skip
    hook_in, hook_out = (str(config.get(f"hf_hook_point_{way}") or "") for way in ("in", "out"))
    if hook_out and hook_in != hook_out:
        raise refuse(file, "this is a transcoder: it reads one place and predicts another",
                     field="hf_hook_point_in", value=hook_in)  # fmt: skip
    if config.get("affine_connection") or "affine_skip_connection" in shapes:
        raise refuse(file, "it has a skip connection, so its latents tell only a part",
                     field="affine_connection", value=True)  # fmt: skip
    match = _MLP_OUT.search(hook_in)
    hookpoint = f"mlp@{match[1]}" if match else canonical(hook_in)
    if hook_in and not match and place_of(hook_in) is None:
        raise refuse(file, "it reads a place that is no output of a block or MLP",
                     field="hf_hook_point_in", value=hook_in)  # fmt: skip
    shape, dtype = shapes.get("w_enc", ((0, 0), ""))
    if len(shape) != 2:
        raise refuse(place / WEIGHTS, "it reads several layers at once", value=list(shape))
    l0 = config.get("l0")
    return SaeInfo(
        path=str(place),
        hookpoint=hookpoint or None,
        d_in=shape[0],
        num_latents=shape[1],
        k=0,
        activation="jumprelu",
        model_name=_model(config.get("model_name")),
        licence=licence_of(place),
        family="gemma_scope_2",
        centers=False,
        declared_l0=float(l0) if isinstance(l0, int | float) else None,
        positions="all but BOS",
        dtype={"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(dtype, dtype),
    )


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    info, file = read_info(place), place / WEIGHTS
    w_enc, b_enc, w_dec, b_dec, threshold = tensors_of(
        file, read_safetensors(file), ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
    )
    return built(file, info, (w_enc.T, b_enc, w_dec, b_dec), threshold=threshold)


def _model(name: object) -> str | None:
    """The model's hub name; the configurations write "gemma-v3-1b-it" for google/gemma-3-1b-it."""
    if not isinstance(name, str) or not name:
        return None
    name = name.rsplit("/", 1)[-1].replace("-v3", "-3")
    return "google/" + (name.removesuffix("-pt") if "270m" in name else name)
