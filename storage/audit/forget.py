"""`saelect forget`: take a sample's text and vectors out of everything a workspace holds.

Positions stay (a forgotten example keeps its row with an empty conversation), so ids, ranks and
scores of all others remain what they were. Only the id, who asked, when and why are left. The
catalog is written as a new file, because a deleted row's bytes stay in a DuckDB file.

Every step may be stopped and repeated. A journal says what is to be done until all of it is.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.data.training_rows import RowLayout
from storage.audit.bundle import write_bundle
from storage.audit.forget_files import (
    drop_vectors,
    folders,
    forget_in_descriptions,
    forget_in_pool,
    keys_beside_pools,
    keys_of,
    quoting_latents,
)
from storage.audit.forget_journal import Journal, read_journal
from storage.audit.forget_pages import databases, forget_runs, write_pages
from storage.catalog.commit import commit, writing
from storage.catalog.connection import (
    Connection,
    attach_read_only,
    connect_to_write,
    faults_explained,
    quoted,
)
from storage.catalog.integrity import new_redactions
from storage.catalog.recorded import NAMING, file_row, files_in, recorded_files
from storage.catalog.rows import NewRows
from storage.catalog.schema import TEXTS, create_schema
from storage.catalog.snapshot import open_snapshot, publish
from storage.export.export import export_selection
from storage.files.atomic import MANIFEST, remove_stale_temps, sync_file, sync_folder, temp_path
from storage.files.in_use import alone
from storage.files.workspace import Workspace, user_name
from storage.pools.pool import PreparedPool, open_pool

WAIT_S = 30.0
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done.

    rewritten, outside: exports and bundles that held the examples; those outside are not touched.
    unknown: files among exports, reports and bundles that nobody recorded, copies maybe.
    """

    example_ids: Sequence[str]
    rewritten: Sequence[str]
    outside: Sequence[str]
    unknown: Sequence[str] = ()


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
            "no sample is meant",
            field="--where",
            value=where,
            remedy="Give --id or --where. Forgotten samples match no condition on their text.",
        )
    return sorted(example_ids)


def _ids_of(workspace: Workspace, pools: Sequence[PreparedPool], wanted: str) -> set[str]:
    example_ids: set[str] = set()
    for pool in pools:
        names = pool.example_ids().astype(str)
        rows = pool.rows_of_ids([wanted])[0]
        example_ids |= set(names[rows].tolist())
    if workspace.has_catalog:
        with open_snapshot(workspace) as connection:
            known = connection.execute(
                "SELECT example_id FROM sample WHERE example_id = $1 UNION"
                " SELECT example_id FROM occurrence WHERE own_id = $1 UNION"
                " SELECT exemplar_id FROM exemplar WHERE exemplar_id = $1 OR own_id = $1",
                [wanted],
            ).fetchall()
            example_ids |= {row[0] for row in known}
    return example_ids


def forget(
    workspace: Workspace, example_ids: Sequence[str], reason: str, wait_s: float = WAIT_S
) -> Forgotten:
    """Remove the examples' texts and vectors; see the module. Finishes an earlier one first.

    Raises InputError where others work in the workspace for `wait_s` seconds, and for damaged
    files: the journal stays then, and the next command goes on.
    """
    with alone(workspace, wait_s) as is_alone:
        if not is_alone:
            raise InputError(
                "a run, an export or a check is at work in this workspace",
                file=workspace.root,
                remedy="Wait until it is done, or stop it (a run resumes where it was), and repeat"
                " `saelect forget`.",
            )
        if (earlier := read_journal(workspace)) is not None:
            _carry_out(workspace, earlier)
        journal = Journal(
            example_ids=sorted(set(example_ids)),
            reason=reason,
            who=user_name(),
            at=datetime.now(UTC),
        )
        databases(workspace)  # refused before anything is touched
        keys = keys_of(workspace, journal.example_ids)
        if _are_exemplars(workspace, journal.example_ids):
            keys |= keys_beside_pools(workspace)
        journal.keys = sorted(key.hex() for key in keys)
        journal.latents = quoting_latents(workspace, journal.example_ids)
        journal.bundles = _bundles_with(workspace, journal.example_ids)
        journal.trusted = _as_recorded(workspace)
        journal.save(workspace)
        return _carry_out(workspace, journal)


