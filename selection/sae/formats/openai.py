"""OpenAI's GPT-2 SAEs: one pickled state dict per place and layer, `{layer}.pt`.

pre_bias (D,), latent_bias (M,), encoder.weight (M, D), decoder.weight (D, M), and the activation's
name as a string. TopK ones normalize every token first (mean 0, standard deviation 1); ReLU ones
do not. The path `.../resid_post_mlp_v5_32k/autoencoders/8.pt` tells place and layer.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from selection.sae.coder import SparseCoder
from selection.sae.formats.weight_files import built, dtype_name, read_pickle, refuse, tensors_of
from selection.sae.metadata import SaeInfo, licence_of

_NAMES = ("encoder.weight", "latent_bias", "decoder.weight", "pre_bias")
_SITES = (
    ("resid_post_mlp", "layers.{}"),
    ("resid_delta_mlp", "mlp@{}"),
    ("resid_delta_attn", "attn@{}"),
)


def read_info(place: Path) -> SaeInfo:
    """From the file itself. Raises InputError."""
    return _info(place, read_pickle(place))


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    found = read_pickle(place)
    info = _info(place, found)
    w_enc, b_enc, w_dec, b_dec = tensors_of(place, found, _NAMES)
    return built(place, info, (w_enc, b_enc, w_dec.T, b_dec))


def _info(place: Path, found: Mapping[str, object]) -> SaeInfo:
    if "decoder.weight" not in found and "encoder.weight" in found:
        raise refuse(place, "a decoder that is tied to the encoder is not read")
    tensors_of(place, found, _NAMES)
    weight = found["encoder.weight"]
    n_latents, d_in = weight.shape if isinstance(weight, Tensor) else (0, 0)
    activation, state = str(found.get("activation", "ReLU")), found.get("activation_state_dict")
    k = state.get("k", 0) if isinstance(state, Mapping) else 0
    if activation not in ("TopK", "ReLU"):
        raise refuse(place, "only TopK and ReLU are read", field="activation", value=activation)
    if activation == "TopK" and (not isinstance(k, int) or not 1 <= k <= n_latents):
        raise refuse(place, f"expected 1 to {n_latents}", field="activation_state_dict.k", value=k)
    after = state.get("postact_fn", "ReLU") if isinstance(state, Mapping) else "ReLU"
    if after != "ReLU":
        raise refuse(place, "latents must not be negative, so relu is needed after the top k",
                     field="activation_state_dict.postact_fn", value=after)  # fmt: skip
    path = place.as_posix()
    site = next((pattern for name, pattern in _SITES if name in path), None)
    layer = re.fullmatch(r"\d+", place.stem)
    if "resid_post_attn" in path:
        raise refuse(place, "it reads the residual stream between attention and MLP, which is no"
                     " output of a module", value=path)  # fmt: skip
    return SaeInfo(
        path=str(place),
        hookpoint=site.format(layer[0]) if site and layer else None,
        d_in=d_in,
        num_latents=n_latents,
        k=k if activation == "TopK" else 0,
        activation="topk" if activation == "TopK" else "relu",
        model_name="openai-community/gpt2" if site else None,
        licence=licence_of(place.parent),
        family="openai",
        input_norm="layer_norm" if activation == "TopK" else "none",
        positions="context 64" if site else None,
        dtype=dtype_name(weight) if isinstance(weight, Tensor) else None,
    )
