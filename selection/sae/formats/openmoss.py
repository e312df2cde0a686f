"""Formats of OpenMOSS: Llama Scope, and Llamascopium 2.x with Llama Scope R1.

Activations may be multiplied with s = sqrt(D) / mean norm in training. Llama Scope: s goes into
the biases, the norms of decoder rows into the encoder where sparsity counts them, and thresholds
are in the units of raw activations. Llamascopium: s goes into the encoder, so latents and
thresholds keep the units of training; where sparsity counts the norms of decoder rows, they decide
what is active and are no part of its value.

Weights do not tell whether s was folded, so the configuration is believed. Llamascopium's training
may fold and leave `dataset-wise` in the configuration: FVU tells, when it is measured.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from selection.sae.formats.layout import Checkpoint, Choice, Layout, Names
from selection.sae.metadata import SaeInfo

if TYPE_CHECKING:
    from selection.sae.formats.weight_files import Weights

_HOOKS = ("hook_point_in", "hook_point_out")
_POSITIONS = "all but BOS, EOS and padding"
_GLU = {"use_glu_encoder": "a gated linear encoder is not read"}
_UNKNOWN_NORM = "this input norm is not known"
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def _mean_norm_scale(sae: Checkpoint, norm: object, field: str, *, weights: bool) -> float:
    """S of a mean norm. Raises InputError for one that is none."""
    if not isinstance(norm, int | float) or not 0 < norm < math.inf:
        raise sae.refuse("expected the mean norm of activations", field, norm, weights=weights)
    return math.sqrt(sae.sizes[0]) / norm


def _llama_scope(sae: Checkpoint) -> Mapping[str, Any]:
    config = sae.config
    jumps = str(config.get("act_fn", "relu")).lower() == "jumprelu"
    l0 = config.get("top_k") or 50 if jumps else None
    scale = 1.0
    if config.get("norm_activation") == "dataset-wise":
        norms = config.get("dataset_average_activation_norm")
        scale = _mean_norm_scale(
            sae,
            norms.get("in") if isinstance(norms, Mapping) else None,
            "dataset_average_activation_norm",
            weights=False,
        )
    return {
        "model_name": "meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in sae.source else None,
        "centers": bool(config.get("apply_decoder_bias_to_pre_encoder", False)),
        "input_scale": scale,
        "declared_l0": float(l0) if isinstance(l0, int | float) else None,
    }


def _convert_llama_scope(sae: Checkpoint, info: SaeInfo, weights: "Weights") -> None:
    if sae.config.get("sparsity_include_decoder_norm"):
        weights.fold_decoder_norms()
    weights.input_scale = info.input_scale
    weights.b_enc, weights.b_dec = (b / info.input_scale for b in (weights.b_enc, weights.b_dec))
    if info.activation == "jumprelu":
        theta = sae.config.get("jump_relu_threshold")
        if not isinstance(theta, int | float) or theta < 0:
            raise sae.refuse("expected a threshold of 0 or more", "jump_relu_threshold")
        weights.set_threshold(float(theta))


LLAMA_SCOPE = Layout(
    name="llama_scope",
    title="Llama Scope",
    files=("hyperparams.json", "checkpoints/final.safetensors"),
    loads="jumprelu, topk and relu SAEs of resid, MLP and attention",
    refuses="transcoders, unknown norms",
    oracle="the reference inference, in float64",
    names={"": Names(*_LINEAR, transposed=("w_dec",), threshold="", log_threshold="")},
    constants={"positions": _POSITIONS},
    activation=Choice(
        "act_fn",
        {"jumprelu": "jumprelu", "topk": "topk", "relu": "relu"},
        "only jumprelu, topk and relu are read",
        "relu",
    ),
    input_norm=Choice(
        "norm_activation",
        {"none": "none", "dataset-wise": "none", "token-wise": "sqrt_d"},
        _UNKNOWN_NORM,
        "none",
    ),
    hooks=_HOOKS,
    k_key="top_k",
    bias_key="use_decoder_bias",
    refused=_GLU,
    facts=_llama_scope,
    convert=_convert_llama_scope,
)


_SCOPIUM = Names(
    "W_E",
    "b_E",
    "W_D",
    "b_D",
    transposed=("w_enc",),
    threshold="",
    log_threshold="activation_function.log_jumprelu_threshold",
)
_R1 = Names(
    *_LINEAR,
    transposed=("w_dec",),
    threshold="",
    log_threshold="log_jumprelu_threshold",
)
_MEAN_NORM = "dataset_average_activation_norm."
_TYPES = ("sae", "matryoshka_sae")  # the second is trained otherwise, and encodes as the first
_READ_KEYS = frozenset(
    {
        "sae_type",
        "hook_point_in",
        "hook_point_out",
        "d_model",
        "expansion_factor",
        "act_fn",
        "top_k",
        "norm_activation",
        "sparsity_include_decoder_norm",
        "use_decoder_bias",
        "use_glu_encoder",
        "apply_decoder_bias_to_pre_encoder",
    }
)
# How weights are held, multiplied and trained; none of it changes a latent.
_OTHER_KEYS = frozenset(
    {
        "device",
        "dtype",
        "promote_act_fn_dtype",
        "sae_pretrained_name_or_path",
        "strict_loading",
        "use_triton_kernel",
        "sparsity_threshold_for_triton_spmm_kernel",
        "sparsity_threshold_for_csr",
        "circuit_tracing_mode",
        "jump_relu_threshold",
        "jumprelu_threshold_window",
        "jumprelu_threshold_grad_scale",
        "force_unit_decoder_norm",
        "matryoshka_widths",
        "matryoshka_loss_weights",
        "use_matryoshka_aux_loss",
    }
)


def _scopium(sae: Checkpoint) -> Mapping[str, Any]:
    config = sae.config
    if config.get("sae_type") not in _TYPES:
        raise sae.refuse(f"only these are read: {', '.join(_TYPES)}", "sae_type")
    for key in sorted(config.keys() - _READ_KEYS - _OTHER_KEYS):
        raise sae.refuse("this key is not known, and it may change the latents", key)
    sae.flag("sparsity_include_decoder_norm")
    _check_tensors(sae)
    _check_sizes(sae)
    # 2.x has no such key and never subtracts. In R1's time the key's default was changed.
    subtracts = sae.flag(
        "apply_decoder_bias_to_pre_encoder", default=None if sae.names is _R1 else False
    )
    r1 = "Llama-Scope-R1-Distill" in sae.source
    noted = sae.beside("lm_config.json").get("model_name")
    distill = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B" if r1 else None
    return {
        "model_name": noted if isinstance(noted, str) and noted else distill,
        "centers": subtracts and sae.names.b_dec in sae.header,
    }


def _check_tensors(sae: Checkpoint) -> None:
    """Raise InputError unless the tensors are those that the configuration asks for."""
    names, config, there = sae.names, sae.config, sae.header.keys()
    mean_norm = f"{_MEAN_NORM}{config.get('hook_point_in')}"
    if config["norm_activation"] == "dataset-wise" and mean_norm not in there:
        raise sae.refuse(
            "the mean norm of activations is not stored, so the input's scale cannot be known",
            mean_norm,
            sorted(there),
            weights=True,
        )
    expected = {*names.main[:3]}
    expected |= {names.log_threshold} if str(config["act_fn"]).lower() == "jumprelu" else set()
    expected |= {names.b_dec} if sae.flag("use_decoder_bias", default=True) else set()
    for name in sorted(expected - there):
        raise sae.refuse("this tensor is missing", name, sorted(there), weights=True)
    for name in sorted(there - expected):
        if not name.startswith(_MEAN_NORM):
            raise sae.refuse("this tensor is no part of an SAE as configured", name, weights=True)


def _check_sizes(sae: Checkpoint) -> None:
    """Raise InputError unless all tensors and the configuration agree on the sizes."""
    names, (d_in, n_latents) = sae.names, sae.sizes
    expected = {
        names.b_enc: (n_latents,),
        names.b_dec: (d_in,),
        names.log_threshold: (n_latents,),
        names.w_dec: sae.shape(names.w_enc)[::-1],
    }
    for name, shape in expected.items():
        there = sae.header.get(name, (shape, ""))[0]
        if there != shape:
            raise sae.refuse(f"expected the shape {list(shape)}", name, list(there), weights=True)
    if sae.config.get("d_model") != d_in:
        raise sae.refuse(f"the weights are {d_in} wide", "d_model")
    factor = sae.config.get("expansion_factor")
    # The library rounds down; a factor need not be whole.
    if not isinstance(factor, int | float) or not 0 <= d_in * factor - n_latents < 1:
        raise sae.refuse(
            f"the weights have {n_latents} latents over width {d_in}", "expansion_factor"
        )


def _convert_scopium(sae: Checkpoint, info: SaeInfo, weights: "Weights") -> None:
    by_norm = sae.config["sparsity_include_decoder_norm"]
    norms = weights.w_dec.norm(dim=1)
    if by_norm and not bool((norms > 0).all()):
        raise sae.refuse(
            "a decoder row of norm 0, by which latents are divided",
            sae.names.w_dec,
            float(norms.min()),
            weights=True,
        )
    if by_norm and info.activation == "jumprelu":
        weights.extra["threshold"] = weights.extra["threshold"] / norms
    elif by_norm and info.activation == "topk":
        weights.w_enc, weights.b_enc = weights.w_enc * norms[:, None], weights.b_enc * norms
        weights.extra["act_scale"] = 1 / norms
    if sae.config["norm_activation"] == "dataset-wise":
        field = f"{_MEAN_NORM}{sae.config['hook_point_in']}"
        mean = sae.contents[field].float().flatten()
        scale = _mean_norm_scale(sae, float(mean) if len(mean) == 1 else None, field, weights=True)
        weights.scale_input(scale)


LLAMASCOPIUM = Layout(
    name="llamascopium",
    title="Llamascopium 2.x, Llama Scope R1",
    files=("config.json", "sae_weights.safetensors"),
    loads="relu, jumprelu and topk SAEs of resid, MLP and attention, also by decoder norm;"
    " dataset-wise, token-wise and folded norms",
    refuses="other types (crosscoder, clt, lorsa, molt), transcoders, batchtopk (no threshold is"
    " stored), batch-wise norm, gated encoders, unknown keys and tensors, .dcp shards",
    oracle="the definition, in float64",
    names={"2.x": _SCOPIUM, "R1": _R1},
    variant=lambda sae: "R1" if _R1.w_enc in sae.header else "2.x",
    constants={"positions": _POSITIONS},
    activation=Choice(
        "act_fn",
        {"relu": "relu", "jumprelu": "jumprelu", "topk": "topk"},
        "only these are read: relu, jumprelu, topk",
        because={
            "batchtopk": "which latents are active depends on all tokens of a batch, and no"
            " threshold is stored"
        },
    ),
    input_norm=Choice(
        "norm_activation",
        {"dataset-wise": "none", "inference": "none", "token-wise": "sqrt_d"},
        _UNKNOWN_NORM,
        because={"batch-wise": "the input norm depends on all tokens of a batch"},
    ),
    hooks=_HOOKS,
    k_key="top_k",
    bias_key="use_decoder_bias",
    refused=_GLU,
    facts=_scopium,
    convert=_convert_scopium,
)
