"""The only module that imports duckdb: how its files are opened, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from selection.core.errors import InputError
from storage.files.atomic import full_disk_error

Connection = duckdb.DuckDBPyConnection
DatabaseError = duckdb.Error
LockedError = duckdb.IOException
DamageError = (
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.FatalException,
)
"""What duckdb raises where the pages of a file are not what it wrote."""

SELECT = duckdb.StatementType.SELECT

# Extensions are downloads; nothing here needs one, and offline they would fail late.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

OLDEST_CLIENT = "v1.2.0"
"""The oldest DuckDB that opens our files: most programs and people have one of 1.x."""


def connect_to_write(path: Path) -> Connection:
    """Open a DuckDB file for writing. Raises DatabaseError, for a lock among others."""
    config = {**OFFLINE, "storage_compatibility_version": OLDEST_CLIENT}
    return duckdb.connect(str(path), config=config)


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
        raise damaged(path, error) from None


def functions_in(path: Path) -> list[str]:
    """Names of the functions that a DuckDB file brings. Raises InputError as `attach_read_only`.

    One named `sha256` or `count` stands before DuckDB's own once the file is in use, and every
    answer could be a lie: so it is asked from outside.
    """
    with connect_in_memory() as connection:
        attach_read_only(connection, path)
        rows = connection.execute(
            "SELECT DISTINCT function_name FROM system.main.duckdb_functions()"
            " WHERE database_name = 'snapshot' AND NOT internal ORDER BY 1"
        ).fetchall()
    return [str(row[0]) for row in rows]


def damaged(path: Path, error: Exception) -> InputError:
    """The refusal of a file that duckdb cannot read."""
    return InputError(
        f"not readable as a DuckDB database ({first_line(error)})",
        file=path,
        remedy="`saelect verify` says whether catalog.duckdb and snapshot.duckdb are whole. Remove"
        " a damaged one if the other is whole: it is made again from that at the next write.",
    )


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def is_full_disk(error: Exception) -> bool:
    """Whether duckdb failed because the disk is full; it has no error class for that."""
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text


@contextmanager
def faults_explained(path: Path) -> Iterator[None]:
    """Turn a full disk, and damage that duckdb meets in `path`, into InputError."""
    try:
        yield
    except duckdb.Error as error:
        if is_full_disk(error):
            raise full_disk_error(path) from error
        if isinstance(error, DamageError):
            raise damaged(path, error) from error
        raise


def first_line(error: Exception) -> str:
    """The first line of an error's text, without a final period."""
    return str(error).strip().split("\n", 1)[0].rstrip(".")


def statements(text: str) -> list[duckdb.Statement]:
    """The statements of an SQL text, by duckdb's own parser. Raises DatabaseError."""
    return duckdb.extract_statements(text)
