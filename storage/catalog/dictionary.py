"""The catalog described from its own comments: a picture of its keys, and every column in words.

`python -m storage.catalog.dictionary docs/catalog.md` writes the page; a bundle carries it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.catalog.connection import connect_in_memory
from storage.catalog.schema import KEYS, MIGRATIONS

_HEAD = """\
# The catalog

Made by `python -m storage.catalog.dictionary docs/catalog.md` from the comments in the catalog;
`SELECT * FROM duckdb_columns()` shows the same comments in any DuckDB client.

**Which DuckDB opens it.** The file is written by DuckDB 2.0, in its storage version 69. DuckDB 2.0
and later open it; **no DuckDB 1.x can** (it says so and stops). Whoever has an older one, or none,
reads the Parquet of `saelect bundle SELECTION`, which any Parquet reader opens.

Open `snapshot.duckdb`, the published copy, read-only. `catalog.duckdb` belongs to the writer: a
client that has it open stops the next run, and the other way round.

Rows are added, never changed: what happens later is an `event` or a row of its own. The exception
is `saelect forget`, which takes texts out and leaves a row in `forgotten`. `decision` chains a hash
over every run, selection, export and event; `SELECT * FROM v_altered` rechecks it with DuckDB alone
and is empty where nothing was changed by hand. It shows tampering by whoever does not rewrite the
whole chain; the head of the chain stands in the manifest of every export, so a rewritten chain is
seen by whoever kept an export.
"""


@dataclass(frozen=True, slots=True)
class TableComment:
    """A table or view of the catalog."""

    name: str
    is_view: bool
    comment: str | None


@dataclass(frozen=True, slots=True)
class ColumnComment:
    """A column, in the order in which the table has it. type: of DuckDB."""

    table: str
    name: str
    type: str
    comment: str | None


def described() -> tuple[Sequence[TableComment], Sequence[ColumnComment]]:
    """Tables, then views, by name; and all their columns."""
    with connect_in_memory() as connection:
        for migration in MIGRATIONS.values():
            connection.execute(migration)
        tables = connection.execute(
            "SELECT table_name, false, comment FROM duckdb_tables() UNION ALL"
            " SELECT view_name, true, comment FROM duckdb_views() WHERE NOT internal ORDER BY 2, 1"
        ).fetchall()
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, comment FROM duckdb_columns()"
            " WHERE NOT internal ORDER BY table_name, column_index"
        ).fetchall()
    return [TableComment(*row) for row in tables], [ColumnComment(*row) for row in columns]


def page() -> str:
    """The whole page as Markdown."""
    return f"{_HEAD}\n## Keys\n\n{_picture()}\n{dictionary()}"


def dictionary() -> str:
    """Every table and view with its columns, types and comments, as Markdown."""
    tables, columns = described()
    parts = []
    for is_view, title in ((False, "Tables"), (True, "Views")):
        parts.append(f"## {title}\n")
        for table in tables:
            if table.is_view != is_view:
                continue
            parts.append(f"### {table.name}\n\n{table.comment or ''}\n")
            parts.append("| column | type | what |\n|---|---|---|")
            parts += [
                f"| `{column.name}` | {column.type} | {column.comment or ''} |"
                for column in columns
                if column.table == table.name
            ]
            parts.append("")
    return "\n".join(parts)


def _picture() -> str:
    """The references between tables, as a diagram that Markdown viewers draw."""
    lines = ["```mermaid", "erDiagram"]
    for key in KEYS:
        columns = ", ".join(mine for mine, _ in key.columns)
        lines.append(f'    {key.target} ||--o{{ {key.table} : "{columns}"')
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
