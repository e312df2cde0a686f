"""Bringing an older catalog up to date: migrations it has not seen yet, in order, once each."""

from pathlib import Path
from typing import TYPE_CHECKING

from selection.errors import InputError
from storage.schema import FIRST, MIGRATIONS

if TYPE_CHECKING:
    from storage.database import Connection


def migrate(connection: "Connection", path: Path) -> None:
    """Bring the tables up to date. Raises InputError for a catalog of a newer version."""
    connection.execute("CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY)")
    connection.execute("ALTER TABLE migration ADD COLUMN IF NOT EXISTS name VARCHAR")
    rows = connection.execute("SELECT number, name FROM migration ORDER BY number").fetchall()
    applied = {name or FIRST for _, name in rows}
    if unknown := sorted(applied - MIGRATIONS.keys()):
        raise InputError(
            "the catalog was written by a newer saelect, with a migration that is not known here",
            file=path,
            value=unknown[0],
            remedy="Update saelect, or use another folder with --workspace DIR.",
        )
    for name in [name for name in MIGRATIONS if name not in applied]:
        connection.begin()
        connection.execute(MIGRATIONS[name])
        connection.execute(
            "INSERT INTO migration SELECT coalesce(max(number) + 1, 0), ? FROM migration", [name]
        )
        connection.commit()


def pending(connection: "Connection") -> list[str]:
    """Names of the migrations that the connection's database has not seen; changes nothing."""
    columns = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = 'migration'"
        " AND database_name = current_database()"
    ).fetchall()
    if ("name",) not in columns:
        return [name for name in MIGRATIONS if name != FIRST]
    rows = connection.execute("SELECT name FROM migration").fetchall()
    applied = {name or FIRST for (name,) in rows}
    return [name for name in MIGRATIONS if name not in applied]
