"""Llamascopium 2.x and Llama Scope R1: `config.json` and `sae_weights.safetensors`.

2.x has W_E (D, M), b_E, W_D (M, D), b_D and activation_function.log_jumprelu_threshold (M,); R1 has
encoder.weight (M, D), encoder.bias, decoder.weight (D, M), decoder.bias and log_jumprelu_threshold.

`dataset-wise`: activations are multiplied with s = sqrt(D) / mean norm before they are encoded; the
mean norm is the tensor dataset_average_activation_norm.<hook>. s goes into the encoder, so latents
and thresholds keep the units of training, and the decoder returns to those of raw activations.
`inference`: s was folded before the weights were saved. Where sparsity counts the lengths of
decoder rows, they decide what is active and are no part of its value; in Llama Scope they are.

Weights do not tell whether s was folded, so the configuration is believed. The library's own
training may fold and leave `dataset-wise` in the configuration: FVU tells, when it is measured.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from selection.models.hookpoints import canonical, refuse_inputs
from selection.sae.coder import SparseCoder
from selection.sae.formats.registry import json_keys, repository_of
from selection.sae.formats.weight_files import (
    built,
    read_safetensors,
    refuse,
    safetensors_shapes,
    tensors_of,
)
from selection.sae.metadata import SaeInfo, licence_of, read_object

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"


class _Names(NamedTuple):
    """What the tensors are called in one layout."""

    w_enc: str
    b_enc: str
    w_dec: str
    b_dec: str
    log_threshold: str


_SCOPIUM = _Names("W_E", "b_E", "W_D", "b_D", "activation_function.log_jumprelu_threshold")
_R1 = _Names("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias",
             "log_jumprelu_threshold")  # fmt: skip
_MEAN_NORM = "dataset_average_activation_norm."
_TYPES = ("sae", "matryoshka_sae")  # the second is trained otherwise, and encodes as the first
_ACTIVATIONS = ("relu", "jumprelu", "topk")
_NORMS = {"dataset-wise": "none", "inference": "none", "token-wise": "sqrt_d"}
_READ_KEYS = frozenset({
    "sae_type", "hook_point_in", "hook_point_out", "d_model", "expansion_factor", "act_fn", "top_k",
    "norm_activation", "sparsity_include_decoder_norm", "use_decoder_bias", "use_glu_encoder",
    "apply_decoder_bias_to_pre_encoder",
})  # fmt: skip
# How weights are held, multiplied and trained; none of it changes a latent.
_OTHER_KEYS = frozenset({
    "device", "dtype", "promote_act_fn_dtype", "sae_pretrained_name_or_path", "strict_loading",
    "use_triton_kernel", "sparsity_threshold_for_triton_spmm_kernel", "sparsity_threshold_for_csr",
    "circuit_tracing_mode", "jump_relu_threshold", "jumprelu_threshold_window",
    "jumprelu_threshold_grad_scale", "force_unit_decoder_norm", "matryoshka_widths",
    "matryoshka_loss_weights", "use_matryoshka_aux_loss",
})  # fmt: skip


def read_info(place: Path) -> SaeInfo:
    """From config.json and the header of the weights; only `load` knows `input_scale`.

    Raises InputError.
    """
    file, shapes = place / CONFIG, safetensors_shapes(place / WEIGHTS)
    config, names = read_object(file), _names(shapes)
    _check_config(file, config)
    _check_names(place / WEIGHTS, config, names, set(shapes))
    d_in, n_latents = _sizes(place, config, names, {name: s for name, (s, _) in shapes.items()})
    activation, dtype = str(config["act_fn"]).lower(), shapes[names.w_enc][1]
    k = config.get("top_k") if activation == "topk" else 0
    if type(k) is not int or (activation == "topk" and not 1 <= k <= n_latents):
        raise refuse(file, f"expected 1 to {n_latents}", field="top_k", value=k)
    hook = config.get("hook_point_in")
    # 2.x has no such key and never subtracts. In R1's time the key's default was changed.
    subtracts = _flag(file, config, "apply_decoder_bias_to_pre_encoder",
                      default=None if names is _R1 else False)  # fmt: skip
    return SaeInfo(
        path=str(place),
        hookpoint=canonical(str(hook)) if hook else None,
        d_in=d_in,
        num_latents=n_latents,
        k=k,
        activation=activation,
        model_name=_model(place),
        licence=licence_of(place),
        family="llamascopium",
        centers=subtracts and names.b_dec in shapes,
        input_norm=_NORMS[str(config["norm_activation"])],
        positions="all but BOS, EOS and padding",
        dtype={"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(dtype, dtype),
    )


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    info, file = read_info(place), place / WEIGHTS
    config, tensors = read_object(place / CONFIG), read_safetensors(file)
    names = _names(tensors)
    w_enc, b_enc, w_dec = tensors_of(file, tensors, names[:3])
    w_enc, w_dec = (w_enc, w_dec.T) if names is _R1 else (w_enc.T, w_dec)
    b_dec = torch.zeros(info.d_in)
    if names.b_dec in tensors:
        (b_dec,) = tensors_of(file, tensors, (names.b_dec,))
    norms = torch.ones(info.num_latents)
    if config["sparsity_include_decoder_norm"]:
        norms = w_dec.norm(dim=1)
        if not bool((norms > 0).all()):
            raise refuse(file, "a decoder row of length 0, by which latents are divided",
                         field=names.w_dec, value=float(norms.min()))  # fmt: skip
    extra: dict[str, Tensor] = {}
    if info.activation == "jumprelu":
        (log_threshold,) = tensors_of(file, tensors, (names.log_threshold,))
        extra["threshold"] = log_threshold.exp() / norms
    elif info.activation == "topk" and config["sparsity_include_decoder_norm"]:
        w_enc, b_enc, extra["act_scale"] = w_enc * norms[:, None], b_enc * norms, 1 / norms
    scale = 1.0
    if config["norm_activation"] == "dataset-wise":
        scale = _scale(file, f"{_MEAN_NORM}{config['hook_point_in']}", tensors, info.d_in)
    main = (w_enc * scale, b_enc, w_dec / scale, b_dec / scale)
    return built(file, replace(info, input_scale=scale), main, **extra)


def _names(found: Mapping[str, object]) -> _Names:
    return _R1 if _R1.w_enc in found else _SCOPIUM


def _check_config(file: Path, config: Mapping[str, object]) -> None:
    """Raise InputError for what the configuration asks for and the one encoder is not."""
    kind, function, norm = (config.get(k) for k in ("sae_type", "act_fn", "norm_activation"))
    if kind not in _TYPES:
        raise refuse(file, f"only these are read: {', '.join(_TYPES)}", field="sae_type",
                     value=kind)  # fmt: skip
    hook_in, hook_out = (config.get(f"hook_point_{way}") for way in ("in", "out"))
    if hook_out is not None and hook_in != hook_out:
        raise refuse(file, "this is a transcoder: it reads one place and predicts another",
                     field="hook_point_in", value=hook_in)  # fmt: skip
    refuse_inputs(str(hook_in or ""), file, "hook_point_in")
    if config.get("use_glu_encoder"):
        raise refuse(file, "a gated linear encoder is not read", field="use_glu_encoder",
                     value=config["use_glu_encoder"])  # fmt: skip
    if str(function).lower() == "batchtopk":
        raise refuse(file, "which latents are active depends on all tokens of a batch, and no"
                     " threshold is stored", field="act_fn", value=function)  # fmt: skip
    if str(function).lower() not in _ACTIVATIONS:
        raise refuse(file, f"only these are read: {', '.join(_ACTIVATIONS)}", field="act_fn",
                     value=function)  # fmt: skip
    if norm == "batch-wise":
        raise refuse(file, "the input norm depends on all tokens of a batch",
                     field="norm_activation", value=norm)  # fmt: skip
    if str(norm) not in _NORMS:
        raise refuse(file, "this input norm is not known", field="norm_activation", value=norm)
    _flag(file, config, "sparsity_include_decoder_norm")
    for key in sorted(config.keys() - _READ_KEYS - _OTHER_KEYS):
        raise refuse(file, "this key is not known, and it may change the latents", field=key,
                     value=config[key])  # fmt: skip


def _check_names(file: Path, config: Mapping[str, object], names: _Names, found: set[str]) -> None:
    """Raise InputError unless the tensors are those that the configuration asks for."""
    mean_norm = f"{_MEAN_NORM}{config.get('hook_point_in')}"
    if config["norm_activation"] == "dataset-wise" and mean_norm not in found:
        raise refuse(file, "the mean norm of activations is not stored, so the input's scale cannot"
                     " be known", field=mean_norm, value=sorted(found))  # fmt: skip
    expected = set(names[:3])
    expected |= {names.log_threshold} if str(config["act_fn"]).lower() == "jumprelu" else set()
    biased = _flag(file.parent / CONFIG, config, "use_decoder_bias", default=True)
    expected |= {names.b_dec} if biased else set()
    for name in sorted(expected - found):
        raise refuse(file, "this tensor is missing", field=name, value=sorted(found))
    for name in sorted(found - expected):
        if not name.startswith(_MEAN_NORM):
            raise refuse(file, "this tensor is no part of an SAE as configured", field=name)


def _sizes(
    place: Path, config: Mapping[str, object], names: _Names, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, int]:
    """(D, M), on which all tensors and the configuration agree. Raises InputError."""
    found = shapes[names.w_enc]
    if len(found) != 2 or 0 in found:
        raise refuse(place / WEIGHTS, "expected a matrix", field=names.w_enc, value=list(found))
    d_in, n_latents = found[::-1] if names is _R1 else found
    matrix, transposed = found, found[::-1]
    for name, shape in zip(names, (matrix, (n_latents,), transposed, (d_in,), (n_latents,)),
                           strict=True):  # fmt: skip
        if shapes.get(name, shape) != shape:
            raise refuse(place / WEIGHTS, f"expected the shape {list(shape)}", field=name,
                         value=list(shapes[name]))  # fmt: skip
    width, factor = config.get("d_model"), config.get("expansion_factor")
    if width != d_in:
        raise refuse(place / CONFIG, f"the weights are {d_in} wide", field="d_model", value=width)
    # The library rounds down; a factor need not be whole.
    if not isinstance(factor, int | float) or not 0 <= d_in * factor - n_latents < 1:
        raise refuse(place / CONFIG, f"the weights have {n_latents} latents over width {d_in}",
                     field="expansion_factor", value=factor)  # fmt: skip
    return d_in, n_latents


def _scale(file: Path, name: str, tensors: Mapping[str, Tensor], d_in: int) -> float:
    """What activations were multiplied with. Raises InputError."""
    (norm,) = tensors_of(file, tensors, (name,))
    if norm.numel() != 1 or not 0 < float(norm) < math.inf:
        raise refuse(file, "expected the mean norm of activations", field=name,
                     value=norm.flatten()[:3].tolist())  # fmt: skip
    return math.sqrt(d_in) / float(norm)


def _flag(file: Path, config: Mapping[str, object], key: str, default: bool | None = None) -> bool:
    """A key that must be true or false, and there unless it has a default. Raises InputError."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise refuse(file, "expected true or false", field=key, value=value)
    return value


def _model(place: Path) -> str | None:
    """As the library notes beside an upload; Llama Scope R1 says it in its repository's name."""
    name = json_keys(place / "lm_config.json").get("model_name")
    if isinstance(name, str) and name:
        return name
    r1 = "Llama-Scope-R1-Distill" in (repository_of(place) or place.as_posix())
    return "deepseek-ai/DeepSeek-R1-Distill-Llama-8B" if r1 else None
