"""Which published format an SAE on disk is in, told by its files alone; and where it is.

No weights are read here and no torch is imported. An SAE is a folder, or one `.pt` file.
"""

import importlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from selection.core.errors import InputError
from selection.sae.metadata import SaeInfo, read_object

log = logging.getLogger(__name__)

_LONE_FILE = re.compile(r"\d+\.pth?|.+\.sae\.pt")  # names of families that are no folders
_MAX_DEPTH = 5  # models--org--repo/snapshots/<commit>/seed1/layers.4 in the hub's cache


@dataclass(frozen=True, slots=True)
class Family:
    """One published format.

    name:    as in SaeInfo.family; `selection.sae.formats.<name>` reads it.
    title:   for people.
    files:   all of them are there, in the SAE's folder.
    oracle:  what our encodings were compared with.

    loads:   what is read, in words; refuses: what is not.
    """

    name: str
    title: str
    files: tuple[str, ...]
    oracle: str
    loads: str
    refuses: str


FAMILIES = (
    Family(
        "sparsify",
        "sparsify (EleutherAI)",
        ("cfg.json", "sae.safetensors"),
        "eai-sparsify 1.3.3",
        "topk, groupmax",
        "transcoders, skip connections, signed latents",
    ),
    Family(
        "saelens",
        "SAELens",
        ("cfg.json", "sae_weights.safetensors"),
        "sae-lens 6.54.12",
        "standard, topk (also rescaled), abstopk, jumprelu (so batchtopk, matryoshka), gated; v6"
        " and older flat configs; layer norm and constant norm",
        "transcoders, matching pursuit, temporal, hook_z, unfolded norm factors,"
        " centered writing weights",
    ),
    Family(
        "llamascopium",
        "Llamascopium 2.x, Llama Scope R1",
        ("config.json", "sae_weights.safetensors"),
        "the definition, in float64",
        "relu, jumprelu and topk SAEs of resid, MLP and attention, also by decoder norm;"
        " dataset-wise, token-wise and folded norms",
        "other types (crosscoder, clt, lorsa, molt), transcoders, batchtopk (no threshold is"
        " stored), batch-wise norm, gated encoders, unknown keys and tensors, .dcp shards",
    ),
    Family(
        "gemma_scope",
        "Gemma Scope",
        ("params.npz",),
        "the definition, in float64; sae-lens 6.54.12",
        "residual and MLP SAEs",
        "attention SAEs (they read the input of o_proj), embedding SAEs, transcoders",
    ),
    Family(
        "gemma_scope_2",
        "Gemma Scope 2",
        ("config.json", "params.safetensors"),
        "the definition, in float64; sae-lens 6.54.12",
        "residual and MLP SAEs",
        "attention SAEs (they read the input of o_proj), transcoders, cross-layer and skip SAEs",
    ),
    Family(
        "llama_scope",
        "Llama Scope",
        ("hyperparams.json", "checkpoints/final.safetensors"),
        "the reference inference, in float64",
        "jumprelu, topk and relu SAEs of resid, MLP and attention",
        "transcoders, unknown norms",
    ),
    Family(
        "dictionary_learning",
        "dictionary_learning",
        ("ae.pt", "config.json"),
        "dictionary-learning 0.1.0",
        "AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE,"
        " GatedAutoEncoder, JumpReluAutoEncoder",
        "checkpoints from the middle of a training, thresholds never set, cross-coders",
    ),
    Family(
        "qwen_scope",
        "Qwen Scope",
        (),
        "the definition, in float64",
        "topk of `layer{n}.sae.pt`; the number of active latents comes from the repository's name",
        "files outside such a repository",
    ),
    Family(
        "openai",
        "OpenAI",
        (),
        "model.py's definition, in float64",
        "TopK with layer norm, and ReLU",
        "tied decoders",
    ),
)
"""In the order in which files are asked."""


def family_of(place: Path) -> Family | None:
    """The family of the SAE at `place`, a folder or a `.pt` file; None for no SAE."""
    if place.is_file():
        if place.name.endswith(".sae.pt"):
            return _named("qwen_scope")
        if place.suffix not in (".pt", ".pth") or _folder_of(place) is not None:
            return None
        return _named("openai")
    return next((f for f in FAMILIES if f.files and all((place / n).is_file() for n in f.files)),
                None)  # fmt: skip


