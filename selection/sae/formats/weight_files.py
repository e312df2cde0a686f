"""Weight files of every kind as data: nothing in them is ever executed."""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.metadata import SaeInfo

if TYPE_CHECKING:
    from selection.sae.formats.layout import Checkpoint

_SMALL = 64 << 20  # bytes; tensors of zeros may shrink so far
_MAX_RATIO = 20
_AGAIN = "Download or train it again."
_DAMAGED = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
    SafetensorError,
)
"""What is raised when bytes are not those that were written."""


@dataclass(slots=True)
class Weights:
    """Tensors on their way to a SparseCoder, in its shapes.

    extra: threshold, magnitude_scale, magnitude_bias, act_scale. input_scale: as in SaeInfo.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    input_scale: float = 1.0

    def fold_decoder_norms(self) -> None:
        """Values in units of decoder rows of norm 1: the norms go into the encoder."""
        norms = self.w_dec.norm(dim=1)
        self.w_enc, self.b_enc = self.w_enc * norms[:, None], self.b_enc * norms
        self.w_dec = self.w_dec / norms[:, None]

    def add_negatives(self) -> None:
        """Latent M + j becomes the negative side of latent j."""
        self.w_enc, self.b_enc, self.w_dec = (
            torch.cat([tensor, -tensor]) for tensor in (self.w_enc, self.b_enc, self.w_dec)
        )

    def scale_input(self, scale: float) -> None:
        """Activations were multiplied with this: it goes into the weights, latents stay."""
        self.input_scale = scale
        self.w_enc = self.w_enc * scale
        self.w_dec, self.b_dec = self.w_dec / scale, self.b_dec / scale

    def set_threshold(self, value: float) -> None:
        """One threshold for all latents."""
        self.extra["threshold"] = torch.full((len(self.w_enc),), value)

    def coder(self, file: Path, info: SaeInfo) -> SparseCoder:
        """The finished coder. Raises InputError naming the file where the shapes contradict."""
        try:
            return make_coder(
                self.w_enc, self.b_enc, self.w_dec, self.b_dec, info=info, **self.extra
            )
        except ValueError as error:
            raise InputError(
                f"the weights do not agree with the configuration: {error}",
                file=file,
                remedy=_AGAIN,
            ) from None


def main_weights(sae: "Checkpoint", info: SaeInfo) -> Weights:
    """The tensors that the layout names, as float32 and transposed where it says so.

    Raises InputError naming what is missing.
    """
    names, file, contents = sae.names, sae.weights_file, sae.contents
    if not names.b_enc:
        contents = contents | {"": torch.zeros(info.num_latents)}
    key = sae.layout.bias_key
    biased = not key or sae.config.get(key, names.b_dec in contents)
    tensors = tensors_of(file, contents, names.main if biased else names.main[:3])
    w_enc, b_enc, w_dec, b_dec = (*tensors, torch.zeros(0))[:4]
    weights = Weights(w_enc, b_enc, w_dec, b_dec)
    for name in names.transposed:
        setattr(weights, name, getattr(weights, name).T.contiguous())
    if not biased:  # as wide as the weights are: a damaged configuration may say any number
        weights.b_dec = torch.zeros(weights.w_dec.shape[-1] if weights.w_dec.ndim else 0)
    if names.magnitudes is not None:
        log_scale, bias = tensors_of(file, contents, names.magnitudes)
        weights.extra |= {"magnitude_scale": log_scale.exp(), "magnitude_bias": bias}
    if info.activation == "jumprelu" and names.log_threshold:
        weights.extra["threshold"] = _threshold(sae, len(weights.w_enc))
    return weights


def _threshold(sae: "Checkpoint", n_latents: int) -> Tensor:
    names = sae.names
    if names.threshold not in sae.contents and names.log_threshold in sae.contents:
        (logarithm,) = tensors_of(sae.weights_file, sae.contents, [names.log_threshold])
        return logarithm.exp()
    (threshold,) = tensors_of(sae.weights_file, sae.contents, [names.threshold])
    return threshold if threshold.ndim else torch.full((n_latents,), float(threshold))


def read_weights(file: Path) -> dict[str, Any]:
    """Everything in a file of weights, on the CPU, by its suffix.

    Raises InputError for a damaged file, and for a pickle of anything but tensors, numbers, strings
    and containers of them: code in it is never run.
    """
    try:
        _refuse_bomb(file)
        if file.suffix == ".safetensors":
            return load_file(file)
        if file.suffix == ".npz":
            # Opened here: of a damaged archive, numpy would leave the file open.
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle protocol that nobody wrote
            contents = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "this file holds more than weights, and Python code in it is never run"
            f" ({str(error).splitlines()[0][:120]})",
            file=file,
            remedy="Use a file of tensors only (a state dict), better a safetensors file.",
        ) from None
    except _DAMAGED as error:
        raise _unreadable(file, error) from None
    if not isinstance(contents, dict):
        raise InputError(
            "expected a dict of tensors", file=file, value=type(contents).__name__, remedy=_AGAIN
        )
    return contents


def _refuse_bomb(file: Path) -> None:
    """Raise InputError for an archive that unpacks to far more than weights shrink to."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > max(_SMALL, _MAX_RATIO * file.stat().st_size):
        raise InputError(
            f"this archive of {file.stat().st_size:,} bytes unpacks to {size:,}: no weights do",
            file=file,
            remedy=_AGAIN,
        )


def safetensors_shapes(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) from the header alone. Raises InputError."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no dict
            return {n: (tuple(s.get_shape()), str(s.get_dtype())) for n, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def tensors_of(file: Path, contents: Mapping[str, object], names: Sequence[str]) -> list[Tensor]:
    """These tensors as float32, in order. Raises InputError naming what is missing."""
    tensors = [
        value.detach().to(torch.float32)
        for value in map(contents.get, names)
        if isinstance(value, Tensor)
    ]
    if len(tensors) < len(names):
        missing = [name for name in names if not isinstance(contents.get(name), Tensor)]
        raise InputError(
            f"the tensors {', '.join(missing)} are missing",
            file=file,
            value=sorted(map(str, contents)),
            remedy="Use a checkpoint with encoder and decoder.",
        )
    return tensors


def _unreadable(file: Path, error: Exception) -> InputError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return InputError(f"the weights cannot be read ({first})", file=file, remedy=_AGAIN)