def finish(workspace: Workspace) -> Forgotten | None:
    """Carry on with a `forget` that was stopped; None where none was, or somebody is at work."""
    if not workspace.forget_journal.exists() or not os.access(workspace.root, os.W_OK):
        return None
    with alone(workspace, 0) as is_alone:
        journal = read_journal(workspace) if is_alone else None
        return None if journal is None else _carry_out(workspace, journal)


def _carry_out(workspace: Workspace, journal: Journal) -> Forgotten:
    """All steps. Each leaves nothing to do where it was done before."""
    wanted = journal.example_ids
    _sweep(workspace)
    for folder in folders(workspace.pools):
        forget_in_pool(workspace, folder, journal)
    for representation in sorted(workspace.shards.glob("*")):
        drop_vectors(workspace, representation, journal)
    forget_in_descriptions(workspace, wanted)
    _remove(workspace.indexes)  # built again from shards when needed
    _remove(workspace.token_activations)  # asked of the model again when needed
    rewritten: list[str] = []
    outside: list[str] = []
    if workspace.has_catalog:
        exports = _exports_with(workspace, wanted)
        _forget_in_catalog(workspace, journal, [path for path, *_ in exports])
        root = workspace.root.resolve()
        inside = [
            row
            for row in exports
            if "://" not in row[0] and (root / row[0]).resolve().is_relative_to(root)
        ]
        _write_exports(workspace, inside)
        outside += write_pages(workspace, journal)
        for database in databases(workspace):
            forget_runs(database, _flow_runs_with(workspace, wanted))
        for name, selection_id, with_text in journal.bundles:
            if (folder := (root / name).resolve()).is_relative_to(root):
                _remove(folder)
                write_bundle(workspace, selection_id, folder, with_text=with_text)
                rewritten.append(name)
            else:
                outside.append(name)
        rewritten += [path for path, *_ in inside]
        outside += [path for path, *_ in exports if path not in {row[0] for row in inside}]
    workspace.forget_journal.unlink()
    sync_folder(workspace.root)
    return Forgotten(wanted, rewritten, outside, _unknown_files(workspace))


def _unknown_files(workspace: Workspace) -> list[str]:
    """Files in the folders for people that nobody recorded."""
    here = files_in([workspace.exports, workspace.reports, workspace.bundles])
    if not here:
        return []
    with open_snapshot(workspace) as connection:
        recorded = recorded_files(connection)
    return [name for name in map(workspace.relative, here) if name not in recorded]


