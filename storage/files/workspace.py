"""The workspace: one folder that keeps everything saelect makes, and what is where in it."""

import getpass
import os
import re
from pathlib import Path

from selection.core.errors import InputError
from selection.core.hashing import content_id
from storage.files.atomic import (
    MANIFEST,
    TEMP_PREFIX,
    is_complete,
    read_json,
    remove_stale_temps,
    temp_path,
    write_json,
)

FORMAT = 1
"""Raised when an older saelect could misread what a newer one writes into a workspace."""

ENVIRONMENT_VARIABLE = "SAELECT_WORKSPACE"
DEFAULT = "workspace"
EXPLANATIONS = "explanations.parquet"
"""What others wrote about the latents of an SAE, in the folder of its descriptions."""
TARGET_QUALITY = "target_quality.json"
"""How much of target tasks the latents carry, in the same folder."""

MOST_NAME_BYTES = 100  # two of them, and what a temporary file adds, stay below 255
_MARK = "workspace.json"
_DAY_S = 86_400.0
_swept: set[Path] = set()  # once a process: what killed processes left in these was removed


class Workspace:
    """Paths inside one workspace; none of them needs to exist yet.

    root:      the folder itself.
    catalog:   the DuckDB file that writers open, one at a time.
    snapshot:  the published copy of the catalog, which everybody reads.
    pools:     prepared pools, `pools/<pool_id>/`.
    shards:    vectors, `shards/<representation_id>/<unit_id>/`.
    saes:      SAEs trained here, `saes/<sae_id>/`.
    model_checks: how each model is run, as it was compared with the plain model at first use.
    units:     calibrated units of representations.
    indexes:   FAISS indexes; each can be built again from shards.
    token_activations: of explained samples, `token_activations/<representation_id>/`.
    scores:    of every eligible example, `scores/<selection_id>.parquet`.
    file_hashes: of weights and pool files, remembered (`storage.files.hashes`).
    leases:    who works on what is shared by runs: preparations, trainings, indexes.
    exports:   training files, `exports/<selection>/`.
    reports:   HTML reports, `reports/<selection>.html`.
    bundles:   folders that answer for a selection elsewhere, `bundles/<selection>/`.
    forget_journal: what a `forget` that has begun still has to do; it is removed at its end.
    """

    def __init__(self, root: Path) -> None:
        """All paths follow from the root."""
        self.root = root
        self.catalog, self.snapshot = root / "catalog.duckdb", root / "snapshot.duckdb"
        self.pools, self.shards, self.saes = root / "pools", root / "shards", root / "saes"
        self.model_checks, self.units = root / "model_checks", root / "units"
        self.indexes, self.token_activations = root / "indexes", root / "token_activations"
        self.scores, self.file_hashes = root / "scores", root / "file_hashes.json"
        self.exports, self.reports = root / "exports", root / "reports"
        self.bundles, self.leases = root / "bundles", root / ".leases"
        self.forget_journal = root / "forget-journal.json"

    @property
    def has_catalog(self) -> bool:
        """Whether anything was recorded here: either of the two can be read."""
        return self.snapshot.exists() or self.catalog.exists()

    def described(self, sae_id: str) -> Path:
        """Folder of the descriptions of an SAE's latents, wherever its weights are."""
        return self.saes / "described" / sae_id

    def explanations(self) -> list[Path]:
        """Files of what others wrote about the latents of SAEs."""
        return sorted(self.saes.glob(f"described/*/{EXPLANATIONS}"))

    def relative(self, path: Path) -> str:
        """A path as the catalog stores it: relative inside the workspace, else absolute."""
        path, root = path.resolve(), self.root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def file_name(name: str) -> str:
    """A selection's name as a file or folder name: letters, digits, `.`, `_`, `-` stay.

    One that had to be changed, or is too long, ends with a hash of the name, so that different
    names stay different files. It never leaves its folder, and no name is hidden.
    """
    safe = re.sub(r"[^\w.-]+", "-", name).strip(".-")
    if safe == name and len(safe.encode()) <= MOST_NAME_BYTES:
        return safe
    short = safe.encode()[: MOST_NAME_BYTES - 9].decode(errors="ignore") or "selection"
    return f"{short}-{content_id(name, 8)}"


