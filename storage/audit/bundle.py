"""`saelect bundle`: one folder that answers for a selection, readable without saelect anywhere."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from storage.catalog.commit import commit_if_writable
from storage.catalog.connection import (
    Connection,
    attach_read_only,
    connect_to_write,
    faults_explained,
    quoted,
)
from storage.catalog.dictionary import dictionary
from storage.catalog.recorded import BUNDLE, file_row, files_in
from storage.catalog.schema import TEXTS, create_schema
from storage.files.atomic import (
    MANIFEST,
    full_disk_explained,
    publish_folder,
    temp_path,
    write_json,
)
from storage.files.in_use import in_use
from storage.files.workspace import Workspace, file_name, refuse_link
from storage.queries.lookup import find_selection

_README = """\
# Selection {name}

What was chosen, from what, by which model, and why: everything that saelect's catalog knows about
the run `{run}`, of which this selection (`{selection_id}`) is part. Nothing here needs saelect.

| file | what |
|---|---|
| `catalog.duckdb` | tables and views; opens with DuckDB 1.2 or later |
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
numerator of a similarity. Descriptions of latents are hints. `catalog_commit` is the
chain of the whole catalog, of which this folder holds the rows of one run.
"""

_VIEWS = (
    "v_selection",
    "v_budgets",
    "v_why",
    "v_source_mix",
    "v_drops",
    "v_lineage",
    "v_overlap",
    "v_outcome",
)


def write_bundle(
    workspace: Workspace, selection: str, out: Path | None = None, *, with_text: bool = True
) -> Path:
    """Write the bundle of a selection's whole run; returns its folder.

    selection: name, id, prefix or `latest`.
    out:       a folder that does not exist yet; default `bundles/<selection>` of the workspace.
    with_text: False leaves out messages, texts and raw rows.
    Raises InputError for an unknown selection, a folder that is in the way, and a full disk.
    """
    with in_use(workspace):
        return _write_bundle(workspace, selection, out, with_text)


def _write_bundle(workspace: Workspace, selection: str, out: Path | None, with_text: bool) -> Path:
    chosen = find_selection(workspace, selection)
    folder = out or workspace.bundles / file_name(chosen.name)
    if out is None:
        refuse_link(workspace, folder)
    if folder.exists():
        raise InputError(
            "the output folder exists already", file=folder, remedy="Name a new folder with --out."
        )
    temp = temp_path(folder)
    with full_disk_explained(folder), faults_explained(folder):
        try:
            (temp / "parquet").mkdir(parents=True)
            with connect_to_write(temp / "catalog.duckdb") as connection:
                _fill(connection, workspace.snapshot, chosen.run_id, with_text=with_text)
                _write_parquet(connection, temp / "parquet")
                connection.execute("CHECKPOINT")
            text = _README.format(
                name=chosen.name,
                run=chosen.run,
                selection_id=chosen.selection_id,
                texts="here as they were read" if with_text else "left out",
            )
            (temp / "README.md").write_text(text, encoding="utf-8")
            (temp / "DICTIONARY.md").write_text(f"# Data dictionary\n\n{dictionary()}", "utf-8")
            facts = {"selection_id": chosen.selection_id, "run_id": chosen.run_id}
            hashes = {p.relative_to(temp).as_posix(): file_sha256(p) for p in files_in([temp])}
            write_json(temp / MANIFEST, {**facts, "with_text": with_text, "sha256": hashes})
            # Before it gets its name: no copy of a text of which the catalog does not know.
            _record(workspace, temp, folder, {**facts, "action": "bundled"}, with_text)
            publish_folder(temp, folder)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
    return folder


def _record(
    workspace: Workspace, temp: Path, folder: Path, event: Mapping[str, str], with_text: bool
) -> None:
    at = datetime.now(UTC)
    detail = {"folder": workspace.relative(folder), "with_text": with_text}
    files = [
        file_row(workspace, BUNDLE, folder / path.relative_to(temp), at, path)
        for path in files_in([temp])
    ]
    rows = {"event": [{"at": at, **event, "detail": detail}], "recorded_file": files}
    commit_if_writable(workspace, rows)


def _fill(connection: Connection, snapshot: Path, run_id: str, *, with_text: bool) -> None:
    """The rows of one run, table by table; what belongs to no run is kept where it is used."""
    create_schema(connection)
    attach_read_only(connection, snapshot, "old")
    rows = connection.execute(
        "SELECT table_name, list(column_name) FROM duckdb_columns() JOIN duckdb_tables()"
        " USING (database_name, table_name) WHERE database_name = 'old'"
        f" AND table_name <> '{_NOT_BUNDLED}' GROUP BY ALL ORDER BY 1"
    ).fetchall()
    for table, columns in rows:
        blank = TEXTS[table].blank if table in TEXTS and not with_text else {}
        replaced = ", ".join(f'{value} AS "{name}"' for name, value in blank.items())
        what = f"* REPLACE ({replaced})" if blank else "*"
        query = f'INSERT INTO "{table}" BY NAME SELECT {what} FROM old."{table}" x'
        where = _rows_of_run(table, columns)
        connection.execute(f"{query} {where}", [run_id] if where else [])
    connection.execute("DETACH old")


_NOT_BUNDLED = "redaction"  # its row numbers are those of the whole catalog


def _rows_of_run(table: str, columns: Sequence[str]) -> str:
    """WHERE clause that keeps one run's rows of a table; empty for a table of the whole catalog."""
    if "run_id" in columns:
        return "WHERE run_id = ?"
    if "selection_id" in columns:
        return "WHERE selection_id IN (SELECT selection_id FROM old.selection WHERE run_id = ?)"
    if table in ("sample", "forgotten"):
        return "WHERE example_id IN (SELECT example_id FROM old.occurrence WHERE run_id = ?)"
    if "sae" in columns and table == "latent_description":
        return "WHERE sae IN (SELECT sae_sha256 FROM old.run WHERE run_id = ?)"
    return ""


def _write_parquet(connection: Connection, folder: Path) -> None:
    names = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    for name in [*(row[0] for row in names), *_VIEWS]:
        path = quoted(str(folder / f"{name}.parquet"))
        connection.execute(f'COPY (FROM "{name}") TO {path} (FORMAT parquet)')
