"""The catalog described from its own comments: a picture of its keys, and every column in words.

`python -m storage.catalog.dictionary docs/reference/catalog.md` writes the page; a bundle carries
it.
"""

import sys
from pathlib import Path

from storage.catalog.connection import connect_in_memory
from storage.catalog.schema import KEYS, create_schema

_HEAD = """\
# The catalog

Made by `python -m storage.catalog.dictionary docs/reference/catalog.md` from the comments in the
catalog; `SELECT * FROM duckdb_columns()` shows the same comments in any DuckDB client.

**Which DuckDB opens it.** DuckDB 1.2 and later: the file is in the storage version of 1.2.
All views and all queries of [questions.md](questions.md) give equal answers in 1.2, 1.5 and 2.0
(`python -m benchmarks.catalog_clients`). Whoever has none reads the Parquet of
`saelect bundle SELECTION`, which any Parquet reader opens.

Open `snapshot.duckdb`, the published copy, read-only. `catalog.duckdb` belongs to the writer: a
client that has it open stops the next run, and the other way round.

Rows are added, never changed: what happens later is an `event` or a row of its own. The exception
is `saelect forget`, which takes texts out and leaves a row in `forgotten` and the old hash of the
text in `redaction`. `catalog_commit` is a chain of hashes over all rows of all tables:
`saelect verify` makes it again and names every table, view and file that was changed by hand.
Whoever can write the file can also write a new chain. So the head of the chain stands in the
manifest of every export, and `saelect verify --head` prints it, to be kept elsewhere: `--expect`
tells later whether the history is still the same.
"""

_TABLES = """
SELECT table_name, false, comment FROM duckdb_tables() UNION ALL
SELECT view_name, true, comment FROM duckdb_views() WHERE NOT internal ORDER BY 2, 1"""
_COLUMNS = """
SELECT table_name, column_name, data_type, comment FROM duckdb_columns()
WHERE NOT internal ORDER BY table_name, column_index"""


def page() -> str:
    """The whole page as Markdown."""
    return f"{_HEAD}\n## Keys\n\n{_picture()}\n{dictionary()}"


def dictionary() -> str:
    """Every table and view with its columns, types and comments, as Markdown."""
    with connect_in_memory() as connection:
        create_schema(connection)
        tables = connection.execute(_TABLES).fetchall()
        columns = connection.execute(_COLUMNS).fetchall()
    parts = ["## Tables\n"]
    for name, is_view, comment in tables:
        if is_view and "## Views\n" not in parts:
            parts.append("## Views\n")
        parts.append(f"### {name}\n\n{comment}\n\n| column | type | what |\n|---|---|---|")
        parts += [
            f"| `{column}` | {kind} | {what} |"
            for table, column, kind, what in columns
            if table == name
        ]
        parts.append("")
    return "\n".join(parts)


def _picture() -> str:
    """The references between tables, as a diagram that Markdown viewers draw."""
    keys = [f'    {key.target} ||--o{{ {key.table} : "{key.column}"' for key in KEYS]
    return "\n".join(["```mermaid", "erDiagram", *keys, "```", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
