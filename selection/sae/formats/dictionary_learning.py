"""dictionary_learning: `ae.pt`, a pickled state dict, and `config.json` {trainer, buffer}.

The class named in the configuration decides; its input norm is folded before the final save. A
threshold of -1 means that it was never set: then TopK SAEs do not need it and others are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from selection.sae.coder import SparseCoder
from selection.sae.formats.weight_files import built, read_pickle, refuse, tensors_of
from selection.sae.metadata import SaeInfo, licence_of, read_object

CONFIG, WEIGHTS = "config.json", "ae.pt"
_SITES = {"resid_post": "layers.{}", "mlp_out": "mlp@{}", "attn_out": "attn@{}"}
_ACTIVATIONS = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
}
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")


def _section(file: Path, found: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = found.get(name) or {}
    if not isinstance(section, dict):
        raise refuse(file, "expected a mapping", field=name, value=section)
    return section


def read_info(place: Path) -> SaeInfo:
    """From config.json. Raises InputError."""
    file = place / CONFIG
    found = read_object(file)
    trainer, buffer = (_section(file, found, name) for name in ("trainer", "buffer"))
    name = str(trainer.get("dict_class") or "")
    if name not in _ACTIVATIONS:
        raise refuse(file, f"this class is not read (known: {', '.join(_ACTIVATIONS)})",
                     field="trainer.dict_class", value=name or None)  # fmt: skip
    if buffer.get("io") in ("in", "in_and_out"):
        raise refuse(file, "it reads a module's input", field="buffer.io", value=buffer["io"])
    d_in, n_latents = (trainer.get(key) for key in ("activation_dim", "dict_size"))
    if not (isinstance(d_in, int) and isinstance(n_latents, int)):
        raise refuse(file, "expected activation_dim and dict_size", field="trainer",
                     value=sorted(trainer))  # fmt: skip
    k, layer = trainer.get("k"), trainer.get("layer")
    top_k = int(k) if name == "AutoEncoderTopK" and isinstance(k, int | float) else 0
    if name == "AutoEncoderTopK" and not 1 <= top_k <= n_latents:
        raise refuse(file, f"expected 1 to {n_latents}", field="trainer.k", value=k)
    site = next((s for s in _SITES if s in str(trainer.get("submodule_name") or "")), "resid_post")
    return SaeInfo(
        path=str(place),
        hookpoint=_SITES[site].format(layer) if isinstance(layer, int) else None,
        d_in=d_in,
        num_latents=n_latents,
        k=top_k,
        activation=_ACTIVATIONS[name],
        model_name=str(trainer["lm_name"]) if trainer.get("lm_name") else None,
        licence=licence_of(place),
        family="dictionary_learning",
        centers=name not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
        declared_l0=float(k) if isinstance(k, int | float) and not top_k else None,
        positions=f"context {buffer['ctx_len']}" if buffer.get("ctx_len") else None,
    )


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    file, info = place / WEIGHTS, read_info(place)
    found = read_pickle(file)
    if isinstance(found.get("ae"), Mapping):
        raise refuse(file, "this is a checkpoint from the middle of a training, whose weights do"
                     " not fit activations as they come", value=sorted(found))  # fmt: skip
    trainer = cast(Mapping[str, object], read_object(place / CONFIG)["trainer"])
    name = str(trainer["dict_class"])
    return _of_class(name, file, info, found)


def _of_class(name: str, file: Path, info: SaeInfo, found: Mapping[str, object]) -> SparseCoder:
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        w_enc, b_enc, w_dec, b_dec = tensors_of(file, found, ("W_enc", "b_enc", "W_dec", "b_dec"))
        return built(file, info, (w_enc.T, b_enc, w_dec, b_dec),
                     threshold=_threshold(file, found, info.num_latents))  # fmt: skip
    if name == "GatedAutoEncoder":
        w_enc, w_dec, b_dec, b_gate, b_mag, r_mag = tensors_of(
            file,
            found,
            ("encoder.weight", "decoder.weight", "decoder_bias", "gate_bias", "mag_bias", "r_mag"),
        )
        return built(file, info, (w_enc, b_gate, w_dec.T, b_dec), magnitude_scale=r_mag.exp(),
                     magnitude_bias=b_mag)  # fmt: skip
    bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(name, "b_dec")
    w_enc, b_enc, w_dec, b_dec = tensors_of(file, found, (*_LINEAR, bias))
    w_dec = w_dec.T
    if name in ("AutoEncoder", "AutoEncoderNew"):
        # Both classes tell features in units of unit decoder rows: the first when it loads, the
        # second when it puts features out.
        norms = w_dec.norm(dim=1)
        w_enc, b_enc, w_dec = w_enc * norms[:, None], b_enc * norms, w_dec / norms[:, None]
    threshold = _threshold(file, found, info.num_latents) if name == "BatchTopKSAE" else None
    return built(file, info, (w_enc, b_enc, w_dec, b_dec), threshold=threshold)


def _threshold(file: Path, found: Mapping[str, object], n_latents: int) -> Tensor:
    (threshold,) = tensors_of(file, found, ("threshold",))
    if bool((threshold < 0).any()):
        raise refuse(file, "the threshold was never set: the training was too short", value=-1,
                     field="threshold")  # fmt: skip
    return threshold if threshold.ndim else torch.full((n_latents,), float(threshold))
