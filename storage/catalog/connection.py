"""The only file that meets duckdb: how its files are opened, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from selection.core.errors import InputError
from storage.catalog.schema import migrate, pending
from storage.files.workspace import Workspace

Connection = duckdb.DuckDBPyConnection
DatabaseError = duckdb.Error
LockedError = duckdb.IOException
SELECT = duckdb.StatementType.SELECT

# Extensions are downloads; nothing here needs one, and offline they would fail late.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


def connect_to_write(path: Path) -> Connection:
    """Open a DuckDB file for writing. Raises DatabaseError, for a lock among others."""
    return duckdb.connect(str(path), config=OFFLINE)


def connect_in_memory() -> Connection:
    """A database of its own that no other connection of the process shares."""
    return duckdb.connect(":memory:", config=OFFLINE)


@contextmanager
def open_snapshot(workspace: Workspace) -> Iterator[Connection]:
    """Read the published snapshot; its tables and views are found without a prefix.

    The file is attached to a database in memory: duckdb shares one instance per path within a
    process, which after a new publication would still be the old one.
    Raises InputError when nothing has been recorded yet or the file is not readable.
    """
    path = workspace.snapshot
    if not path.exists():
        raise InputError(
            "nothing has been recorded in this workspace yet",
            file=workspace.root,
            remedy="Run `saelect demo` or `saelect run CONFIG` first, or name another --workspace.",
        )
    connection = connect_in_memory()
    try:
        attach_read_only(connection, path)
        yield connection
    finally:
        connection.close()


def attach_read_only(connection: Connection, path: Path) -> None:
    """Make a catalog file the default database of a connection, without write access."""
    quoted = str(path).replace("'", "''")
    try:
        connection.execute(f"ATTACH '{quoted}' AS snapshot (READ_ONLY)")
    except duckdb.Error as error:
        raise InputError(
            f"not readable as a DuckDB database ({first_line(error)})",
            file=path,
            remedy="Files of DuckDB 2 need DuckDB 2; if the file is damaged, delete it: the next"
            " run publishes it again from the catalog.",
        ) from None
    connection.execute("USE snapshot")
    if pending(connection):
        _upgrade_in_memory(connection, path)


def _upgrade_in_memory(connection: Connection, path: Path) -> None:
    """Read what an older saelect published as if it were of today; the file stays as it is."""
    quoted = str(path).replace("'", "''")
    connection.execute("USE memory")
    connection.execute("DETACH snapshot")
    connection.execute(f"ATTACH '{quoted}' AS older (READ_ONLY)")
    connection.execute("ATTACH ':memory:' AS snapshot")
    connection.execute("COPY FROM DATABASE older TO snapshot")
    connection.execute("DETACH older")
    connection.execute("USE snapshot")
    migrate(connection, path)


def is_full_disk(error: Exception) -> bool:
    """Whether duckdb failed because the disk is full; it has no error class for that."""
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text


def first_line(error: Exception) -> str:
    """The first line of an error's text, without a final period."""
    return str(error).strip().split("\n", 1)[0].rstrip(".")


def statements(text: str) -> list[duckdb.Statement]:
    """The statements of an SQL text, by duckdb's own parser. Raises DatabaseError."""
    return duckdb.extract_statements(text)
