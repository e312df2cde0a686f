"""Which files of a folder are a model's weights, and whether they are whole; nothing is loaded.

As transformers chooses: `model.safetensors`, else the parts that its index names, else the same of
`pytorch_model.bin`. Other files (optimizer states, stray weights) are no part of the model, nor of
its hash.
"""

import hashlib
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selection.core.errors import InputError
from selection.core.json_text import parsed

_STEMS = (("model", "safetensors"), ("pytorch_model", "bin"))
_AGAIN = "Download it again, for example with `hf download`."
_MAX_HEADER = 100_000_000  # bytes; the limit of the format's own library
_LFS = b"version https://git-lfs"
_FLOATS = ("F64", "F32", "F16", "BF16")
_QUANTISED = re.compile(
    r"\.(qweight|scales|qzeros|weight_scale|weight_scale_inv|weight_packed|SCB|absmax"
    r"|quant_state\..+|W_q)$"
)
"""Names of tensors beside quantised weights: GPTQ, AWQ, FP8, compressed-tensors, bnb, HQQ."""
_MOST_EDGE = 64  # bytes of a matrix that are looked at, at both ends and in the middle
_BLOCK = re.compile(r"^(.*?(?:^|\.)(?:layers|layer|h|blocks))\.(\d+)\.")
_SEES_OR_HEARS = re.compile(r"vis|image|img|audio|speech|sound|depth_")
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
_ROWS_BEYOND = {"mllama": 8, "mllama_text_model": 8, "moshi": 1}
"""Rows of the embedding that these models have beyond their vocabulary, for pictures and starts."""


def weight_files(folder: Path) -> list[Path]:
    """The files that make up the weights, in order; [] for none. Raises InputError."""
    for stem, suffix in _STEMS:
        whole = folder / f"{stem}.{suffix}"
        if whole.is_file():
            return [whole]
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            return _parts(index)
        parts = sorted(folder.glob(f"{stem}-*-of-*.{suffix}"))
        if parts:
            raise InputError(
                "the index of these parts of the weights is missing",
                file=index,
                value=[part.name for part in parts[:3]],
                remedy=_AGAIN,
            )
    return []


def hash_weights(folder: Path, config: Mapping[str, Any], hash_file: Callable[[Path], str]) -> str:
    """Hash over the weights of a folder; equal weights, equal hash.

    config: of the model. Raises InputError where the weights are not there, not whole, quantised,
    or not those of the configuration.
    """
    _refuse_foreign(folder, config)
    files = weight_files(folder)
    if not files:
        raise _no_weights(folder)
    for file in files:
        check_file(file)
    for file in files:
        _check_tensors(file, config)
    with ThreadPoolExecutor(max_workers=4) as threads:
        hashes = list(threads.map(hash_file, files))
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def check_gguf(file: Path) -> None:
    """Raise InputError unless a GGUF file is there, and the package that reads it."""
    if not file.is_file():
        there = [other.name for other in sorted(file.parent.glob("*.gguf"))]
        raise InputError(
            "there is no such file",
            file=file,
            value=there[:5] or None,
            remedy="Name one that is there, or leave gguf_file out.",
        )
    with file.open("rb") as opened:
        start = opened.read(4)
    if start != b"GGUF":
        check_file(file)
        raise InputError("this is no GGUF file", file=file, value=start, remedy=_AGAIN)
    if find_spec("gguf") is None:
        raise InputError(
            "the package gguf, by which transformers reads this file, is missing",
            file=file,
            remedy="Run `pip install gguf`.",
        )


