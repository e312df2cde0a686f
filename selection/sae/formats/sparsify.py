"""sparsify: `cfg.json` and `sae.safetensors` in a folder named after the module it reads.

encoder.weight (M, D), encoder.bias (M,), W_dec (M, D), b_dec (D,). `normalize_decoder` is a rule of
training only: the stored decoder is used as it is. What `saelect.json` beside it says about model,
hookpoint and training is read too.
"""

from dataclasses import replace
from pathlib import Path

from selection.sae.coder import SparseCoder
from selection.sae.formats.weight_files import built, dtype_name, read_safetensors, tensors_of
from selection.sae.metadata import WEIGHTS, SaeInfo
from selection.sae.metadata import read_info as read_config

NAMES = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def read_info(place: Path) -> SaeInfo:
    """From cfg.json, saelect.json and the run's config.json. Raises InputError."""
    return read_config(place)


def load(place: Path) -> SparseCoder:
    """Read it. Raises InputError."""
    info, file = read_config(place), place / WEIGHTS
    tensors = read_safetensors(file)
    w_enc, b_enc, w_dec, b_dec = tensors_of(file, tensors, NAMES)
    info = replace(info, dtype=dtype_name(tensors[NAMES[0]]))
    return built(file, info, (w_enc, b_enc, w_dec, b_dec))
