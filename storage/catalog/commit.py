"""Writing the catalog: everything of a run in one transaction, then a snapshot for readers.

The catalog is opened late and closed early, under one lock.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from selection.core.errors import InputError
from storage.catalog.connection import (
    Connection,
    DatabaseError,
    LockedError,
    connect_to_write,
    faults_explained,
    first_line,
    is_full_disk,
)
from storage.catalog.integrity import append_commit, head_of, refuse_unrecorded, row_counts
from storage.catalog.rows import NewRows, bytes_of, register_rows, values_of
from storage.catalog.schema import CHECKS, INSERTED_ONCE, KEYS, create_schema
from storage.catalog.snapshot import publish, published_head, refuse_other_version, restore
from storage.files import locks
from storage.files.atomic import ensure_free, full_disk_error
from storage.files.workspace import Workspace

log = logging.getLogger(__name__)

WAIT_S = 120.0


Tables: TypeAlias = Mapping[str, NewRows]


def commit(
    workspace: Workspace,
    tables: Tables | Callable[[Connection], Tables],
    *,
    wait_s: float = WAIT_S,
) -> None:
    """Write rows into the catalog, all or none, and publish the snapshot.

    tables: catalog table -> its new rows, or a function that reads the catalog, which nobody else
            changes meanwhile, and returns them. Missing columns are null. A run that is there
            already with the same selections is not written twice, so a commit may be repeated
            after a failure.
    wait_s: how long to wait for other writers.

    Raises InputError when another process keeps the catalog, or the disk is full; ValueError when
    the rows contradict each other (picks without a sample, ranks with gaps, ...). Nothing of the
    commit is kept then.
    """
    n_bytes = 0 if callable(tables) else sum(bytes_of(rows) for rows in tables.values())
    old = workspace.catalog.stat().st_size if workspace.catalog.exists() else 2**20
    # The new rows twice (log and file), and a second copy of the catalog to publish.
    ensure_free(workspace.root, old + 3 * n_bytes, "recording this")
    queue = workspace.root / ".catalog-queue"
    with ExitStack() as held:
        with locks.shared(queue):
            held.enter_context(locks.held_in_turn(_lock_path(workspace), wait_s))
        number = _write(workspace, tables, wait_s)
        # A waiting writer publishes too; copying the file for each of them would be waste.
        if not locks.is_shared(queue):
            publish(workspace)
            return
    with writing(workspace, wait_s):
        if published_head(workspace).number < number:
            publish(workspace)


def commit_if_writable(workspace: Workspace, tables: Tables) -> None:
    """As `commit`, for what is read in a workspace that this account may not write as well."""
    if os.access(workspace.root, os.W_OK):
        commit(workspace, tables)
    else:
        log.warning("%s cannot be written: this is not recorded", workspace.root)


@contextmanager
def writing(workspace: Workspace, wait_s: float = WAIT_S) -> Iterator[None]:
    """Keep all writers out while the files of the catalog are replaced."""
    with locks.held_in_turn(_lock_path(workspace), wait_s):
        yield


def _write(
    workspace: Workspace, tables: Tables | Callable[[Connection], Tables], wait_s: float
) -> int:
    """Insert in one transaction and close the file; returns the number of the newest commit."""
    connection = _connect(workspace, wait_s)
    with faults_explained(workspace.catalog), connection:  # closes
        connection.begin()
        if not connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0][0]:
            create_schema(connection)
        refuse_other_version(connection, workspace.catalog)
        before = row_counts(connection)
        refuse_unrecorded(connection, before)
        tables = tables(connection) if callable(tables) else tables
        if not _is_repeated(connection, tables):
            _insert(connection, tables)
            _check(connection, tables)
            process = f"{os.getpid()} on {socket.gethostname()}"
            append_commit(connection, before, datetime.now(UTC).replace(tzinfo=None), process)
        connection.commit()
        connection.execute("CHECKPOINT")
        return head_of(connection).number


def _connect(workspace: Workspace, wait_s: float) -> Connection:
    """Open the catalog, waiting for a client that has it open without taking our lock."""
    path = workspace.catalog
    for left in locks.pauses(wait_s):
        try:
            restore(workspace)
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


def _insert(connection: Connection, tables: Tables) -> None:
    for name, rows in tables.items():
        once = "ON CONFLICT DO NOTHING" if name in INSERTED_ONCE else ""
        try:
            register_rows(connection, name, rows)
            connection.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM new_{name} {once}')
        except DatabaseError as error:
            if is_full_disk(error):
                raise
            raise ValueError(f"the rows of `{name}` are not valid: {error}") from error


def _check(connection: Connection, tables: Tables) -> None:
    """Refuse rows that contradict each other before anybody can read them."""
    checked = {"selection", "pick", "near_miss", "explanation"} | {key.table for key in KEYS}
    for name in checked:
        if name not in tables:
            connection.execute(f'CREATE TEMP VIEW new_{name} AS FROM "{name}" LIMIT 0')
    keys = {key.problem: key.query(f"new_{key.table}") for key in KEYS}
    for problem, query in {**keys, **CHECKS}.items():
        rows = connection.execute(query).fetchmany(3)
        if rows:
            examples = ", ".join(str(row[0]) for row in rows)
            raise ValueError(f"{problem}: {examples}")


def _is_repeated(connection: Connection, tables: Tables) -> bool:
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


def _lock_path(workspace: Workspace) -> Path:
    return workspace.root / ".catalog-lock"
