"""Formats of single publications, from Gemma Scope to Goodfire.

Their paths say what their files do not.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from selection.models.hookpoints import canonical, hookpoint_of
from selection.sae.formats.layout import Checkpoint, Choice, Layout, Names

_JUMPRELU = {"activation": "jumprelu", "centers": False, "positions": "all but BOS"}
_GEMMA_SITES = {
    "res": "layers.{}",
    "mlp": "mlp@{}",
    "att": "heads@{}",
    "transcoders": "mlp_norm@{}",
}


def _gemma_scope(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`."""
    path = sae.path.as_posix()
    if "embedding" in path:
        raise sae.refuse("it reads the embedding, which is no output of a block")
    match = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)", sae.source)
    layer, l0 = re.search(r"layer_(\d+)", path), re.search(r"average_l0_(\d+)", path)
    suffix = "-it" if match and match[2] == "it" else ""
    return {
        # Without the repository's name nothing says what is read: residual, MLP or attention.
        "hookpoint": _GEMMA_SITES[match[3]].format(layer[1]) if match and layer else None,
        "model_name": f"google/gemma-2-{match[1]}{suffix}" if match else None,
        "declared_l0": float(l0[1]) if l0 else None,
        "is_transcoder": match is not None and match[3] == "transcoders",
    }


