"""`saelect forget`: take a sample's text and vectors out of everything a workspace holds.

Positions stay (a forgotten example keeps its row with an empty conversation), so ids, ranks and
scores of all others remain what they were. Only the id, who asked, when and why are left. The
catalog is written as a new file, because a deleted row's bytes stay in a DuckDB file.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from selection.core.errors import InputError
from storage.audit.forget_files import folders, forget_in_pool
from storage.catalog.commit import commit, writing
from storage.catalog.connection import Connection, attach_read_only, connect_to_write, quoted
from storage.catalog.integrity import new_redactions
from storage.catalog.recorded import POOL, REPORT, SHARDS, file_row
from storage.catalog.rows import NewRows
from storage.catalog.schema import TEXTS, create_schema
from storage.catalog.snapshot import open_snapshot, publish
from storage.export.export import export_selection
from storage.files.atomic import MANIFEST, read_json, sync_file, sync_folder, temp_path
from storage.files.workspace import Workspace, file_name, user_name
from storage.pools.pool import PreparedPool, open_pool
from storage.report.compare import VERSUS, write_comparison
from storage.report.page import write_report


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done. exports: files that held the examples; those outside are not touched."""

    example_ids: Sequence[str]
    exports_rewritten: Sequence[str]
    exports_outside: Sequence[str]


def meant(workspace: Workspace, ids: Sequence[str], where: str | None) -> list[str]:
    """Example ids meant by ids (of examples, or the data's own) and by a `where` over the pools.

    Raises InputError for an id that nothing in the workspace has, and when nothing is meant.
    """
    pools = [open_pool(folder) for folder in folders(workspace.pools)]
    example_ids: set[str] = set()
    for wanted in ids:
        here = _ids_of(workspace, pools, wanted)
        if not here:
            raise InputError(
                "nothing in this workspace has this id",
                field="--id",
                value=wanted,
                remedy="Give a whole example id, or the data's own id.",
            )
        example_ids |= here
    for pool in pools if where else []:
        example_ids |= set(pool.example_ids()[pool.eligible(where)].astype(str).tolist())
    if not example_ids:
        raise InputError(
            "no sample is meant", field="--where", value=where, remedy="Give --id or --where."
        )
    return sorted(example_ids)


def _ids_of(workspace: Workspace, pools: Sequence[PreparedPool], wanted: str) -> set[str]:
    example_ids: set[str] = set()
    for pool in pools:
        names = pool.example_ids().astype(str)
        rows = np.union1d(pool.rows_with_own_id(wanted), np.flatnonzero(names == wanted))
        example_ids |= set(names[rows].tolist())
    if workspace.snapshot.exists():
        with open_snapshot(workspace) as connection:
            known = connection.execute(
                "SELECT example_id FROM sample WHERE example_id = $1 UNION"
                " SELECT example_id FROM occurrence WHERE own_id = $1 UNION"
                " SELECT exemplar_id FROM exemplar WHERE exemplar_id = $1 OR own_id = $1",
                [wanted],
            ).fetchall()
            example_ids |= {row[0] for row in known}
    return example_ids


def forget(workspace: Workspace, example_ids: Sequence[str], reason: str) -> Forgotten:
    """Remove the examples' texts and vectors; see the module. May be repeated after a failure."""
    wanted = sorted(set(example_ids))
    for folder in folders(workspace.pools):
        forget_in_pool(workspace, folder, wanted)
    shutil.rmtree(workspace.indexes, ignore_errors=True)  # built again from shards when needed
    _remove(workspace.token_activations)  # asked of the model again when needed
    if not workspace.snapshot.exists():
        return Forgotten(wanted, [], [])
    exports = _exports_with(workspace, wanted)
    _forget_in_catalog(workspace, wanted, reason, [path for path, *_ in exports])
    root = workspace.root.resolve()
    inside = [row for row in exports if (root / row[0]).resolve().is_relative_to(root)]
    _write_again(workspace, inside, wanted)
    _remove(
        workspace.token_activations
    )  # a run that had read the sample before may have kept places of it
    outside = [path for path, *_ in exports if path not in {row[0] for row in inside}]
    return Forgotten(wanted, [path for path, *_ in inside], outside)


def _remove(folder: Path) -> None:
    """Remove a folder if it is there. Raises OSError where something of it stays."""
    if folder.is_dir():
        shutil.rmtree(folder)


def _exports_with(workspace: Workspace, wanted: Sequence[str]) -> list[tuple[str, str, str]]:
    """(path, selection_id, format) of exported files whose selection holds one of the examples."""
    with open_snapshot(workspace) as connection:
        return connection.execute(
            "SELECT DISTINCT path, selection_id, format FROM export WHERE selection_id IN"
            " (SELECT selection_id FROM pick WHERE list_contains(?::VARCHAR[], example_id))"
            " ORDER BY path",
            [wanted],
        ).fetchall()