def check_file(file: Path) -> dict[str, Any]:
    """The header of a file of weights, {} for other formats than safetensors.

    Raises InputError for a pointer of Git LFS and a file that ends too early.
    """
    with file.open("rb") as opened:
        start = opened.read(len(_LFS))
        if start == _LFS:
            raise InputError(
                "this is a pointer of Git LFS, not the weights",
                file=file,
                remedy="Run `git lfs pull` in that folder, or `hf download`.",
            )
        size = file.stat().st_size
        if file.suffix != ".safetensors":
            if not size:
                raise InputError("this file of weights is empty", file=file, remedy=_AGAIN)
            if start.startswith(b"PK") and not zipfile.is_zipfile(file):
                raise InputError("these weights are not whole", file=file, remedy=_AGAIN)
            return {}
        opened.seek(0)
        length = struct.unpack("<Q", opened.read(8))[0] if size >= 8 else 0
        if not 0 < length <= min(size - 8, _MAX_HEADER):
            raise InputError(
                "these are no weights, or only their beginning",
                file=file,
                value=f"{size} bytes",
                remedy=_AGAIN,
            )
        try:
            header = parsed(opened.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((_ends(tensor)[1] for tensor in header.values()), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(
                "the header of these weights is damaged", file=file, remedy=_AGAIN
            ) from None
    if end != size:
        raise InputError(
            "these weights are not whole", file=file, value=f"{size} bytes of {end}", remedy=_AGAIN
        )
    return dict(header)


def _parts(index: Path) -> list[Path]:
    """The files that an index names, all of them there. Raises InputError."""
    try:
        names = sorted({*parsed(index.read_text(encoding="utf-8"))["weight_map"].values()})
        parts = [index.parent / name for name in names]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            "this index of weights cannot be read", file=index, remedy=_AGAIN
        ) from None
    missing = [part.name for part in parts if not part.is_file()]
    if missing or not parts:
        raise InputError(
            f"{len(missing)} of {len(parts)} parts of the weights are missing:"
            f" {', '.join(missing[:3])}",
            file=index,
            remedy=_AGAIN,
        )
    return parts


def _refuse_foreign(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError for weights that would be read otherwise than as they stand there."""
    key = next((k for k in ("quantization_config", "compression_config") if config.get(k)), None)
    if key is not None:
        quantised = config[key]
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
        raise InputError(
            "the weights are quantised, and activations of such a model were not compared with"
            " those that its SAEs were trained on",
            file=folder / "config.json",
            field=key,
            value=method or quantised,
            remedy="Use the model in bfloat16 or float32, under its own name.",
        )
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and weight_files(folder):
        raise InputError(
            "an adapter lies beside the weights: where peft is installed it would be applied, and"
            " elsewhere not",
            file=adapter,
            remedy="Move the adapter's files away, or merge it into the weights and save those.",
        )


def _no_weights(folder: Path) -> InputError:
    """The error for a folder without weights; it names what is there instead."""
    for pattern, what, remedy in (
        ("model.safetensors", "this is no file, or a link to nothing", _AGAIN),
        ("pytorch_model.bin", "this is no file, or a link to nothing", _AGAIN),
        ("*.incomplete", "the download of the weights was not finished", _AGAIN),
        (
            "global_step*",
            "only a checkpoint of DeepSpeed is here",
            "Run its zero_to_fp32.py, save the model with `save_pretrained` and give that folder.",
        ),
        (
            "consolidated*",
            "only weights in the format of the model's makers are here",
            "Download the files of transformers' format (model.safetensors), or convert these.",
        ),
        (
            "adapter_model.*",
            "only the weights of an adapter are here",
            "Name its base model, and it as `model: {adapter: ...}`.",
        ),
        (
            "*.gguf",
            "only GGUF files are here",
            "Name one as `model: {gguf_file: ...}`, or use the model's safetensors files.",
        ),
        (
            "pytorch_model_fsdp*",
            "only a checkpoint of FSDP is here",
            "Save the model with `save_pretrained` and give that folder.",
        ),
        (
            "*.safetensors",
            "none of these files is called as weights are",
            "Call it model.safetensors, or add its index.",
        ),
    ):
        files = sorted(folder.glob(pattern))
        if files:
            return InputError(what, file=folder, value=files[0].name, remedy=remedy)
    remedy = "Put model.safetensors (or its parts) beside config.json."
    return InputError("there are no weights", file=folder, remedy=remedy)


def _check_tensors(file: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError for tensors that cannot be those of the configuration, by their header.

    Quantised ones, a token embedding of other rows, and matrices of zeros: a file whose end was
    reserved and never downloaded.
    """
    header = check_file(file)
    inner = config.get("text_config")
    n_vocab = (inner if isinstance(inner, Mapping) else config).get("vocab_size")
    more = _ROWS_BEYOND.get(str(config.get("model_type")), 0)
    data = file.stat().st_size - max((_ends(t)[1] for t in header.values()), default=0)
    for name, tensor in header.items():
        shape, dtype = tensor.get("shape"), tensor.get("dtype")
        if _QUANTISED.search(name) or (name.endswith(".weight") and dtype not in _FLOATS):
            raise InputError(
                "the weights are quantised, and the configuration does not say how",
                file=file,
                field=name,
                value=dtype,
                remedy="Use the model in bfloat16 or float32, under its own name.",
            )
        shape = shape if isinstance(shape, list) else []
        module = name.removesuffix(".weight").rsplit(".", 1)[-1]
        rows = shape[0] if shape and module in _EMBEDDINGS else None
        if isinstance(n_vocab, int) and isinstance(rows, int) and rows != n_vocab + more:
            raise InputError(
                f"the weights know {rows} tokens, the configuration {n_vocab}",
                file=file,
                field=name,
                remedy="Set vocab_size in config.json, or save the model with transformers.",
            )
        # Biases in several dimensions may be 0 for good.
        is_matrix = len(shape) > 1 and name.endswith(".weight")
        if is_matrix and _is_zero(file, data, *_ends(tensor)):
            raise InputError(
                "all values of this matrix are 0: its download was not finished",
                file=file,
                field=name,
                remedy=_AGAIN,
            )


def tensor_names(folder: Path) -> list[str]:
    """Of a folder's safetensors files; those of pickles are known when they are loaded."""
    files = [file for file in weight_files(folder) if file.suffix == ".safetensors"]
    return [name for file in files for name in check_file(file)]


def check_depth(
    names: Iterable[str], config: Mapping[str, Any], n_blocks: int, folder: Path
) -> None:
    """Raise InputError where weights hold more blocks than the configuration says.

    The rest would be left out unsaid. Blocks that predict further tokens stand behind the others.
    names: of tensors.
    """
    stacks: dict[str, list[int]] = {}
    for match in filter(None, map(_BLOCK.match, names)):
        if not _SEES_OR_HEARS.search(match[1]):
            stacks.setdefault(match[1], []).append(int(match[2]))
    n_more = config.get("num_nextn_predict_layers")
    n_allowed = n_blocks + (n_more if isinstance(n_more, int) else 0)
    largest: list[int] = max(stacks.values(), key=len, default=[])
    n_held = 1 + max(largest, default=-1)
    if n_held > n_allowed:
        raise InputError(
            f"the weights hold {n_held} blocks, the configuration {n_blocks}",
            file=folder / "config.json",
            field="num_hidden_layers",
            value=n_blocks,
            remedy=f"Set it to {n_held}, or save the shorter model with transformers.",
        )


def _ends(tensor: Mapping[str, Any]) -> tuple[int, int]:
    """Where a tensor's bytes begin and end among the data."""
    first, last = tensor["data_offsets"]
    return int(first), int(last)


def _is_zero(file: Path, data: int, first: int, last: int) -> bool:
    """Whether all bytes of a tensor are 0; data: where the tensors begin in the file."""
    with file.open("rb") as opened:
        for start in (first, (first + last) // 2, max(first, last - _MOST_EDGE)):
            opened.seek(data + start)
            if any(opened.read(min(_MOST_EDGE, last - start))):
                return False
        opened.seek(data + first)
        return last > first and not opened.read(last - first).strip(b"\0")
