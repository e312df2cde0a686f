"""Rows of Python values as Arrow tables with the columns and types of a catalog table."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache

import pyarrow as pa

from selection.core.hashing import canonical_json
from storage.catalog.connection import connect_in_memory
from storage.catalog.rows import refuse_unknown
from storage.catalog.schema import create_schema

_ARROW_TYPES = {
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "DOUBLE": pa.float64(),
    "TIMESTAMP": pa.timestamp("us"),
}


def to_arrow(name: str, rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows for the catalog table `name`.

    Values of JSON columns may be dicts and lists (or JSON text). Times are datetimes with a zone,
    stored as UTC. Missing keys are null. Raises ValueError for an unknown table or column.
    """
    types = column_types(name)
    rows = list(rows)
    refuse_unknown(name, {key for row in rows for key in row}, list(types))
    columns = {
        column: [_typed(row.get(column), kind) for row in rows] for column, kind in types.items()
    }
    schema = pa.schema(
        [(column, _ARROW_TYPES.get(kind, pa.string())) for column, kind in types.items()]
    )
    return pa.table(columns, schema=schema)


def column_types(name: str) -> Mapping[str, str]:
    """Column -> DuckDB type of a catalog table, in order. Raises ValueError if there is none."""
    tables = _all_column_types()
    if name not in tables:
        raise ValueError(f"the catalog has no table `{name}`; it has {', '.join(sorted(tables))}")
    return tables[name]


@cache
def _all_column_types() -> Mapping[str, Mapping[str, str]]:
    """Of every table, asked from duckdb itself so that it cannot be out of date."""
    tables: dict[str, dict[str, str]] = {}
    with connect_in_memory() as connection:
        create_schema(connection)
        query = (
            "SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables()"
            " USING (table_name) ORDER BY table_name, column_index"
        )
        for table, column, kind in connection.execute(query).fetchall():
            tables.setdefault(table, {})[column] = kind
    return tables


def _typed(value: object, kind: str) -> object:
    if kind == "JSON" and value is not None and not isinstance(value, str):
        return canonical_json(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
