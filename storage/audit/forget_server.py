"""Forgetting in Prefect's databases: the pages of runs show how their best picks begin."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from selection.core.errors import InputError
from storage.files.workspace import Workspace

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


def forget_pages(file: Path, flow_runs: Sequence[str]) -> int:
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
