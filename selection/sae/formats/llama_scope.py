"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`.

encoder.weight (M, D), encoder.bias, decoder.weight (D, M), decoder.bias. In training activations
were multiplied with s = sqrt(D) / mean norm. As in the reference inference, s goes into the biases,
the decoder's row lengths into the encoder where the configuration says that sparsity counts them,
and the threshold is compared in the units of raw activations.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from selection.models.hookpoints import canonical, refuse_inputs
from selection.sae.coder import SparseCoder
from selection.sae.formats.registry import repository_of
from selection.sae.formats.weight_files import (
    built,
    read_safetensors,
    refuse,
    safetensors_shapes,
    tensors_of,
)
from selection.sae.metadata import SaeInfo, licence_of, read_object

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
_NAMES = ("encoder.weight", "encoder.bias", "decoder.weight")


def read_info(place: Path) -> SaeInfo:
    """From hyperparams.json and the header of the weights. Raises InputError."""
    file, shapes = place / CONFIG, safetensors_shapes(place / WEIGHTS)
    config = read_object(file)
    hook_in, hook_out = (config.get(f"hook_point_{way}") for way in ("in", "out"))
    if hook_out is not None and hook_in != hook_out:
        raise refuse(file, "this is a transcoder: it reads one place and predicts another",
                     field="hook_point_in", value=hook_in)  # fmt: skip
    refuse_inputs(str(hook_in or ""), file, "hook_point_in")
    function = str(config.get("act_fn", "relu")).lower()
    if function not in ("jumprelu", "topk", "relu"):
        raise refuse(file, "only jumprelu, topk and relu are read", field="act_fn", value=function)
    if config.get("use_glu_encoder"):
        raise refuse(file, "a gated linear encoder is not read", field="use_glu_encoder",
                     value=True)  # fmt: skip
    norm = config.get("norm_activation", "none")
    if norm not in ("none", "dataset-wise", "token-wise"):
        raise refuse(file, "this input norm is not known", field="norm_activation", value=norm)
    shape, dtype = shapes.get("encoder.weight", ((0, 0), ""))
    k = config.get("top_k") if function == "topk" else 0
    if not isinstance(k, int) or not 0 <= k <= shape[0]:
        raise refuse(file, f"expected 1 to {shape[0]}", field="top_k", value=k)
    expected = config.get("top_k") or 50 if function == "jumprelu" else None
    return SaeInfo(
        path=str(place),
        hookpoint=canonical(str(hook_in)) if hook_in else None,
        d_in=shape[-1],
        num_latents=shape[0],
        k=k,
        activation=function,
        model_name=_model(place),
        licence=licence_of(place),
        family="llama_scope",
        centers=bool(config.get("apply_decoder_bias_to_pre_encoder", False)),
        input_norm="sqrt_d" if norm == "token-wise" else "none",
        input_scale=_scale(file, config, shape[-1]) if norm == "dataset-wise" else 1.0,
        declared_l0=float(expected) if isinstance(expected, int | float) else None,
        positions="all but BOS, EOS and padding",
        dtype={"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(dtype, dtype),
    )


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    info, file = read_info(place), place / WEIGHTS
    config, tensors = read_object(place / CONFIG), read_safetensors(file)
    w_enc, b_enc, w_dec = tensors_of(file, tensors, _NAMES)
    w_dec = w_dec.T.contiguous()
    if config.get("use_decoder_bias", "decoder.bias" in tensors):
        (b_dec,) = tensors_of(file, tensors, ("decoder.bias",))
    else:
        b_dec = torch.zeros(info.d_in)
    if config.get("sparsity_include_decoder_norm"):
        norms = w_dec.norm(dim=1)
        w_enc, b_enc, w_dec = w_enc * norms[:, None], b_enc * norms, w_dec / norms[:, None]
    main = (w_enc, b_enc / info.input_scale, w_dec, b_dec / info.input_scale)
    if info.activation != "jumprelu":
        return built(file, info, main)
    theta = config.get("jump_relu_threshold")
    if not isinstance(theta, int | float) or theta < 0:
        raise refuse(place / CONFIG, "expected a threshold of 0 or more",
                     field="jump_relu_threshold", value=theta)  # fmt: skip
    return built(file, info, main, threshold=torch.full((info.num_latents,), float(theta)))


def _scale(file: Path, config: Mapping[str, object], d_in: int) -> float:
    norms = config.get("dataset_average_activation_norm")
    norm = norms.get("in") if isinstance(norms, Mapping) else None
    if not isinstance(norm, int | float) or norm <= 0:
        raise refuse(file, "expected the mean norm of activations",
                     field="dataset_average_activation_norm", value=norms)  # fmt: skip
    return math.sqrt(d_in) / norm


def _model(place: Path) -> str | None:
    name = repository_of(place) or place.as_posix()
    return "meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in name else None
