"""Sparse autoencoders by name: found on this machine or on the hub, and read.

Every published format becomes the one `SparseCoder`; nothing in a file is ever executed.
"""

from collections.abc import Sequence
from pathlib import Path

from selection.core.errors import InputError
from selection.models.hub import download
from selection.sae.coder import SparseCoder
from selection.sae.compatibility import ModelLike, missing_sae, several_saes
from selection.sae.formats.find import (
    family_of,
    info_at,
    list_local_saes,
    saes_under,
    why_no_sae,
)
from selection.sae.formats.layout import load
from selection.sae.metadata import SaeInfo


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
    sae = find_sae(str(path), revision, local)
    family = family_of(sae)
    if family is None:
        raise missing_sae(str(sae), why_no_sae(sae), list_local_saes(local))
    return load(sae, family)


def read_sae_info(
    path: str | Path,
    revision: str | None = None,
    local: Sequence[Path] = (),
    model: ModelLike | None = None,
) -> SaeInfo:
    """Describe an SAE as `load_sae` finds it, without reading its weights where that can be.

    model: whose SAEs are listed where the path leads to several.
    """
    return info_at(find_sae(str(path), revision, local, model))


def find_sae(
    path: str,
    revision: str | None = None,
    local: Sequence[Path] = (),
    model: ModelLike | None = None,
) -> Path:
    """The folder or file of one SAE. Raises InputError; see `load_sae` and `read_sae_info`."""
    start = Path(path).expanduser()
    if not start.exists():
        if path.startswith((".", "/", "~")) or path.count("/") < 1:
            raise missing_sae(path, "there is no such folder", list_local_saes(local))
        start = _download(path, revision, local)
    if family_of(start) is not None:
        return start
    inside = saes_under(start) if start.is_dir() else []
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise several_saes(path, len(inside), list_local_saes([start]), model)
    raise missing_sae(path, why_no_sae(start), list_local_saes(local))


def _download(name: str, revision: str | None, local: Sequence[Path]) -> Path:
    """Fetch "org/repo[/inner/folder or file]" from the hub, or find it in the hub's cache."""
    organization, repository, *rest = name.split("/")
    inner = "/".join(rest)
    wanted = [inner, f"{inner}/*"] if inner else ["*"]
    try:
        snapshot = download(
            f"{organization}/{repository}",
            revision,
            [*wanted, "config.json", "config.yaml", "README.md"],
        )
    except InputError as error:
        why = f"not a folder here, and not to be had from the hub: {error.problem}"
        raise missing_sae(name, why, list_local_saes(local), error.remedy or "") from None
    return snapshot.path / inner