def _sweep(workspace: Workspace) -> None:
    """Remove what stopped processes left: nobody else is at work here."""
    for folder, _, _ in os.walk(workspace.root):
        remove_stale_temps(Path(folder), _HOUR_S)
    shutil.rmtree(workspace.catalog.with_name(f"{workspace.catalog.name}.tmp"), ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a folder if it is there. Raises OSError where something of it stays."""
    if folder.is_dir():
        shutil.rmtree(folder)


def _exports_with(workspace: Workspace, wanted: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """(path, selection_id, format, layout) of exported files of selections with an example.

    In the order in which they were written last.
    """
    with open_snapshot(workspace) as connection:
        return connection.execute(
            "SELECT path, selection_id, format, max_by(coalesce(layout::VARCHAR, ''), rowid)"
            " FROM export e WHERE EXISTS (FROM pick p WHERE p.selection_id = e.selection_id"
            " AND coalesce(p.budget <= (e.layout->>'budget')::DOUBLE, true)"
            " AND list_contains(?::VARCHAR[], p.example_id))"
            " GROUP BY path, selection_id, format ORDER BY max(rowid), path",
            [wanted],
        ).fetchall()


def _are_exemplars(workspace: Workspace, wanted: Sequence[str]) -> bool:
    """Whether one of the examples was an exemplar of a run."""
    if not workspace.has_catalog:
        return False
    with open_snapshot(workspace) as connection:
        query = "SELECT count(*) FROM exemplar WHERE list_contains(?::VARCHAR[], exemplar_id)"
        return bool(connection.execute(query, [wanted]).fetchall()[0][0])


_RUNS_WITH = """
SELECT run_id FROM occurrence WHERE list_contains($1::VARCHAR[], example_id)
UNION SELECT run_id FROM exemplar WHERE list_contains($1::VARCHAR[], exemplar_id)"""


def _flow_runs_with(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    """Flow runs of the runs that hold one of the examples."""
    with open_snapshot(workspace) as connection:
        rows = connection.execute(
            "SELECT DISTINCT flow_run_id FROM run WHERE flow_run_id IS NOT NULL"
            f" AND run_id IN ({_RUNS_WITH}) ORDER BY 1",
            [wanted],
        ).fetchall()
    return [str(row[0]) for row in rows]


def _as_recorded(workspace: Workspace) -> list[str]:
    """Manifests of pools and shards that are as the catalog has them."""
    if not workspace.has_catalog:
        return []
    with open_snapshot(workspace) as connection:
        recorded = recorded_files(connection)
    paths = {name: workspace.root / name for name, file in recorded.items()
             if file.kind in NAMING and (workspace.root / name).is_file()}  # fmt: skip
    return [name for name, path in paths.items() if file_sha256(path) == recorded[name].sha256]


def _bundles_with(workspace: Workspace, wanted: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(folder, selection_id, with_text) of bundles that are still there and hold the examples."""
    if not workspace.has_catalog:
        return []
    with open_snapshot(workspace) as connection:
        rows = connection.execute(
            "SELECT DISTINCT detail->>'folder', selection_id, (detail->>'with_text')::BOOLEAN"
            f" FROM event WHERE action = 'bundled' AND run_id IN ({_RUNS_WITH}) ORDER BY 1",
            [wanted],
        ).fetchall()
    return [(name, *rest) for name, *rest in rows if (workspace.root / name).is_dir()]


def _forget_in_catalog(workspace: Workspace, journal: Journal, exports: Sequence[str]) -> None:
    """Tombstones through an ordinary commit; then every row copied into a new file, texts out."""
    wanted, now = journal.example_ids, journal.at

    def tombstones(connection: Connection) -> dict[str, NewRows]:
        known = {
            row[0] for row in connection.execute("SELECT example_id FROM forgotten").fetchall()
        }
        new = [name for name in wanted if name not in known]
        facts = {"at": now, "who": journal.who, "reason": journal.reason, "n_exports": len(exports)}
        detail = {"examples": new, "reason": journal.reason, "exports": list(exports)}
        event = {"at": now, "action": "forgot", "detail": detail}
        return {
            "forgotten": [{"example_id": name, **facts} for name in new],
            "event": [event] if new else [],
            "redaction": new_redactions(connection, wanted, journal.latents),
            "recorded_file": _announced(connection, workspace, journal),
        }

    commit(workspace, tombstones)
    with writing(workspace), faults_explained(workspace.catalog):
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


def _announced(
    connection: Connection, workspace: Workspace, journal: Journal
) -> list[dict[str, object]]:
    """Rows for manifests that hold what the journal says, and for those that are to be made again.

    Any other content is not recorded: `verify` goes on to call it altered.
    """
    recorded = recorded_files(connection)
    rows: list[dict[str, object]] = []
    for name, sha256 in journal.files.items():
        path = workspace.root / name
        if path.name != MANIFEST or name not in recorded:
            continue  # its hash stands in the manifest
        kind, before = recorded[name]
        if not path.exists() and before is not None:
            removed = {"path": name, "kind": kind, "sha256": None}
            rows.append({**removed, "recorded_at": journal.at})  # stopped while it was replaced
        elif path.exists() and file_sha256(path) == sha256 != before:
            rows.append(file_row(workspace, kind, path, journal.at))
    return rows


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


def _write_exports(workspace: Workspace, exports: Sequence[tuple[str, str, str, str]]) -> None:
    """The exports of the workspace again, each with the layout that it had."""
    formats: dict[tuple[Path, str, str], list[str]] = {}
    for path, selection_id, name, layout in exports:
        formats.setdefault((Path(path).parent, selection_id, layout), []).append(name)
    for (folder, selection_id, text), names in formats.items():
        out = workspace.root / folder
        if out.is_dir():
            export_selection(workspace, selection_id, names, out, RowLayout.parse(text))