def _forget_in_catalog(
    workspace: Workspace, wanted: Sequence[str], reason: str, exports: Sequence[str]
) -> None:
    """Tombstones through an ordinary commit; then every row copied into a new file, texts out."""
    who, now = user_name(), datetime.now(UTC)

    def tombstones(connection: Connection) -> dict[str, NewRows]:
        known = {
            row[0] for row in connection.execute("SELECT example_id FROM forgotten").fetchall()
        }
        new = [name for name in wanted if name not in known]
        rows = [
            {"example_id": name, "at": now, "who": who, "reason": reason, "n_exports": len(exports)}
            for name in new
        ]
        detail = {"examples": new, "reason": reason, "exports": list(exports)}
        event = {"at": now, "action": "forgot", "detail": detail}
        redacted = new_redactions(connection, wanted)
        files = [file_row(workspace, kind, path, now) for kind, path in _redacted(workspace)]
        return {
            "forgotten": rows,
            "event": [event] if new else [],
            "redaction": redacted,
            "recorded_file": files,
        }

    commit(workspace, tombstones)
    with writing(workspace):
        temp = temp_path(workspace.catalog)
        try:
            with connect_to_write(temp) as connection:
                _copy_without(connection, workspace.catalog)
                connection.execute("CHECKPOINT")
            sync_file(temp)
            os.replace(temp, workspace.catalog)
            sync_folder(workspace.root)
        finally:
            for left in (temp, temp.with_name(f"{temp.name}.wal")):
                left.unlink(missing_ok=True)
        publish(workspace)


def _redacted(workspace: Workspace) -> list[tuple[str, Path]]:
    """(kind, manifest) of every pool and shard that says that something was taken out of it."""
    pools = [(POOL, folder) for folder in folders(workspace.pools)]
    units = [(SHARDS, unit) for home in workspace.shards.glob("*") for unit in folders(home)]
    paths = [(kind, folder / MANIFEST) for kind, folder in pools + units]
    return [(kind, path) for kind, path in paths if read_json(path).get("redacted")]


def _copy_without(connection: Connection, path: Path) -> None:
    """Fill an empty database with the rows of the catalog in their order, redacted texts blank."""
    create_schema(connection)
    attach_read_only(connection, path, "old")
    names = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'old' ORDER BY 1"
    ).fetchall()
    for (name,) in names:
        is_redacted = (
            f"rowid IN (SELECT row_number FROM old.redaction WHERE table_name = {quoted(name)})"
        )
        replaced = [
            f'CASE WHEN {is_redacted} THEN {value} ELSE "{column}" END AS "{column}"'
            for column, value in (TEXTS[name].blank if name in TEXTS else {}).items()
        ]
        what = f"* REPLACE ({', '.join(replaced)})" if replaced else "*"
        connection.execute(
            f'INSERT INTO "{name}" BY NAME SELECT {what} FROM old."{name}" ORDER BY rowid'
        )
    connection.execute("DETACH old")


def _write_again(
    workspace: Workspace, exports: Sequence[tuple[str, str, str]], wanted: Sequence[str]
) -> None:
    """Exports of the workspace, and every report that shows one of the examples."""
    for folder, selection_id in {(Path(p).parent, s) for p, s, _ in exports}:
        formats = sorted({f for p, s, f in exports if s == selection_id})
        out = workspace.root / folder
        if out.is_dir():
            export_selection(workspace, selection_id, formats=formats, out=out)
    names = [name.encode() for name in wanted]
    with open_snapshot(workspace) as connection:
        rows = connection.execute(
            "SELECT name, selection_id, run_id IN (SELECT run_id FROM exemplar"
            " WHERE list_contains(?::VARCHAR[], exemplar_id)) FROM selection",
            [list(wanted)],
        ).fetchall()
    known = {file_name(name): selection_id for name, selection_id, _ in rows}
    # Words of an exemplar may stand in a page that does not list it.
    stale = {file_name(name) for name, _, has_exemplar in rows if has_exemplar}
    for page in sorted(workspace.reports.glob("*.html")):
        first, is_pair, second = page.stem.partition(VERSUS)
        is_stale = page.stem in stale or (is_pair and stale & {first, second})
        if is_stale or any(name in page.read_bytes() for name in names):
            page.unlink()
            if page.stem in known:
                write_report(workspace, known[page.stem], page)
            elif is_pair and {first, second} <= known.keys():
                write_comparison(workspace, known[first], known[second])
            else:
                row = {"path": workspace.relative(page), "kind": REPORT, "sha256": None}
                commit(workspace, {"recorded_file": [{**row, "recorded_at": datetime.now(UTC)}]})
