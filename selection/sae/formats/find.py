"""Where SAEs are on this machine and in which published format; told by their files alone.

No weights are read here and no torch is imported. An SAE is a folder, or one `.pt` file.
"""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from selection.core.errors import InputError
from selection.sae.formats.dictionaries import DICTIONARY_HUB, DICTIONARY_LEARNING
from selection.sae.formats.layout import Layout, read_info
from selection.sae.formats.libraries import SAELENS, SPARSIFY
from selection.sae.formats.openmoss import LLAMA_SCOPE, LLAMASCOPIUM
from selection.sae.formats.releases import (
    CIRCUIT_TRACER,
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    GOODFIRE,
    OPENAI,
    QWEN_SCOPE,
)
from selection.sae.metadata import SaeInfo

_LONE_FILE = re.compile(r"\d+\.pth?|.+\.sae\.pt|.+-SAE-l\d+\.pth?|layer_\d+\.safetensors")
"""Names of formats that are no folders."""
_MAX_DEPTH = 5  # models--org--repo/snapshots/<commit>/seed1/layers.4 in the hub's cache

FAMILIES = (
    SPARSIFY,
    SAELENS,
    LLAMASCOPIUM,
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    LLAMA_SCOPE,
    DICTIONARY_LEARNING,
    DICTIONARY_HUB,
    CIRCUIT_TRACER,
    QWEN_SCOPE,
    OPENAI,
    GOODFIRE,
)
"""Every format that is read, in the order in which files are asked."""


def family_of(path: Path) -> Layout | None:
    """The format of the SAE at `path`, a folder or a file of its own; None for no SAE."""
    if not path.is_file():
        return next((family for family in FAMILIES if family.is_at(path)), None)
    if path.name.endswith(".sae.pt"):
        return QWEN_SCOPE
    if re.fullmatch(r"layer_\d+\.safetensors", path.name):
        return CIRCUIT_TRACER if (path.parent / "config.yaml").is_file() else None
    if path.suffix not in (".pt", ".pth") or _folder_of_part(path) is not None:
        return None
    return GOODFIRE if re.search(r"-SAE-l\d+$", path.stem) or _is_goodfire(path) else OPENAI


def _is_goodfire(path: Path) -> bool:
    """Whether the tensors in a file are called as Goodfire's; a damaged file is not."""
    from selection.sae.formats.weight_files import read_weights

    try:
        return GOODFIRE.names[""].w_enc in read_weights(path)
    except InputError:
        return False


def differences() -> dict[str, float]:
    """Family -> largest difference of a latent from its oracle, over all cases, as measured.

    Latents of the cases are up to about 20; `benchmarks/sae_loaders.py` measures.
    """
    text = (files("selection.sae.formats") / "measured.json").read_text(encoding="utf-8")
    measured: dict[str, float] = json.loads(text)
    return measured


def info_at(path: Path) -> SaeInfo:
    """What is known about the SAE at `path` before its weights are read. Raises InputError."""
    return read_info(path, _known_family(path))


def hashed_files(path: Path) -> list[Path]:
    """The files that decide the content hash of the SAE at `path`. Raises InputError."""
    named = [path / name for name in _known_family(path).files]
    return [file for file in named if file.is_file()] or [path]


def _known_family(path: Path) -> Layout:
    family = family_of(path)
    if family is None:
        raise InputError(
            "no SAE of a known format is here", file=path, remedy=f"Known are: {_known()}."
        )
    return family


def saes_under(folder: Path) -> list[Path]:
    """Every SAE folder under `folder`, at most five levels deep, ordered by path.

    Where there is none, the one file that is called as an SAE without a folder is; of several,
    nothing tells which is meant.
    """
    folders = _folders_under(folder)
    lone = [] if folders else _lone_files(folder)
    return lone if len(lone) == 1 else folders


def list_local_saes(folders: Sequence[Path]) -> list[SaeInfo]:
    """Every readable SAE under the folders, ordered by path; weights are not read.

    An SAE that is one file is left out, for its weights would have to be read. So is one whose
    configuration is unreadable: the list is help for a user who asked for something else.
    """
    infos: dict[str, SaeInfo] = {}
    for folder in folders:
        for path in _folders_under(folder):
            try:
                infos[str(path)] = info_at(path)
            except InputError:
                continue
    return [infos[path] for path in sorted(infos)]


def why_no_sae(path: Path) -> str:
    """Why a folder or file is no SAE, as a clause that names what is missing."""
    whole = _folder_of_part(path) if path.is_file() else None
    if whole is not None:
        return f"this file is a part of an SAE: name its folder, {whole}"
    if path.is_dir() and (path / "cfg.json").is_file():
        return "sae.safetensors (or sae_weights.safetensors) is missing beside cfg.json"
    for name in ("sae_weights.dcp", "sae_weights.pt"):
        if (path / name).exists():
            return (
                f"{name} is not read; load it with the library that wrote it and save it as"
                " sae_weights.safetensors"
            )
    lone = [file.relative_to(path).as_posix() for file in _lone_files(path)]
    if lone:
        shown = ", ".join(lone[:3]) + (", ..." if len(lone) > 3 else "")
        return f"there are {len(lone)} SAEs in this folder ({shown}); name the file of one"
    return f"no SAE here (known formats: {_known()})"


def _files_under(folder: Path, pattern: str) -> Iterator[Path]:
    for depth in range(_MAX_DEPTH + 1):
        yield from folder.glob("/".join(["*"] * depth + [pattern]))


def _folders_under(folder: Path) -> list[Path]:
    """SAEs that are folders, known by their file of weights."""
    marks = {family.files[-1] for family in FAMILIES if family.files}
    folders = {
        file.parents[mark.count("/")] for mark in marks for file in _files_under(folder, mark)
    }
    return sorted(path for path in folders if family_of(path) is not None)


def _lone_files(folder: Path) -> list[Path]:
    """Files under a folder that are called as an SAE without a folder, ordered by path."""
    return sorted(
        file
        for pattern in ("*.pt*", "layer_*.safetensors")
        for file in _files_under(folder, pattern)
        if _LONE_FILE.fullmatch(file.name) and family_of(file) is not None
    )


def _folder_of_part(file: Path) -> Path | None:
    """The SAE's folder, for a file that is a part of one."""
    for family in FAMILIES:
        for name in family.files:
            if file.name == Path(name).name:
                folder = file.parents[name.count("/")]
                if folder / name == file and family_of(folder) is not None:
                    return folder
    return None


def _known() -> str:
    return ", ".join(family.title for family in FAMILIES)
