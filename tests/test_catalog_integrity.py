"""The chain of commits, and what a catalog says of itself."""

import hashlib
import json
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from selection.core.errors import InputError
from storage.catalog import dictionary
from storage.catalog.commit import commit
from storage.catalog.connection import Connection, connect_to_write
from storage.catalog.integrity import append_commit, differences, new_redactions, row_counts
from storage.catalog.schema import KEYS, TEXTS, create_schema
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace, make_tables

ROOT = Path(__file__).resolve().parent.parent


def change(workspace: Workspace, sql: str) -> None:
    """What somebody does by hand who does not want it to be noticed."""
    with duckdb.connect(str(workspace.catalog)) as connection:
        connection.execute(sql)


def problems(workspace: Workspace) -> list[tuple[str, str]]:
    with connect_to_write(workspace.catalog) as connection:
        return [(each.name, each.problem) for each in differences(connection)]


def test_every_commit_is_chained_to_the_one_before(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    commit(workspace, make_tables("second", seed=1))
    previous, pick_rows = "", 0
    rows = run_sql(workspace, "FROM catalog_commit ORDER BY number").rows
    for number, (n, at, process, content, before, sha256) in enumerate(rows, start=1):
        assert (n, before) == (number, previous)
        assert isinstance(at, datetime)
        text = f"{n}|{at.isoformat()}|{process}|{content}|{previous}"
        assert sha256 == hashlib.sha256(text.encode()).hexdigest()
        previous, pick_rows = str(sha256), json.loads(str(content))["tables"]["pick"][0]
        assert pick_rows == 360
    assert len(rows) == 2
    assert problems(workspace) == []


def test_the_hash_of_rows_is_that_of_its_definition(tmp_path: Path) -> None:
    """Plain Python over JSON arrays of the columns, texts as a hash of their own."""
    workspace = made_workspace(tmp_path)
    rows = run_sql(workspace, "SELECT columns(*)::VARCHAR FROM exemplar ORDER BY rowid").rows
    columns = run_sql(workspace, "FROM exemplar LIMIT 0").columns
    texts = list(TEXTS["exemplar"].blank)

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    def array(values: list[object]) -> str:
        return json.dumps(values, separators=(",", ":"), ensure_ascii=False)

    lines = []
    for row in rows:
        text = [value for name, value in zip(columns, row, strict=True) if name in texts]
        rest = [value for name, value in zip(columns, row, strict=True) if name not in texts]
        lines.append(digest(digest(array(text)) + array(rest)))
    ((content,),) = run_sql(workspace, "SELECT content FROM catalog_commit").rows
    recorded = json.loads(str(content))["tables"]["exemplar"]
    assert recorded == [len(lines), digest(digest("".join(lines)))]


FILLED = {"VARCHAR": "'v'", "JSON": "'[1]'", "BIGINT": "7", "INTEGER": "7", "DOUBLE": "0.5",
          "BOOLEAN": "true", "TIMESTAMP": "TIMESTAMP '2026-11-27'"}  # fmt: skip
OTHER = {"VARCHAR": "'w'", "JSON": "'[2]'", "BIGINT": "8", "INTEGER": "8", "DOUBLE": "0.5000000001",
         "BOOLEAN": "false", "TIMESTAMP": "TIMESTAMP '2026-11-27 00:00:01'"}  # fmt: skip


def columns_of(connection: Connection) -> dict[str, dict[str, str]]:
    """Table -> column -> type."""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables()"
        " USING (table_name) ORDER BY table_name, column_index"
    ).fetchall():
        found.setdefault(table, {})[column] = kind
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    """A catalog with one row in every table, all columns filled, committed."""
    file = tmp_path_factory.mktemp("filled") / "catalog.duckdb"
    with connect_to_write(file) as connection:
        create_schema(connection)
    connection = connect_to_write(file)
    connection.begin()
    before = row_counts(connection)
    for name, columns in columns_of(connection).items():
        if name not in ("catalog_commit", "redaction"):
            values = ", ".join(FILLED[kind] for kind in columns.values())
            connection.execute(f'INSERT INTO "{name}" VALUES ({values})')
    append_commit(connection, before, datetime(2026, 11, 27), "a test")
    connection.commit()
    assert list(differences(connection)) == []
    return connection


def names_after(connection: Connection, sql: str) -> set[str]:
    """What differs after a change; it is taken back."""
    connection.begin()
    try:
        connection.execute(sql)
        return {each.name for each in differences(connection)}
    finally:
        connection.rollback()


def test_a_change_of_any_column_is_named(filled: Connection) -> None:
    """The first column of every table at once, then the second of every table, and so on."""
    tables = {name: columns for name, columns in columns_of(filled).items() if name != "redaction"}
    for i in range(max(map(len, tables.values()))):
        changed = {name: list(columns)[i] for name, columns in tables.items() if i < len(columns)}
        sql = "; ".join(
            f'UPDATE "{name}" SET "{column}" = {OTHER[tables[name][column]]}'
            for name, column in changed.items()
        )
        names = names_after(filled, sql)
        if changed.pop("catalog_commit", None):
            assert names & {"commit 1", "commit 8"}, i
        assert changed.keys() <= names, (i, changed.keys() - names)


