"""Formats of single publications: Gemma Scope (1 and 2), Qwen Scope, OpenAI, Goodfire.

Their paths say what their files do not.
"""

import re
from collections.abc import Mapping
from typing import Any

from selection.models.hookpoints import canonical, hookpoint_of
from selection.sae.formats.layout import ONE_PLACE, Checkpoint, Choice, Layout, Names

_JUMPRELU = {"activation": "jumprelu", "centers": False, "positions": "all but BOS"}
_GEMMA_SITES = {"res": "layers.{}", "mlp": "mlp@{}"}
_MLP_OUT = re.compile(r"layers\.(\d+)\.post_feedforward_layernorm\.output$")


def _gemma_scope(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`."""
    path = sae.path.as_posix()
    if "embedding" in path:
        raise sae.refuse("it reads the embedding, which is no output of a block")
    match = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)", sae.source)
    if match and match[3] not in _GEMMA_SITES:
        what = "a transcoder" if match[3] == "transcoders" else "of the attention heads (o_proj)"
        raise sae.refuse(f"it is {what}: it reads a module's input", value=match[0])
    layer, l0 = re.search(r"layer_(\d+)", path), re.search(r"average_l0_(\d+)", path)
    suffix = "-it" if match and match[2] == "it" else ""
    return {
        # Without the repository's name nothing says what is read: residual, MLP or attention.
        "hookpoint": _GEMMA_SITES[match[3]].format(layer[1]) if match and layer else None,
        "model_name": f"google/gemma-2-{match[1]}{suffix}" if match else None,
        "declared_l0": float(l0[1]) if l0 else None,
    }


GEMMA_SCOPE = Layout(
    name="gemma_scope",
    title="Gemma Scope",
    files=("params.npz",),
    loads="residual and MLP SAEs",
    refuses="attention SAEs (they read the input of o_proj), embedding SAEs, transcoders",
    oracle="the definition, in float64; sae-lens 6.54.12",
    names={"": Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_enc",))},
    constants=_JUMPRELU,
    facts=_gemma_scope,
)


def _gemma_scope_2(sae: Checkpoint) -> Mapping[str, Any]:
    """The configuration names modules of transformers, and models as "gemma-v3-1b-it"."""
    config = sae.config
    hook, hook_out = (str(config.get(f"hf_hook_point_{way}") or "") for way in ("in", "out"))
    if hook_out and hook != hook_out:
        raise sae.refuse(ONE_PLACE, "hf_hook_point_in")
    if config.get("affine_connection") or "affine_skip_connection" in sae.header:
        raise sae.refuse("it has a skip connection, so its latents tell only a part",
                           "affine_connection", value=True)  # fmt: skip
    mlp = _MLP_OUT.search(hook)
    if hook and not mlp and hookpoint_of(hook) is None:
        raise sae.refuse("it reads a place that is no output of a block or MLP",
                           "hf_hook_point_in")  # fmt: skip
    l0, name = config.get("l0"), str(config.get("model_name") or "")
    name = name.rsplit("/", 1)[-1].replace("-v3", "-3")
    name = name.removesuffix("-pt") if "270m" in name else name
    return {
        "hookpoint": f"mlp@{mlp[1]}" if mlp else canonical(hook) or None,
        "model_name": f"google/{name}" if name else None,
        "declared_l0": float(l0) if isinstance(l0, int | float) else None,
    }


GEMMA_SCOPE_2 = Layout(
    name="gemma_scope_2",
    title="Gemma Scope 2",
    files=("config.json", "params.safetensors"),
    loads="residual and MLP SAEs",
    refuses="attention SAEs (they read the input of o_proj), transcoders, cross-layer and skip"
    " SAEs",
    oracle="the definition, in float64; sae-lens 6.54.12",
    names={"": Names("w_enc", "b_enc", "w_dec", "b_dec", transposed=("w_enc",))},
    constants=_JUMPRELU,
    activation=Choice("architecture", {"jump_relu": "jumprelu", "jumprelu": "jumprelu"},
                      "only jump_relu is read here"),
    facts=_gemma_scope_2,
)  # fmt: skip


def _qwen_scope(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `SAE-Res-{model}-W{n}K-L0_{k}/layer{n}.sae.pt`: k is said by the name alone."""
    path = sae.path.absolute().as_posix()
    repository = re.search(r"SAE-Res-([\w.-]+)-W\d+K-L0_(\d+)", path)
    if repository is None:
        raise sae.refuse("how many latents are active is said by the repository's name alone"
                           " (...-L0_50), and this path has none",
                           value=sae.path.as_posix())  # fmt: skip
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


_OPENAI_SITES = {"resid_post_mlp": "layers.{}", "resid_delta_mlp": "mlp@{}",
                 "resid_delta_attn": "attn@{}"}  # fmt: skip


def _openai(sae: Checkpoint) -> Mapping[str, Any]:
    """Of `resid_post_mlp_v5_32k/autoencoders/8.pt`; TopK ones normalize every token first."""
    contents, path = sae.contents, sae.path.as_posix()
    if "decoder.weight" not in contents and "encoder.weight" in contents:
        raise sae.refuse("a decoder that is tied to the encoder is not read")
    if "resid_post_attn" in path:
        raise sae.refuse("it reads the residual stream between attention and MLP, which is no"
                           " output of a module", value=path)  # fmt: skip
    activation, state = (
        str(contents.get("activation", "ReLU")),
        contents.get("activation_state_dict"),
    )
    state = state if isinstance(state, Mapping) else {}
    if activation not in ("TopK", "ReLU"):
        raise sae.refuse("only TopK and ReLU are read", "activation", activation)
    if state.get("postact_fn", "ReLU") != "ReLU":
        raise sae.refuse("latents must not be negative, so relu is needed after the top k",
                           "activation_state_dict.postact_fn", state["postact_fn"])  # fmt: skip
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
    loads="TopK with layer norm, and ReLU",
    refuses="tied decoders",
    oracle="model.py's definition, in float64",
    names={"": Names("encoder.weight", "latent_bias", "decoder.weight", "pre_bias",
                     transposed=("w_dec",))},
    k_key="activation_state_dict.k",
    facts=_openai,
)  # fmt: skip


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
    names={"": Names("encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight",
                     "decoder_linear.bias", transposed=("w_dec",))},
    constants={"activation": "relu", "centers": False},
    facts=_goodfire,
)  # fmt: skip
