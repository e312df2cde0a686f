"""Files that the catalog vouches for: rows of `recorded_file`, and the newest of each path."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from selection.core.hashing import file_sha256
from storage.catalog.connection import Connection
from storage.files.workspace import Workspace

EXPORT, REPORT, BUNDLE, UNIT = "export", "report", "bundle", "unit"
POOL, RENDERING, SHARDS = "pool", "rendering", "shards"
NAMING = (POOL, RENDERING, SHARDS)
"""Kinds of recorded files; of these three it is the manifest, which has their hashes."""


class RecordedFile(NamedTuple):
    """A file as the catalog last knew it. sha256: None once saelect itself removed it."""

    kind: str
    sha256: str | None


def file_row(
    workspace: Workspace, kind: str, path: Path, at: datetime, content: bytes | Path | None = None
) -> dict[str, object]:
    """A row of `recorded_file`.

    content: what the file is about to hold, or the file that is about to get its name.
    """
    if isinstance(content, bytes):
        sha256 = hashlib.sha256(content).hexdigest()
    else:
        sha256 = file_sha256(content or path)
    return {
        "path": workspace.relative(path),
        "kind": kind,
        "sha256": sha256,
        "recorded_at": at,
    }


def reported(
    workspace: Workspace, path: Path, selection_ids: Iterable[str], run_id: str | None = None
) -> dict[str, list[dict[str, object]]]:
    """What to commit once a page is written: an event for each selection, and the file."""
    at = datetime.now(UTC)
    event = {"at": at, "run_id": run_id, "action": "reported"}
    detail = {"path": workspace.relative(path)}
    return {
        "event": [{**event, "selection_id": each, "detail": detail} for each in selection_ids],
        "recorded_file": [file_row(workspace, REPORT, path, at)],
    }


def files_in(folders: Iterable[Path]) -> list[Path]:
    """Every file below the folders, in order."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def recorded_files(connection: Connection) -> Mapping[str, RecordedFile]:
    """Path -> what was recorded last, in order of path."""
    rows = connection.execute(
        "SELECT path, arg_max({'kind': kind, 'sha256': sha256}, rowid) FROM recorded_file"
        " GROUP BY path ORDER BY path"
    ).fetchall()
    return {path: RecordedFile(row["kind"], row["sha256"]) for path, row in rows}