def test_rows_that_come_or_go_are_named(filled: Connection) -> None:
    tables = set(columns_of(filled)) - {"catalog_commit", "redaction"}
    deleted = "; ".join(f'DELETE FROM "{table}"' for table in tables)
    assert names_after(filled, deleted) >= tables
    keyed = filled.execute(
        "SELECT DISTINCT table_name FROM duckdb_constraints()"
        " WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE')"
    ).fetchall()
    free = tables - {name for (name,) in keyed}
    doubled = "; ".join(f'INSERT INTO "{table}" FROM "{table}"' for table in free)
    assert names_after(filled, doubled) >= free
    assert "pick" in names_after(filled, "DELETE FROM catalog_commit")
    hidden = "INSERT INTO redaction VALUES ('pick', 0, 'x')"
    assert {"pick", "redaction"} <= names_after(filled, hidden)


def test_every_view_and_table_is_defined_as_it_was(filled: Connection) -> None:
    views = filled.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
    ).fetchall()
    assert len(views) > 8
    names = {str(view) for (view,) in views}
    changed = "; ".join(f"CREATE OR REPLACE VIEW {view} AS SELECT 1 AS x" for view in names)
    assert names_after(filled, changed) == names
    assert names_after(filled, "; ".join(f"DROP VIEW {view}" for view in names)) == names
    assert names_after(filled, "CREATE VIEW v_more AS SELECT 1 AS x") == {"v_more"}
    assert names_after(filled, "CREATE TABLE more (x BIGINT)") == {"more"}
    for kind, sql in {
        "index more": "CREATE INDEX more ON event(action)",
        "sequence more": "CREATE SEQUENCE more",
        "type more": "CREATE TYPE more AS ENUM ('a')",
        "other.pick": "CREATE SCHEMA other; CREATE TABLE other.pick AS FROM main.pick",
        "other.v_why": "CREATE SCHEMA other; CREATE VIEW other.v_why AS SELECT 1 AS x",
    }.items():
        assert kind in names_after(filled, sql)
    assert "event" in names_after(filled, "ALTER TABLE event ADD COLUMN more BIGINT")
    assert "event" in names_after(filled, "DROP TABLE event")


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("UPDATE pick SET text = 'other' WHERE rank = 3", "pick"),
        ("UPDATE occurrence SET raw = '{}' WHERE rowid = 4", "occurrence"),
        ("UPDATE latent_description SET description = 'x'", "latent_description"),
        ("DELETE FROM event", "event"),
        ("UPDATE catalog_commit SET previous = 'x'", "commit 1"),
    ],
)
def test_what_is_changed_by_hand_is_named_and_nothing_is_committed_on_top_of_lost_rows(
    tmp_path: Path, sql: str, name: str
) -> None:
    workspace = made_workspace(tmp_path)
    change(workspace, sql)
    assert name in dict(problems(workspace))
    if sql.startswith("DELETE"):
        with pytest.raises(InputError, match="changed by hand"):
            commit(workspace, make_tables("second", seed=1))


def test_redacted_texts_leave_the_chain_as_it_was(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    ids = [str(row[0]) for row in run_sql(workspace, "SELECT example_id FROM pick LIMIT 2").rows]
    commit(workspace, lambda catalog: {"redaction": new_redactions(catalog, ids)})
    (problem, *_) = problems(workspace)
    assert "not removed yet" in problem[1]
    listed = ", ".join(f"'{name}'" for name in ids)
    for table, text in TEXTS.items():
        blank = ", ".join(f'"{column}" = {value}' for column, value in text.blank.items())
        change(workspace, f"UPDATE \"{table}\" SET {blank} WHERE rowid IN (SELECT row_number"
                          f" FROM redaction WHERE table_name = '{table}')")  # fmt: skip
    assert problems(workspace) == []
    change(workspace, f"UPDATE sample SET messages = '[\"x\"]' WHERE example_id IN ({listed})")
    assert dict(problems(workspace)).keys() == {"sample"}


def test_every_table_view_and_column_has_a_comment(filled: Connection) -> None:
    tables = "SELECT table_name, comment FROM duckdb_tables()"
    views = "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
    columns = "SELECT table_name || column_name, comment FROM duckdb_columns() WHERE NOT internal"
    for query in (tables, views, columns):
        assert [name for name, comment in filled.execute(query).fetchall() if not comment] == []


def test_the_page_of_the_catalog_is_that_of_the_schema() -> None:
    file = "docs/reference/catalog.md"
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text == dictionary.page(), f"run: python -m storage.catalog.dictionary {file}"
    assert all(f"    {key.target} ||--o{{ {key.table} : " in text for key in KEYS)


def test_overlaps_are_those_of_sets(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    picks: dict[str, set[str]] = {}
    for selection, example in run_sql(
        workspace, "SELECT selection, example_id FROM v_selection"
    ).rows:
        picks.setdefault(str(selection), set()).add(str(example))
    found = run_sql(workspace, "SELECT selection, other, n_both, overlap FROM v_overlap").rows
    assert len(found) == 6
    for one, two, n_both, overlap in found:
        mine, theirs = picks[str(one)], picks[str(two)]
        assert n_both == len(mine & theirs)
        assert overlap == len(mine & theirs) / len(mine | theirs)
