"""Writing the catalog: everything of a run in one transaction, then a snapshot for readers.

DuckDB lets nobody read a file that is open for writing. So the catalog is opened late and closed
early under one lock, and readers get a copy that is replaced by a rename.
"""

import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from storage.catalog.connection import (
    Connection,
    DatabaseError,
    LockedError,
    connect_to_write,
    first_line,
    is_full_disk,
    open_snapshot,
)
from storage.catalog.hash_chain import append_decisions
from storage.catalog.rows_in import NewRows, bytes_of, offer, values_of
from storage.catalog.schema import CHECKS, INSERTED_ONCE, KEYS, migrate
from storage.files import locks
from storage.files.atomic import ensure_free, full_disk_error, write_atomically
from storage.files.workspace import Workspace

log = logging.getLogger(__name__)

WAIT_S = 120.0


def commit(workspace: Workspace, tables: Mapping[str, NewRows], *, wait_s: float = WAIT_S) -> None:
    """Write rows into the catalog, all or none, and publish the snapshot.

    tables: catalog table -> its new rows; missing columns are null. A run that is there already
            with the same selections is not written twice, so a commit may be repeated after a
            failure.
    wait_s: how long to wait for other writers.

    Raises InputError when another process keeps the catalog, or the disk is full; ValueError when
    the rows contradict each other (picks without a sample, ranks with gaps, ...). Nothing of the
    commit is kept then.
    """
    ensure_free(workspace.root, _bytes_needed(workspace, tables), "recording this")
    queue = workspace.root / ".catalog-queue"
    with ExitStack() as writing:
        with locks.shared(queue):
            writing.enter_context(locks.held_in_turn(_lock_path(workspace), wait_s))
        number = _write(workspace, tables, wait_s)
        # A waiting writer publishes too; copying the file for each of them would be waste.
        if not locks.is_shared(queue):
            _copy_to_snapshot(workspace)
            return
    _publish_at_least(workspace, number, wait_s)


def publish(workspace: Workspace, *, wait_s: float = WAIT_S) -> None:
    """Bring the snapshot up to date, for instance after a writer was killed before doing so."""
    if workspace.catalog.exists():
        with locks.held_in_turn(_lock_path(workspace), wait_s):
            connection = _connect(workspace.catalog, wait_s)
            with connection:
                number = _last_commit(connection)
            if _published_commit(workspace) != number:
                _copy_to_snapshot(workspace)


@contextmanager
def writing(workspace: Workspace, wait_s: float) -> Iterator[None]:
    """Keep all writers out while the catalog's file itself is replaced; publish afterwards."""
    with locks.held_in_turn(_lock_path(workspace), wait_s):
        yield


def _publish_at_least(workspace: Workspace, number: int, wait_s: float) -> None:
    """Publish unless another writer has published this commit with its own in the meantime."""
    with locks.held_in_turn(_lock_path(workspace), wait_s):
        if _published_commit(workspace) < number:
            _copy_to_snapshot(workspace)


def _write(workspace: Workspace, tables: Mapping[str, NewRows], wait_s: float) -> int:
    """Insert in one transaction and close the file; returns the number of the commit."""
    connection = _connect(workspace.catalog, wait_s)
    try:
        with connection:  # closes
            migrate(connection, workspace.catalog)
            connection.begin()
            number = _last_commit(connection) + 1
            if not _is_repeated(connection, tables):
                _insert(connection, tables)
                _check(connection, tables)
                append_decisions(connection, datetime.now(UTC).replace(tzinfo=None))
                process = f"{os.getpid()} on {socket.gethostname()}"
                now = datetime.now(UTC).replace(tzinfo=None)
                connection.execute(
                    "INSERT INTO catalog_commit VALUES (?, ?, ?)", [number, now, process]
                )
            connection.commit()
            connection.execute("CHECKPOINT")
            return _last_commit(connection)
    except DatabaseError as error:
        if is_full_disk(error):
            raise full_disk_error(workspace.catalog) from error
        raise


def _connect(path: Path, wait_s: float) -> Connection:
    """Open the catalog, waiting for a client that has it open without taking our lock."""
    for left in locks.pauses(wait_s):
        try:
            return connect_to_write(path)
        except LockedError as error:
            if is_full_disk(error):
                raise full_disk_error(path) from error
            if "lock" not in str(error) or left <= 0:
                raise InputError(
                    f"cannot open the catalog for writing ({first_line(error)})",
                    file=path,
                    remedy="Close the program that has it open; to read, open snapshot.duckdb.",
                ) from None
    raise AssertionError("pauses() ends with nothing left")


def _insert(connection: Connection, tables: Mapping[str, NewRows]) -> None:
    for name, rows in tables.items():
        once = "ON CONFLICT DO NOTHING" if name in INSERTED_ONCE else ""
        try:
            offer(connection, name, rows)
            connection.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM new_{name} {once}')
        except DatabaseError as error:
            if is_full_disk(error):
                raise
            raise ValueError(f"the rows of `{name}` are not valid: {error}") from error


def _check(connection: Connection, tables: Mapping[str, NewRows]) -> None:
    """Refuse rows that contradict each other before anybody can read them."""
    checked = {"selection", "pick", "near_miss", "why"} | {key.table for key in KEYS}
    for name in checked:
        if name not in tables:
            connection.execute(f'CREATE TEMP VIEW new_{name} AS FROM "{name}" LIMIT 0')
    keys = {key.problem: key.query(f"new_{key.table}") for key in KEYS}
    for problem, query in {**keys, **CHECKS}.items():
        found = connection.execute(query).fetchmany(3)
        if found:
            examples = ", ".join(str(row[0]) for row in found)
            raise ValueError(f"{problem}: {examples}")


def _is_repeated(connection: Connection, tables: Mapping[str, NewRows]) -> bool:
    """Whether the run of this commit is in the catalog already, with the same selections."""
    ids = values_of(tables["run"], "run_id") if "run" in tables else []
    known = connection.execute(
        "SELECT run_id FROM run WHERE list_contains(?::VARCHAR[], run_id)", [ids]
    ).fetchall()
    if not known:
        return False
    rows = connection.execute(
        "SELECT selection_id FROM selection WHERE list_contains(?::VARCHAR[], run_id)", [ids]
    ).fetchall()
    new = values_of(tables["selection"], "selection_id") if "selection" in tables else []
    if len(known) < len(set(ids)) or {row[0] for row in rows} != set(new):
        raise ValueError(f"run {known[0][0]} is in the catalog already, with other selections")
    log.info("run %s is in the catalog already", known[0][0])
    return True


def _copy_to_snapshot(workspace: Workspace) -> None:
    """Replace the snapshot by a copy of the closed catalog, by one rename."""
    write_atomically(workspace.snapshot, lambda temp: _copy(workspace.catalog, temp))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _published_commit(workspace: Workspace) -> int:
    if not workspace.snapshot.exists():
        return 0
    with open_snapshot(workspace) as connection:
        return _last_commit(connection)


def _last_commit(connection: Connection) -> int:
    return _one_int(connection, "SELECT coalesce(max(number), 0) FROM catalog_commit")


def _one_int(connection: Connection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _lock_path(workspace: Workspace) -> Path:
    return workspace.root / ".catalog-lock"


def _bytes_needed(workspace: Workspace, tables: Mapping[str, NewRows]) -> int:
    """The new rows twice (log and file), and a second copy of the catalog to publish."""
    old = workspace.catalog.stat().st_size if workspace.catalog.exists() else 2**20
    return old + 3 * sum(bytes_of(rows) for rows in tables.values())