def refuse_link(workspace: Workspace, path: Path) -> None:
    """Raise InputError where a path of the workspace leads elsewhere through a link."""
    if path.resolve() != workspace.root.resolve() / path.relative_to(workspace.root):
        raise InputError(
            "a link leads out of the workspace's own folders",
            file=path,
            value=str(path.resolve()),
            remedy="Remove the link, or name the place with --out.",
        )


def chosen_root(path: Path | str | None) -> Path:
    """The folder meant by `--workspace`, else by SAELECT_WORKSPACE, else `./workspace`."""
    return Path(path or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT).expanduser()


def open_workspace(path: Path | str | None = None) -> Workspace:
    """Open a workspace for writing; it is made where there is none.

    Raises InputError where the folder cannot be made or written, or is of a newer version.
    """
    workspace = Workspace(chosen_root(path))
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        probe = temp_path(workspace.root / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write into the workspace ({error.strerror or error})",
            file=workspace.root,
            remedy="Name a folder that you may write with --workspace DIR.",
        ) from None
    if is_marked(workspace):
        _check_format(workspace)
    else:
        write_json(workspace.root / _MARK, {"format": FORMAT})
    if workspace.root not in _swept:
        _swept.add(workspace.root)
        root = workspace.root
        for folder in (root, *root.glob("*/"), *root.glob("*/*/")):
            remove_stale_temps(folder, _DAY_S)
    return workspace


def is_marked(workspace: Workspace) -> bool:
    """Whether saelect made the folder; else it may be a copy of a snapshot alone."""
    return (workspace.root / _MARK).exists()


def find_workspace(path: Path | str | None = None) -> Workspace:
    """Open a workspace for reading only: nothing is made or written.

    Raises InputError where there is none, or where it is of a newer version. A folder that holds
    nothing but a `snapshot.duckdb` counts, so that an auditor needs to copy one file only.
    """
    workspace = Workspace(chosen_root(path))
    if is_marked(workspace):
        _check_format(workspace)
    elif not workspace.snapshot.exists():
        raise InputError(
            "no saelect workspace is here",
            file=workspace.root,
            remedy="Name the folder with --workspace DIR, or make one with `saelect demo`.",
        )
    return workspace


def resolve(workspace: Workspace, kind: str, reference: str) -> Path:
    """The finished folder meant by an id, the beginning of one, or `latest`.

    kind: a folder of the workspace that holds one folder per id: pools, shards, saes, indexes.
    Raises InputError when nothing or more than one thing matches; both name the candidates.
    """
    finished = _finished(workspace.root / kind)
    if reference == "latest" and finished:
        return max(
            finished, key=lambda folder: ((folder / MANIFEST).stat().st_mtime_ns, folder.name)
        )
    matching = [folder for folder in finished if folder.name.startswith(reference)]
    exact = [folder for folder in matching if folder.name == reference]
    if len(exact or matching) == 1:
        return (exact or matching)[0]
    known = ", ".join(folder.name for folder in matching or finished) or "none yet"
    raise InputError(
        f"{'several things begin with this' if matching else 'not found'} among {kind}",
        file=workspace.root / kind,
        value=reference,
        remedy=f"There are: {known}.",
    )


def _finished(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    entries = (e for e in folder.iterdir() if not e.name.startswith(TEMP_PREFIX))
    return sorted(entry for entry in entries if is_complete(entry))


def _check_format(workspace: Workspace) -> None:
    mark = workspace.root / _MARK
    version = read_json(mark).get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(
            "expected a whole number",
            file=mark,
            field="format",
            value=version,
            remedy=f'Put back {{"format": {FORMAT}}}, or use another folder with --workspace DIR.',
        )
    if version > FORMAT:
        raise InputError(
            f"the workspace was written by a newer saelect (this one knows format {FORMAT})",
            file=mark,
            field="format",
            value=version,
            remedy="Update saelect, or use another folder with --workspace DIR.",
        )


def user_name() -> str:
    """Name of who runs this; "uid 1000" where the system has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"uid {os.getuid()}"