def differences() -> dict[str, float]:
    """Family -> largest difference of a latent from its oracle, over all cases, as measured.

    Latents of the cases are up to about 20; `benchmarks/sae_loaders.py` measures.
    """
    text = (files("selection.sae.formats") / "measured.json").read_text(encoding="utf-8")
    found: dict[str, float] = json.loads(text)
    return found


def loader_of(family: Family) -> ModuleType:
    """The module with `read_info(place) -> SaeInfo` and `load(place) -> SparseCoder`."""
    return importlib.import_module(f"selection.sae.formats.{family.name}")


def describe_place(place: Path) -> SaeInfo:
    """What is known about the SAE at `place` before its weights are read. Raises InputError."""
    family = family_of(place)
    if family is None:
        raise InputError(
            "no SAE of a known format is here", file=place, remedy=f"Known are: {_known()}."
        )
    found: SaeInfo = loader_of(family).read_info(place)
    return found


def places_under(folder: Path) -> list[Path]:
    """Every SAE folder under `folder`, at most five levels deep, ordered by path.

    Where there is none, the one file that is called as an SAE without a folder is; of several,
    nothing tells which is meant.
    """
    found = _folders_under(folder)
    files = [] if found else _lone_files(folder)
    return files if len(files) == 1 else found


def _folders_under(folder: Path) -> list[Path]:
    """SAEs that are folders."""
    marks = {f.files[-1] if f.name != "dictionary_learning" else f.files[0]
             for f in FAMILIES if f.files}  # fmt: skip
    found = set()
    for depth in range(_MAX_DEPTH + 1):
        for mark in marks:
            up = mark.count("/")
            for file in folder.glob("/".join(["*"] * depth + [mark])):
                place = file.parents[up]
                if family_of(place) is not None:
                    found.add(place)
    return sorted(found)


def list_local_saes(folders: Sequence[Path]) -> list[SaeInfo]:
    """Every readable SAE under the folders, ordered by path; weights are not read.

    An SAE that is one file is left out, for its weights would have to be read. So is one whose
    configuration is unreadable: the list is help for a user who asked for something else.
    """
    found: dict[str, SaeInfo] = {}
    for folder in folders:
        for place in _folders_under(folder):
            try:
                info = describe_place(place)
            except InputError:
                continue
            found[info.path] = info
    return [found[path] for path in sorted(found)]


def no_sae_here(place: Path) -> str:
    """Why a folder or file is no SAE, as a clause that names what is missing."""
    whole = _folder_of(place) if place.is_file() else None
    if whole is not None:
        return f"this file is a part of an SAE: name its folder, {whole}"
    if place.is_dir() and (place / "cfg.json").is_file():
        return "sae.safetensors (or sae_weights.safetensors) is missing beside cfg.json"
    for name in ("sae_weights.dcp", "sae_weights.pt"):
        if (place / name).exists():
            return (
                f"{name} is not read; load it with the library that wrote it and save it as"
                " sae_weights.safetensors"
            )
    lone = _lone_files(place)
    if lone:
        names = [file.relative_to(place).as_posix() for file in lone]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return f"there are {len(names)} SAEs in this folder ({shown}); name the file of one"
    return f"no SAE here (known formats: {_known()})"


def repository_of(place: Path) -> str | None:
    """The hub repository of a place inside the hub's cache, "org/name", else None."""
    for parent in (place, *place.parents):
        if parent.name.startswith("models--"):
            return parent.name.removeprefix("models--").replace("--", "/", 1)
    return None


def json_keys(file: Path) -> dict[str, object]:
    """A JSON object, or {} where there is no such file."""
    return read_object(file) if file.is_file() else {}


def _lone_files(folder: Path) -> list[Path]:
    """Files under a folder that are called as an SAE without a folder, ordered by path."""
    found = [file for depth in range(_MAX_DEPTH + 1)
             for file in folder.glob("/".join(["*"] * depth + ["*.pt*"]))
             if _LONE_FILE.fullmatch(file.name) and family_of(file) is not None]  # fmt: skip
    return sorted(found)


def _folder_of(file: Path) -> Path | None:
    """The SAE's folder, for a file that is a part of one."""
    for family in FAMILIES:
        for name in family.files:
            folder = file.parents[name.count("/")] if file.name == Path(name).name else None
            if folder is not None and folder / name == file and family_of(folder) is not None:
                return folder
    return None


def _named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def _known() -> str:
    return ", ".join(family.title for family in FAMILIES)
