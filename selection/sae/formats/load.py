"""Sparse autoencoders by name: found on this machine or on the hub, read, and written.

Every published format is read into the one `SparseCoder` (see `families` for which); nothing in a
file is ever executed. Two formats are written: sparsify's here, SAELens' in `save_saelens`.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file

from selection.sae.coder import SparseCoder, make_coder
from selection.sae.compatibility import ModelLike, missing_sae, several_saes
from selection.sae.formats.registry import (
    describe_place,
    family_of,
    list_local_saes,
    loader_of,
    no_sae_here,
    places_under,
)
from selection.sae.formats.sparsify import NAMES
from selection.sae.metadata import CONFIG, RECORD, WEIGHTS, SaeInfo

__all__ = ["SparseCoder", "load_sae", "make_coder", "read_sae_info", "save_sparsify"]

log = logging.getLogger(__name__)


def load_sae(
    path: str | Path, revision: str | None = None, local: Sequence[Path] = ()
) -> SparseCoder:
    """Load an SAE of any known format on the CPU.

    path:     its folder or `.pt` file, or a folder above a single one, or a hub name: "org/repo"
              or "org/repo/layers.4".
    revision: of the hub repository.
    local:    folders whose SAEs are listed when this one is not there.
    Raises InputError when it is missing, ambiguous, damaged or of an unsupported kind.
    """
    place = find_sae(str(path), revision, local)
    family = family_of(place)
    if family is None:
        raise missing_sae(str(place), no_sae_here(place), list_local_saes(local))
    coder: SparseCoder = loader_of(family).load(place)
    return coder


def read_sae_info(
    path: str | Path,
    revision: str | None = None,
    local: Sequence[Path] = (),
    model: ModelLike | None = None,
) -> SaeInfo:
    """Describe an SAE as `load_sae` finds it, without reading its weights where that can be.

    model: whose SAEs are listed where the path leads to several.
    """
    return describe_place(find_sae(str(path), revision, local, model))


def find_sae(
    path: str,
    revision: str | None = None,
    local: Sequence[Path] = (),
    model: ModelLike | None = None,
) -> Path:
    """The folder or file of one SAE. Raises InputError; see `load_sae` and `read_sae_info`."""
    place = Path(path).expanduser()
    if not place.exists():
        if path.startswith((".", "/", "~")) or path.count("/") < 1:
            raise missing_sae(path, "there is no such folder", list_local_saes(local))
        place = _download(path, revision, local)
    if family_of(place) is not None:
        return place
    inside = places_under(place) if place.is_dir() else []
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise several_saes(path, len(inside), list_local_saes([place]), model)
    raise missing_sae(path, no_sae_here(place), list_local_saes(local))


def save_sparsify(
    coder: SparseCoder, folder: Path, record: Mapping[str, object] | None = None
) -> None:
    """Write a checkpoint that this module and eai-sparsify read.

    record: goes to `saelect.json`; the keys model, model_sha256, hookpoint and licence come back
            as fields of SaeInfo, others (training, quality) as `SaeInfo.record`. Defaults to
            what `coder.info` knows.
    cfg.json is written last: without it the folder is no SAE. Raises ValueError for a coder that
    the format cannot hold.
    """
    info = coder.info
    held = info.activation in ("topk", "groupmax") and info.centers and info.input_norm == "none"
    if not held or coder.act_scale is not None:
        raise ValueError(f"the sparsify format cannot hold this SAE ({info.activation})")
    known = {
        "model": info.model_name,
        "model_sha256": info.model_sha256,
        "hookpoint": info.hookpoint,
        "licence": info.licence,
    }
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
    tensors = (coder.encoder_weight, coder.encoder_bias, coder.decoder_weight, coder.decoder_bias)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    temp = folder / f".tmp-{os.getpid()}-{WEIGHTS}"
    save_file({n: t.cpu() for n, t in zip(NAMES, tensors, strict=True)}, temp)
    os.replace(temp, folder / WEIGHTS)
    full = {key: value for key, value in known.items() if value} | dict(info.record)
    write_json(folder / RECORD, full | dict(record or {}) | {"sha256": info.sha256})
    write_json(folder / CONFIG, config)


def write_json(file: Path, value: Mapping[str, object]) -> None:
    """An object on several lines."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _download(name: str, revision: str | None, local: Sequence[Path]) -> Path:
    """Fetch "org/repo[/inner/folder or file]" from the hub, or find it in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, inner = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    files = [inner, f"{inner}/*"] if inner else ["*"]
    try:
        root = Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=[*files, "config.json", "README.md"]
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        log.debug("no SAE from the hub", exc_info=True)
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = {
            401: "the hub asks for a login (`hf auth login`) or has no such repository",
            403: "the hub refuses access; accept the repository's terms on its page first",
            404: "neither a folder here nor a repository on the hub",
        }.get(
            status or 0,
            "not a folder here, and it could not be fetched from the hub"
            f" ({type(error).__name__}: {str(error).splitlines()[0][:120]})",
        )
        raise missing_sae(name, why, list_local_saes(local)) from None
    return root / inner
