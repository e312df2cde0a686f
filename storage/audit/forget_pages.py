"""Forgetting on pages: reports, and those of runs in Prefect's databases, which show picks."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from storage.audit.forget_journal import Journal
from storage.catalog.commit import commit
from storage.catalog.connection import Connection
from storage.catalog.recorded import REPORT
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace, file_name
from storage.report.compare import VERSUS, write_comparison
from storage.report.page import write_report

_TABLES = ("artifact", "artifact_collection")
_TIMEOUT_S = 60.0


def databases(workspace: Workspace) -> list[Path]:
    """The database of `saelect serve` and that of runs without a server, where they are there.

    Raises InputError for a folder of Prefect that this user may not look into.
    """
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    files = [folder / "prefect.db" for folder in (workspace.root / ".server", home)]
    try:
        return [file for file in (*files, *sorted(home.glob("saelect-*.db"))) if file.is_file()]
    except PermissionError as error:
        raise InputError(
            "pages of runs may be here, and you may not look",
            file=error.filename,
            remedy="Let the user do it whose folder it is, or set PREFECT_HOME to yours.",
        ) from None


def forget_runs(file: Path, flow_runs: Sequence[str]) -> int:
    """Remove the pages of flow runs, their bytes too; returns how many rows that were.

    Raises InputError where another program keeps the database, or it is damaged.
    """
    if not flow_runs:
        return 0
    marks = ", ".join("?" * len(flow_runs))
    try:
        with closing(sqlite3.connect(file, timeout=_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            n = 0
            for table in present.intersection(_TABLES):
                query = f"DELETE FROM {table} WHERE flow_run_id IN ({marks})"
                n += connection.execute(query, flow_runs).rowcount
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return n
    except sqlite3.Error as error:
        raise InputError(
            f"the pages of runs cannot be removed ({error})",
            file=file,
            remedy="Stop `saelect serve`, and repeat any command on the workspace: it carries on."
            " A damaged database can be removed: Prefect makes a new one.",
        ) from None


def write_pages(workspace: Workspace, journal: Journal) -> list[str]:
    """Every page again that shows one of the examples, or may quote it without its id.

    Returns those outside the workspace, which stay.
    """
    names, outside = [name.encode() for name in journal.example_ids], []
    with open_snapshot(workspace) as connection:
        rows = connection.execute(
            "SELECT name, selection_id, run_id IN (SELECT run_id FROM exemplar"
            " WHERE list_contains(?::VARCHAR[], exemplar_id)) FROM selection",
            [journal.example_ids],
        ).fetchall()
        elsewhere = _pages_elsewhere(connection, workspace)
    known = {file_name(name): selection_id for name, selection_id, _ in rows}
    # Words of an exemplar, or of a description, may stand in a page that does not list it.
    stale = {selection_id for _, selection_id, has_it in rows if has_it or journal.latents}
    for page in [*sorted(workspace.reports.glob("*.html")), *elsewhere]:
        shown = [elsewhere[page]] if page in elsewhere else shown_on(page.stem, known)
        if not stale & {*shown} and not any(name in page.read_bytes() for name in names):
            continue
        if not page.resolve().is_relative_to(workspace.root.resolve()):
            outside.append(str(page))
        elif len(shown) == 1:
            write_report(workspace, shown[0], page)
        elif len(shown) == 2:
            write_comparison(workspace, *shown)
        else:
            row = {"path": workspace.relative(page), "kind": REPORT, "sha256": None}
            commit(workspace, {"recorded_file": [{**row, "recorded_at": datetime.now(UTC)}]})
            page.unlink()
    return outside


def shown_on(stem: str, known: Mapping[str, str]) -> list[str]:
    """Ids of the one or two selections that a page of this name shows; none for a foreign name.

    known: name as a file name -> id. A name may itself hold what stands between two names.
    """
    if stem in known:
        return [known[stem]]
    parts = stem.split(VERSUS)
    halves = ((VERSUS.join(parts[:i]), VERSUS.join(parts[i:])) for i in range(1, len(parts)))
    return next(([known[a], known[b]] for a, b in halves if a in known and b in known), [])


def _pages_elsewhere(connection: Connection, workspace: Workspace) -> dict[Path, str]:
    """Page that was written with --out and is still there -> id of the selection it shows."""
    rows = connection.execute(
        "SELECT detail->>'path' AS path, arg_max(selection_id, rowid) FROM event"
        " WHERE action = 'reported' GROUP BY path ORDER BY path"
    ).fetchall()
    pages = {workspace.root / name: selection_id for name, selection_id in rows}
    return {page: selection_id for page, selection_id in pages.items()
            if page.is_file() and page.parent != workspace.reports}  # fmt: skip
