"""Gemma Scope: `layer_L/width_W/average_l0_n/params.npz`; the path says all that the file does not.

W_enc (D, M), W_dec (M, D), b_enc, b_dec, threshold (M,), float32; JumpReLU, no subtraction of the
decoder's bias. BOS was not trained on.
"""

import re
from pathlib import Path

from selection.sae.coder import SparseCoder
from selection.sae.formats.registry import repository_of
from selection.sae.formats.weight_files import built, dtype_name, read_npz, refuse, tensors_of
from selection.sae.metadata import SaeInfo, licence_of

WEIGHTS = "params.npz"
_SITES = {"res": "layers.{}", "mlp": "mlp@{}"}


def read_info(place: Path) -> SaeInfo:
    """From the path and the header of the weights. Raises InputError."""
    file, path = place / WEIGHTS, place.as_posix()
    tensors = read_npz(file)
    (w_enc,) = tensors_of(file, tensors, ("W_enc",))
    if "embedding" in path:
        raise refuse(file, "it reads the embedding, which is no output of a block")
    repository = repository_of(place) or path
    match = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)", repository)
    if match and match[3] not in _SITES:
        what = "a transcoder" if match[3] == "transcoders" else "of the attention heads (o_proj)"
        raise refuse(file, f"it is {what}: it reads a module's input", value=match[0])
    layer, l0 = re.search(r"layer_(\d+)", path), re.search(r"average_l0_(\d+)", path)
    site = _SITES[match[3] if match else "res"]
    suffix = "-it" if match and match[2] == "it" else ""
    return SaeInfo(
        path=str(place),
        hookpoint=site.format(layer[1]) if layer else None,
        d_in=w_enc.shape[0],
        num_latents=w_enc.shape[-1],
        k=0,
        activation="jumprelu",
        model_name=f"google/gemma-2-{match[1]}{suffix}" if match else None,
        licence=licence_of(place),
        family="gemma_scope",
        centers=False,
        declared_l0=float(l0[1]) if l0 else None,
        positions="all but BOS",
        dtype=dtype_name(tensors["W_enc"]),
    )


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    info, file = read_info(place), place / WEIGHTS
    w_enc, b_enc, w_dec, b_dec, threshold = tensors_of(
        file, read_npz(file), ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    )
    return built(file, info, (w_enc.T, b_enc, w_dec, b_dec), threshold=threshold)
