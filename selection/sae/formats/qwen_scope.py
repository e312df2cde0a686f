"""Qwen Scope: one pickled state dict per layer, `layer{n}.sae.pt`.

W_enc (M, D), W_dec (D, M), b_enc, b_dec; TopK without subtraction of the decoder's bias. How many
latents are active stands in the repository's name alone: `SAE-Res-{model}-W{n}K-L0_{k}`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from selection.sae.coder import SparseCoder
from selection.sae.formats.weight_files import built, dtype_name, read_pickle, refuse, tensors_of
from selection.sae.metadata import SaeInfo, licence_of

_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def read_info(place: Path) -> SaeInfo:
    """From the path and the file itself. Raises InputError."""
    return _info(place, read_pickle(place))


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    found = read_pickle(place)
    info = _info(place, found)
    w_enc, b_enc, w_dec, b_dec = tensors_of(place, found, _NAMES)
    return built(place, info, (w_enc, b_enc, w_dec.T, b_dec))


def _info(place: Path, found: Mapping[str, object]) -> SaeInfo:
    tensors_of(place, found, _NAMES)
    weight = found["W_enc"]
    n_latents, d_in = weight.shape if isinstance(weight, Tensor) else (0, 0)
    path = place.absolute().as_posix()
    repository = re.search(r"SAE-Res-([\w.-]+)-W\d+K-L0_(\d+)", path)
    if repository is None:
        raise refuse(place, "how many latents are active is said by the repository's name alone"
                     " (...-L0_50), and this path has none", value=place.as_posix())  # fmt: skip
    k, layer = int(repository[2]), re.fullmatch(r"layer(\d+)\.sae", place.stem)
    if not 1 <= k <= n_latents:
        raise refuse(place, f"expected 1 to {n_latents} active latents", value=k)
    return SaeInfo(
        path=str(place),
        hookpoint=f"layers.{layer[1]}" if layer else None,
        d_in=d_in,
        num_latents=n_latents,
        k=k,
        activation="topk",
        model_name=f"Qwen/{repository[1]}",
        licence=licence_of(place.parent),
        family="qwen_scope",
        centers=False,
        dtype=dtype_name(weight) if isinstance(weight, Tensor) else None,
    )
