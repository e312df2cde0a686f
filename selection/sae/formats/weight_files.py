"""Reading weight files of every kind as data: nothing in them is ever executed."""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.metadata import SaeInfo

_AGAIN = "Download or train it again."
_DAMAGED = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    OverflowError, MemoryError, AssertionError, struct.error,
)  # fmt: skip
"""What unpickler and unzipper raise when bytes are not those that were written."""


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU. Raises InputError."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def safetensors_shapes(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) from the header alone. Raises InputError."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {n: (tuple(s.get_shape()), str(s.get_dtype())) for n, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def read_npz(file: Path) -> dict[str, Tensor]:
    """Arrays of an .npz file as tensors; an array of Python objects is refused.

    Raises InputError.
    """
    try:
        # Opened here: of a damaged archive, numpy would leave the file open.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise _unreadable(file, error) from None


def read_pickle(file: Path) -> dict[str, object]:
    """A dict of tensors and plain values from a torch file, without running code in it.

    Raises InputError for anything but tensors, numbers, strings and containers of them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle protocol that nobody wrote
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "this file holds more than weights, and Python code in it is never run"
            f" ({str(error).splitlines()[0][:120]})",
            file=file,
            remedy="Use a file of tensors only (a state dict), better a safetensors file.",
        ) from None
    except _DAMAGED as error:
        raise _unreadable(file, error) from None
    if not isinstance(found, dict):
        raise InputError("expected a dict of tensors", file=file, value=type(found).__name__,
                         remedy=_AGAIN)  # fmt: skip
    return found


def tensors_of(file: Path, found: Mapping[str, object], names: Sequence[str]) -> list[Tensor]:
    """These tensors as float32, in order. Raises InputError naming what is missing."""
    missing = [name for name in names if not isinstance(found.get(name), Tensor)]
    if missing:
        raise InputError(
            f"the tensors {', '.join(missing)} are missing",
            file=file,
            value=sorted(found),
            remedy="Use a checkpoint with encoder and decoder.",
        )
    return [_as_float(found[name]) for name in names]


def built(
    file: Path,
    info: SaeInfo,
    main: tuple[Tensor, Tensor, Tensor, Tensor],
    **extra: Tensor | None,
) -> SparseCoder:
    """`make_coder`, with a contradiction told as the file's fault. Raises InputError."""
    try:
        w_enc, b_enc, w_dec, b_dec = main
        return make_coder(w_enc, b_enc, w_dec, b_dec, info=info, **extra)
    except ValueError as error:
        raise InputError(
            f"the weights do not agree with the configuration: {error}", file=file, remedy=_AGAIN
        ) from None


def refuse(
    file: Path, problem: str, *, field: str | None = None, value: object = None
) -> InputError:
    """The error for an SAE of a kind that cannot be read correctly."""
    return InputError(
        problem,
        file=file,
        field=field,
        value=value,
        remedy="This SAE cannot be used; choose another (`saelect models` lists formats).",
    )


def dtype_name(tensor: Tensor) -> str:
    """For people, e.g. "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def _as_float(tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a tensor, found {type(tensor).__name__}")
    return tensor.detach().to(torch.float32)


def _unreadable(file: Path, error: Exception) -> InputError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return InputError(f"the weights cannot be read ({first})", file=file, remedy=_AGAIN)
