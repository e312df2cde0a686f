"""The only module that imports duckdb: how its files are opened, and what its errors mean."""

from pathlib import Path

import duckdb

from selection.core.errors import InputError

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


def attach_read_only(connection: Connection, path: Path, name: str = "snapshot") -> None:
    """Attach a DuckDB file under a name, without write access.

    Raises InputError where it is damaged, locked, or no DuckDB file.
    """
    try:
        connection.execute(f"ATTACH {quoted(str(path))} AS {name} (READ_ONLY)")
    except duckdb.Error as error:
        raise InputError(
            f"not readable as a DuckDB database ({first_line(error)})",
            file=path,
            remedy="`saelect verify` says whether catalog.duckdb and snapshot.duckdb are whole; a"
            " damaged one is made again from the other at the next write. Files of DuckDB 2 need"
            " DuckDB 2.",
        ) from None


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


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
