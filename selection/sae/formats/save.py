"""Write SAEs in the formats of sparsify and SAELens.

SAELens' (version 6) is for its users and for what sparsify's cannot hold.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from selection.models.hookpoints import hookpoint_of
from selection.sae.coder import SparseCoder
from selection.sae.formats.layout import Layout
from selection.sae.formats.libraries import SAELENS, SPARSIFY
from selection.sae.metadata import RECORD

_ARCHITECTURES = {
    "topk": "topk",
    "relu": "standard",
    "jumprelu": "jumprelu",
    "seminmf": "seminmf",
    "matching_pursuit": "matching_pursuit",
    "codebook": "codebook",
}
_HOOKS = {
    "resid": "blocks.{}.hook_resid_post",
    "mlp": "blocks.{}.hook_mlp_out",
    "attn": "blocks.{}.hook_attn_out",
    "mlp_module": "layers.{}.mlp",
    "attn_module": "layers.{}.self_attn",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "mlp_norm": "blocks.{}.ln2.hook_normalized",
    "mlp_in": "blocks.{}.mlp.hook_in",
    "heads": "blocks.{}.attn.hook_z",
    "mlp_hidden": "blocks.{}.mlp.hook_post",
}
"""TransformerLens' names of hookpoints; it has none for a module's output before a norm."""
_WRITTEN_FOR = "6.0.0"  # without a version of 6 or later SAELens takes a config for an older one


def save_sparsify(
    coder: SparseCoder, folder: Path, record: Mapping[str, object] | None = None
) -> None:
    """Write a checkpoint that `load_sae` and eai-sparsify read.

    record: goes to `saelect.json`; the keys model, model_sha256, hookpoint and licence come back
            as fields of SaeInfo, others (training, quality) as `SaeInfo.record`. Defaults to
            what `coder.info` knows.
    cfg.json is written last: without it the folder is no SAE. Raises ValueError for a coder that
    the format cannot hold.
    """
    info = coder.info
    fits = info.activation in ("topk", "groupmax") and info.centers and info.input_norm == "none"
    if not fits or coder.act_scale is not None:
        raise ValueError(f"the sparsify format cannot hold this SAE ({info.activation})")
    config = {
        "activation": info.activation,
        "expansion_factor": max(1, round(info.num_latents / info.d_in)),
        "normalize_decoder": True,
        "num_latents": info.num_latents,
        "k": info.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": info.d_in,
    }
    main = (coder.encoder_weight, coder.encoder_bias, coder.decoder_weight, coder.decoder_bias)
    tensors = dict(zip(SPARSIFY.names[""].main, main, strict=True))
    _write(coder, folder, SPARSIFY, tensors, config, record)


def save_saelens(
    coder: SparseCoder, folder: Path, record: Mapping[str, object] | None = None
) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` that SAELens reads; see `save_sparsify`.

    A semi-NMF and a codebook are written in the same layout, and SAELens refuses them by the
    architecture's name.
    """
    info = coder.info
    if info.activation not in _ARCHITECTURES or coder.act_scale is not None:
        raise ValueError(f"SAELens' format is not written for this SAE ({info.activation})")
    tensors = {
        "W_enc": coder.encoder_weight.T,
        "b_enc": coder.encoder_bias,
        "W_dec": coder.decoder_weight,
        "b_dec": coder.decoder_bias,
    }
    if info.activation == "seminmf":
        tensors.pop("W_enc")  # it is W_dec
    if coder.threshold is not None:
        tensors["threshold"] = coder.threshold
    if info.activation == "matching_pursuit":
        _refuse_untied(coder)
        tensors = {name: tensors[name] for name in ("W_dec", "b_dec")}
    hookpoint = hookpoint_of(info.hookpoint)
    hook = info.hookpoint
    if hookpoint is not None:
        hook = _HOOKS[hookpoint.site].format(hookpoint.block)
    metadata = {
        "sae_lens_version": _WRITTEN_FOR,
        "model_name": info.model_name,
        "hook_name": hook,
        "l0": info.declared_l0,
    }
    norm = "constant_norm_rescale" if info.input_norm == "sqrt_d" else info.input_norm
    config: dict[str, object] = {
        "architecture": _ARCHITECTURES[info.activation],
        "d_in": info.d_in,
        "d_sae": info.num_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": info.centers,
        "normalize_activations": norm,
        "reshape_activations": "none",
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
    if info.activation == "topk":
        config |= {"k": info.k, "rescale_acts_by_decoder_norm": False}
    if info.activation == "seminmf":
        config |= {"k": info.k}
    if info.activation == "codebook":
        config |= {"k": info.k, "groups": info.groups}
    if info.activation == "matching_pursuit":
        config |= {
            "residual_threshold": info.residual_threshold,
            "max_iterations": info.k,
            "stop_on_duplicate_support": True,
        }
    _write(coder, folder, SAELENS, tensors, config, record)


def _refuse_untied(coder: SparseCoder) -> None:
    """Raise ValueError for what SAELens' matching pursuit, of one dictionary, cannot hold."""
    tied = torch.equal(coder.encoder_weight, coder.decoder_weight)
    unbiased = not coder.encoder_bias.any() and (coder.info.centers or not coder.decoder_bias.any())
    if not (tied and unbiased):
        raise ValueError("SAELens' matching pursuit has one dictionary, and a bias to be centered")


def _write(
    coder: SparseCoder,
    folder: Path,
    layout: Layout,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object],
    record: Mapping[str, object] | None,
) -> None:
    """Weights, then `saelect.json`, then the configuration."""
    info, (config_name, weights_name) = coder.info, layout.files
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).unlink(missing_ok=True)
    temp = folder / f".tmp-{os.getpid()}-{weights_name}"
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temp)
    os.replace(temp, folder / weights_name)
    known = {
        "model": info.model_name,
        "model_sha256": info.model_sha256,
        "hookpoint": info.hookpoint,
        "licence": info.licence,
    }
    full = {key: value for key, value in known.items() if value} | dict(info.record)
    _write_json(folder / RECORD, full | dict(record or {}) | {"sha256": info.sha256})
    _write_json(folder / config_name, config)


def _write_json(file: Path, value: Mapping[str, object]) -> None:
    """An object on several lines."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_trained(coder: SparseCoder, folder: Path, record: Mapping[str, object]) -> None:
    """Write it for SAELens and, where that format can hold it, for sparsify.

    `folder` has the one that saelect reads: sparsify's for TopK, SAELens' for what selects by a
    threshold. A TopK SAE's copy for SAELens lies in `../saelens/<name>`; the copy is written
    first, since `folder` being there means that the training is done.
    """
    if coder.info.activation == "topk":
        save_saelens(coder, folder.parent / "saelens" / folder.name, record)
        save_sparsify(coder, folder, record)
    else:
        save_saelens(coder, folder, record)
