"""Rows on their way into the catalog: Arrow tables where they are many, mappings where few.

To import pyarrow takes longer than to commit an event; so whoever has a row or two gives mappings.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias, Union

from selection.core.hashing import canonical_json
from storage.catalog.connection import Connection

if TYPE_CHECKING:
    import pyarrow as pa

NewRows: TypeAlias = Union["pa.Table", Sequence[Mapping[str, object]]]
"""Rows of one catalog table; see `storage.catalog.arrow_rows.to_arrow` for what values may be."""


def register_rows(connection: Connection, name: str, rows: NewRows) -> None:
    """Make rows of the catalog table `name` known to a connection as `new_<name>`.

    Raises ValueError where the catalog has no such table or column, DatabaseError (of
    `storage.catalog.connection`) for values that its columns cannot hold.
    """
    given = _columns(rows)
    refuse_unknown(name, given, _known_columns(connection, name))
    if not isinstance(rows, Sequence):
        connection.register(f"new_{name}", rows)
        return
    connection.execute(f'CREATE TEMP TABLE new_{name} AS FROM "{name}" LIMIT 0')
    if rows:
        columns, marks = ", ".join(f'"{c}"' for c in given), ", ".join("?" for _ in given)
        values = [[_stored(row.get(column)) for column in given] for row in rows]
        connection.executemany(f"INSERT INTO new_{name} ({columns}) VALUES ({marks})", values)


def refuse_unknown(name: str, columns: Iterable[str], known: Sequence[str]) -> None:
    """Raise ValueError for columns that the catalog table `name` does not have."""
    if unknown := sorted(set(columns) - set(known)):
        raise ValueError(f"`{name}` has no columns {unknown}; it has {list(known)}")


def values_of(rows: NewRows, column: str) -> list[object]:
    """One column of the rows."""
    if isinstance(rows, Sequence):
        return [row.get(column) for row in rows]
    values: list[object] = rows[column].to_pylist()
    return values


def bytes_of(rows: NewRows) -> int:
    """About how much the rows take in memory; mappings count nothing, they are few."""
    return 0 if isinstance(rows, Sequence) else int(rows.nbytes)


def _columns(rows: NewRows) -> list[str]:
    if isinstance(rows, Sequence):
        return list(dict.fromkeys(key for row in rows for key in row))
    return list(rows.column_names)


def _known_columns(connection: Connection, name: str) -> list[str]:
    rows = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    tables = [row[0] for row in rows]
    if name not in tables:
        raise ValueError(f"the catalog has no table `{name}`; it has {', '.join(tables)}")
    return [column[0] for column in connection.execute(f'FROM "{name}" LIMIT 0').description or ()]


def _stored(value: object) -> object:
    """A value as the columns hold it: JSON as canonical text, times in UTC."""
    if isinstance(value, dict | list):
        return canonical_json(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
