"""Write SAEs in SAELens' format (version 6), for its users and for what sparsify's cannot hold."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from selection.models.hookpoints import place_of
from selection.sae.coder import SparseCoder
from selection.sae.formats.load import write_json
from selection.sae.formats.saelens import CONFIG, WEIGHTS
from selection.sae.metadata import RECORD

_ARCHITECTURES = {"topk": "topk", "relu": "standard", "jumprelu": "jumprelu"}
_HOOKS = {"resid": "hook_resid_post", "mlp": "hook_mlp_out", "attn": "hook_attn_out"}
_WRITTEN_FOR = "6.0.0"  # without a version of 6 or later SAELens takes a config for an older one


def save_saelens(
    coder: SparseCoder, folder: Path, record: Mapping[str, object] | None = None
) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` that SAELens reads.

    record: goes to `saelect.json`, as in `save_sparsify`.
    cfg.json is written last: without it the folder is no SAE. Raises ValueError for a coder that
    the format cannot hold.
    """
    info = coder.info
    if info.activation not in _ARCHITECTURES or coder.act_scale is not None:
        raise ValueError(f"SAELens' format is not written for this SAE ({info.activation})")
    tensors = {"W_enc": coder.encoder_weight.T, "b_enc": coder.encoder_bias,
               "W_dec": coder.decoder_weight, "b_dec": coder.decoder_bias}  # fmt: skip
    if coder.threshold is not None:
        tensors["threshold"] = coder.threshold
    place = place_of(info.hookpoint)
    hook = f"blocks.{place[1]}.{_HOOKS[place[0]]}" if place else info.hookpoint
    metadata = {"sae_lens_version": _WRITTEN_FOR, "model_name": info.model_name,
                "hook_name": hook, "l0": info.declared_l0}  # fmt: skip
    config: dict[str, object] = {
        "architecture": _ARCHITECTURES[info.activation],
        "d_in": info.d_in,
        "d_sae": info.num_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": info.centers,
        "normalize_activations": {"sqrt_d": "constant_norm_rescale"}.get(
            info.input_norm, info.input_norm
        ),
        "reshape_activations": "none",
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
    if info.activation == "topk":
        config |= {"k": info.k, "rescale_acts_by_decoder_norm": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    temp = folder / f".tmp-{os.getpid()}-{WEIGHTS}"
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temp)
    os.replace(temp, folder / WEIGHTS)
    known = {"model": info.model_name, "model_sha256": info.model_sha256,
             "hookpoint": info.hookpoint, "licence": info.licence}  # fmt: skip
    full = {key: value for key, value in known.items() if value} | dict(info.record)
    write_json(folder / RECORD, full | dict(record or {}) | {"sha256": info.sha256})
    write_json(folder / CONFIG, config)
