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
    # Not duckdb_columns(): it lists the columns of views too, for which it plans each of them.
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE table_name = 'migration'"
        " AND database_name = current_database()"
    ).fetchall()
    found = connection.execute("FROM migration") if tables else None
    columns = [column[0] for column in found.description or ()] if found else []
    if found is None or "name" not in columns:
        return [name for name in MIGRATIONS if name != FIRST]
    applied = {row[columns.index("name")] or FIRST for row in found.fetchall()}
    return [name for name in MIGRATIONS if name not in applied]