GEMMA_SCOPE = Layout(
    name="gemma_scope",
    title="Gemma Scope",
    files=("params.npz",),
    loads="residual, MLP and attention SAEs, transcoders; outside a folder of the repository's name"
    " model and hookpoint must be named",
    refuses="embedding SAEs",
    oracle="the definition, in float64; sae-lens 6.54.12",
    names={"": Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_enc",))},
    constants=_JUMPRELU,
    facts=_gemma_scope,
)

_GEMMA_2_SITES = {
    "resid_post": "layers.{}",
    "attn_out": "heads@{}",
    "mlp_out": "mlp@{}",
    "transcoder": "mlp_in@{}",
}
_MLP_OUT = re.compile(r"\.post_feedforward_layernorm\.output$")


def _gemma_scope_2(sae: Checkpoint) -> Mapping[str, Any]:
    """The configuration names modules of transformers, and models as "gemma-v3-1b-it"."""
    config, path = sae.config, sae.path.absolute().as_posix()
    if re.search(r"/(clt|crosscoder)", path) or len(sae.header.get("w_dec", ((), ""))[0]) == 3:
        raise sae.refuse("it reads or predicts several layers at once")
    if not config:
        return _gemma_scope_2_by_path(sae)
    hook, hook_out = (str(config.get(f"hf_hook_point_{way}") or "") for way in ("in", "out"))
    transcodes = bool(hook_out) and hook != hook_out
    if transcodes and not _MLP_OUT.search(hook_out):
        raise sae.refuse(
            "it predicts something else than the output of the MLP", "hf_hook_point_out"
        )
    has_skip = config.get("affine_connection") or "affine_skip_connection" in sae.header
    if has_skip and not transcodes:
        raise sae.refuse(
            "it has a skip connection, so its latents tell only a part",
            "affine_connection",
            value=True,
        )
    if hook and hookpoint_of(hook) is None:
        raise sae.refuse("it reads something that is not read here", "hf_hook_point_in")
    l0, name = config.get("l0"), str(config.get("model_name") or "")
    return {
        "hookpoint": canonical(hook) or None,
        "model_name": _gemma_3(name) if name else None,
        "declared_l0": float(l0) if isinstance(l0, int | float) else None,
        "is_transcoder": transcodes,
    }


def _gemma_scope_2_by_path(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `gemma-scope-2-1b-it/resid_post/layer_9_width_16k_l0_small`."""
    path = sae.path.absolute().as_posix()
    site = re.search(r"/(resid_post|attn_out|mlp_out|transcoder)(?:_all)?/layer_(\d+)_", path)
    model = re.search(r"gemma-scope-2-(\d+[mb]-(?:pt|it))", sae.source)
    kind = site[1] if site else ""
    return {
        "hookpoint": _GEMMA_2_SITES[kind].format(site[2]) if site else None,
        "model_name": _gemma_3(f"gemma-3-{model[1]}") if model else None,
        "is_transcoder": kind == "transcoder",
    }


def _gemma_3(name: str) -> str:
    """The model's name on the hub, where 270m alone is called without -pt."""
    name = name.rsplit("/", 1)[-1].replace("-v3", "-3")
    return f"google/{name.removesuffix('-pt') if '270m' in name else name}"


GEMMA_SCOPE_2 = Layout(
    name="gemma_scope_2",
    title="Gemma Scope 2",
    files=("config.json", "params.safetensors"),
    loads="residual, MLP and attention SAEs, transcoders with and without a skip connection;"
    " without config.json by the folder's name",
    refuses="crosscoders, cross-layer transcoders, skip connections of SAEs",
    oracle="the definition, in float64; sae-lens 6.54.12",
    names={"": Names("w_enc", "b_enc", "w_dec", "b_dec", transposed=("w_enc",))},
    constants=_JUMPRELU,
    activation=Choice(
        "architecture",
        {"jump_relu": "jumprelu", "jumprelu": "jumprelu"},
        "only jump_relu is read here",
        "jump_relu",
    ),
    needs_config=False,
    facts=_gemma_scope_2,
)


_CIRCUIT_INPUTS = {
    "mlp.hook_in": "mlp_in",
    "hook_mlp_in": "resid_mid",
    "hook_resid_mid": "resid_mid",
    "ln2.hook_normalized": "mlp_norm",
}
_CIRCUIT_THRESHOLD = "activation_function.threshold"


def _circuit_config(sae: Checkpoint) -> dict[str, Any]:
    """`config.yaml` beside the transcoders of all layers. Raises InputError."""
    file = sae.path.parent / "config.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict):
        raise sae.refuse("config.yaml beside it says where it reads, and cannot be read")
    return config


def _circuit_tracer(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `layer_12.safetensors` beside `config.yaml`; the tensors tell the activation."""
    config, layer = _circuit_config(sae), re.search(r"\d+", sae.path.stem)
    read = str(config.get("feature_input_hook") or "")
    site = _CIRCUIT_INPUTS.get(read)
    if site is None or layer is None:
        raise sae.refuse(
            f"where it reads is not known (known: {', '.join(_CIRCUIT_INPUTS)})",
            "feature_input_hook",
            read or None,
        )
    activation = str(config.get("activation") or "")
    if not activation:
        activation = "jumprelu" if _CIRCUIT_THRESHOLD in sae.header else "relu"
    if activation not in ("relu", "topk", "jumprelu"):
        raise sae.refuse("only relu, topk and jumprelu are read", "activation", activation)
    name = config.get("model_name")
    return {
        "hookpoint": f"{site}@{layer[0]}",
        "k": config.get("k"),
        "activation": activation,
        "model_name": name if isinstance(name, str) and name else None,
        "is_transcoder": True,
    }


CIRCUIT_TRACER = Layout(
    name="circuit_tracer",
    title="circuit-tracer transcoders",
    files=(),
    loads="relu, topk and jumprelu of `layer_{n}.safetensors` beside `config.yaml`, with a skip"
    " connection too",
    refuses="cross-layer transcoders, other inputs than that of the MLP",
    oracle="the definition, in float64",
    names={"": Names("W_enc", "b_enc", "W_dec", "b_dec", threshold=_CIRCUIT_THRESHOLD)},
    constants={"centers": False},
    facts=_circuit_tracer,
)


def _qwen_scope(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `SAE-Res-{model}-W{n}K-L0_{k}/layer{n}.sae.pt`: k is said by the name alone."""
    path = sae.path.absolute().as_posix()
    repository = re.search(r"SAE-Res-([\w.-]+)-W\d+K-L0_(\d+)", path)
    if repository is None:
        raise sae.refuse(
            "how many latents are active is said by the repository's name alone"
            " (...-L0_50), and this path has none",
            value=sae.path.as_posix(),
        )
    layer = re.fullmatch(r"layer(\d+)\.sae", sae.path.stem)
    return {
        "hookpoint": f"layers.{layer[1]}" if layer else None,
        "k": int(repository[2]),
        "model_name": f"Qwen/{repository[1]}",
    }


QWEN_SCOPE = Layout(
    name="qwen_scope",
    title="Qwen Scope",
    files=(),
    loads="topk of `layer{n}.sae.pt`; the number of active latents comes from the repository's"
    " name",
    refuses="files outside such a repository",
    oracle="the definition, in float64",
    names={"": Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_dec",))},
    constants={"activation": "topk", "centers": False},
    facts=_qwen_scope,
)


_OPENAI_SITES = {
    "resid_post_mlp": "layers.{}",
    "resid_post_attn": "resid_mid@{}",
    "resid_delta_mlp": "mlp@{}",
    "resid_delta_attn": "attn@{}",
}


def _openai(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `resid_post_mlp_v5_32k/autoencoders/8.pt`; TopK ones normalize every token first."""
    contents, path = sae.contents, sae.path.as_posix()
    if "decoder.weight" not in contents and "encoder.weight" in contents:
        raise sae.refuse("a decoder that is tied to the encoder is not read")
    activation, state = (
        str(contents.get("activation", "ReLU")),
        contents.get("activation_state_dict"),
    )
    state = state if isinstance(state, Mapping) else {}
    if activation not in ("TopK", "ReLU"):
        raise sae.refuse("only TopK and ReLU are read", "activation", activation)
    if state.get("postact_fn", "ReLU") != "ReLU":
        raise sae.refuse(
            "latents must not be negative, so relu is needed after the top k",
            "activation_state_dict.postact_fn",
            state["postact_fn"],
        )
    site = next((site for name, site in _OPENAI_SITES.items() if name in path), None)
    layer = re.fullmatch(r"\d+", sae.path.stem)
    return {
        "hookpoint": site.format(layer[0]) if site and layer else None,
        "k": state.get("k", 0),
        "activation": activation.lower(),
        "input_norm": "layer_norm" if activation == "TopK" else "none",
        "model_name": "openai-community/gpt2" if site else None,
        "positions": "context 64" if site else None,
    }


OPENAI = Layout(
    name="openai",
    title="OpenAI",
    files=(),
    loads="TopK with layer norm, and ReLU, also between attention and MLP",
    refuses="tied decoders",
    oracle="model.py's definition, in float64",
    names={
        "": Names(
            "encoder.weight", "latent_bias", "decoder.weight", "pre_bias", transposed=("w_dec",)
        )
    },
    k_key="activation_state_dict.k",
    facts=_openai,
)


def _goodfire(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `Llama-3.1-8B-Instruct-SAE-l19.pth`: model and block stand in the name alone."""
    match = re.search(r"(Llama-3\.\d+-\d+B-Instruct)-SAE-l(\d+)", sae.path.as_posix())
    return {
        "hookpoint": f"layers.{match[2]}" if match else None,
        "model_name": f"meta-llama/{match[1]}" if match else None,
    }


GOODFIRE = Layout(
    name="goodfire",
    title="Goodfire",
    files=(),
    loads="relu of `{model}-SAE-l{n}.pth`",
    refuses="nothing of it",
    oracle="the definition, in float64",
    names={
        "": Names(
            "encoder_linear.weight",
            "encoder_linear.bias",
            "decoder_linear.weight",
            "decoder_linear.bias",
            transposed=("w_dec",),
        )
    },
    constants={"activation": "relu", "centers": False},
    facts=_goodfire,
)
