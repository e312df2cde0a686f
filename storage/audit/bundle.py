"""`saelect bundle`: one folder that answers for a selection, readable without saelect anywhere."""

import shutil
from pathlib import Path

from selection.core.errors import InputError
from storage.catalog.connection import Connection, connect_to_write
from storage.catalog.dictionary import dictionary
from storage.catalog.lookup import find_selection
from storage.catalog.schema import MIGRATIONS, TEXT_COLUMNS
from storage.files.atomic import (
    MANIFEST,
    full_disk_explained,
    publish_folder,
    temp_path,
    write_json,
)
from storage.files.workspace import Workspace, file_name

_README = """\
# Selection {name}

What was chosen, from what, by which model, and why: everything that saelect's catalog knows about
the run `{run}`, of which this selection (`{selection_id}`) is part. Nothing here needs saelect.

| file | what |
|---|---|
| `catalog.duckdb` | tables and views; opens with **DuckDB 2.0 or later**, with no 1.x |
| `parquet/*.parquet` | the same tables, one file each, for everything else |
| `parquet/v_*.parquet` | the views, as they stood |
| `DICTIONARY.md` | every table, view and column in words |

Texts of samples are {texts}.

```sql
-- duckdb -readonly catalog.duckdb
SELECT rank, score, source, licence, tokens FROM v_selection
WHERE selection_id = '{selection_id}' ORDER BY rank LIMIT 20;
SELECT * FROM v_why WHERE selection_id = '{selection_id}' LIMIT 20;
SELECT * FROM v_lineage WHERE selection_id = '{selection_id}';
```

Scores are generalized Jaccard similarities in [0, 1]; contributions are integers that add up to the
numerator of a similarity. Descriptions of latents are hints. The chain in `decision` belongs to the
whole catalog; this folder holds the links of one run.
"""

_VIEWS = ("v_selection", "v_why", "v_source_mix", "v_drops", "v_lineage", "v_overlap")


def write_bundle(
    workspace: Workspace, selection: str, out: Path | None = None, *, with_text: bool = True
) -> Path:
    """Write the bundle of a selection's whole run; returns its folder.

    selection: name, id, prefix or `latest`.
    out:       a folder that does not exist yet; default `bundles/<selection>` of the workspace.
    with_text: False leaves out messages, texts and raw rows.
    Raises InputError for an unknown selection, a folder that is in the way, and a full disk.
    """
    found = find_selection(workspace, selection)
    folder = out or workspace.root / "bundles" / file_name(found.name)
    if folder.exists():
        raise InputError(
            "there is something here already", file=folder, remedy="Name a new folder with --out."
        )
    temp = temp_path(folder)
    with full_disk_explained(folder):
        try:
            (temp / "parquet").mkdir(parents=True)
            with connect_to_write(temp / "catalog.duckdb") as connection:
                _fill(connection, workspace.snapshot, found.run_id, with_text=with_text)
                _write_parquet(connection, temp / "parquet")
                connection.execute("CHECKPOINT")
            text = _README.format(
                name=found.name,
                run=found.run,
                selection_id=found.selection_id,
                texts="here as they were read" if with_text else "left out",
            )
            (temp / "README.md").write_text(text, encoding="utf-8")
            (temp / "DICTIONARY.md").write_text(f"# Data dictionary\n\n{dictionary()}", "utf-8")
            facts = {"selection_id": found.selection_id, "run_id": found.run_id}
            write_json(temp / MANIFEST, {**facts, "with_text": with_text})
            publish_folder(temp, folder)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
    return folder


def _fill(connection: Connection, snapshot: Path, run_id: str, *, with_text: bool) -> None:
    """The rows of one run, table by table; what belongs to no run is kept where it is used."""
    connection.execute("CREATE TABLE migration (number INTEGER PRIMARY KEY, name VARCHAR)")
    for migration in MIGRATIONS.values():
        connection.execute(migration)
    quoted = str(snapshot).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS old (READ_ONLY)")
    columns: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'old'"
        " AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'old')"
    ).fetchall():
        columns.setdefault(table, set()).add(column)
    for table in sorted(columns):
        where, n_values = _rows_of_run(table, columns[table])
        gone = [f'NULL AS "{t.column}"' if t.value == "NULL" else f'{t.value} AS "{t.column}"'
                for t in TEXT_COLUMNS if t.table == table and not with_text]  # fmt: skip
        what = f"* REPLACE ({', '.join(gone)})" if gone else "*"
        query = f'INSERT INTO "{table}" BY NAME SELECT {what} FROM old."{table}" x {where}'
        connection.execute(query, [run_id] * n_values)
    connection.execute("DETACH old")


def _rows_of_run(table: str, columns: set[str]) -> tuple[str, int]:
    """(WHERE clause, number of its parameters) that keeps one run's rows of a table."""
    selections = "(SELECT selection_id FROM old.selection WHERE run_id = ?)"
    if table == "decision":
        return (
            "WHERE subject = ? OR subject IN " + selections + " OR subject IN (SELECT export_id"
            " FROM old.export WHERE selection_id IN " + selections + ")",
            3,
        )
    if "run_id" in columns:
        return "WHERE run_id = ?", 1
    if "selection_id" in columns:
        return f"WHERE selection_id IN {selections}", 1
    if table in ("sample", "forgotten"):
        return "WHERE example_id IN (SELECT example_id FROM old.occurrence WHERE run_id = ?)", 1
    if "sae" in columns:
        return "WHERE sae IN (SELECT sae_sha256 FROM old.run WHERE run_id = ?)", 1
    return "", 0


def _write_parquet(connection: Connection, folder: Path) -> None:
    names = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal"
        " AND table_name NOT IN ('migration', 'catalog_commit') ORDER BY 1"
    ).fetchall()
    for name in [*(row[0] for row in names), *_VIEWS]:
        path = str(folder / f"{name}.parquet").replace("'", "''")
        connection.execute(f"COPY (FROM \"{name}\") TO '{path}' (FORMAT parquet)")
