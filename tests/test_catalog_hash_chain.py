"""The hash chain over decisions, and what a catalog says of itself."""

import hashlib
import shutil
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from storage.catalog import commit, dictionary
from storage.catalog.connection import (
    Connection,
    connect_in_memory,
    connect_to_write,
    open_snapshot,
)
from storage.catalog.hash_chain import NOT_COVERED, VERSION, altered, append_decisions, last_link
from storage.catalog.schema import FIRST, KEYS, MIGRATIONS, TEXT_COLUMNS
from storage.catalog.sql import run_sql
from storage.files.workspace import Workspace, open_workspace
from tests.catalog_fixture import made_workspace, make_tables

BROKEN, NEVER = "the chain is broken here", "never decided"
ROOT = Path(__file__).resolve().parent.parent


def change(workspace: Workspace, sql: str) -> None:
    """What somebody does by hand who does not want it to be noticed."""
    with duckdb.connect(str(workspace.catalog)) as connection:
        connection.execute(sql)


def problems(workspace: Workspace) -> list[tuple[str, str]]:
    with connect_to_write(workspace.catalog) as connection:
        return [(found.kind, found.problem) for found in altered(connection)]


def test_every_decision_is_chained_to_the_one_before(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    commit.commit(workspace, make_tables("second", seed=1))
    rows = run_sql(workspace, "FROM decision ORDER BY number").rows
    previous = ""
    for number, at, kind, subject, content, before, sha, version in rows:
        assert (before, version) == (previous, VERSION)
        text = f"{number}|{str(at).rstrip('0')}|{kind}|{subject}|{content}|{previous}|{version}"
        assert sha == hashlib.sha256(text.encode()).hexdigest()
        previous = str(sha)
    assert [row[2] for row in rows] == 2 * ["run", *3 * ["selection"], "event"]
    assert problems(workspace) == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("UPDATE pick SET score = score + 1e-12 WHERE rank = 3", ("selection", "changed")),
        ("UPDATE near_miss SET example_id = 'x' WHERE rank = 130", ("selection", "changed")),
        ("UPDATE why SET contribution = 1 WHERE latent = 28", ("selection", "changed")),
        ("UPDATE run SET who = 'nobody'", ("run", "changed")),
        ("UPDATE run SET data_licences = '{}'", ("run", "changed")),
        ("DELETE FROM event", ("event", "deleted")),
        ("UPDATE decision SET previous = 'x' WHERE number = 2", ("selection", BROKEN)),
        ("DELETE FROM decision WHERE number = 2", ("selection", BROKEN)),
        ("INSERT INTO run (run_id, name, created_at) VALUES ('r', 'n', now())", ("run", NEVER)),
    ],
)  # fmt: skip
def test_what_is_changed_by_hand_is_found(tmp_path: Path, sql: str, found: tuple[str, str]) -> None:
    workspace = made_workspace(tmp_path)
    change(workspace, sql)
    assert found in problems(workspace)


FILLED = {"VARCHAR": "'v'", "JSON": "'[1]'", "BIGINT": "7", "INTEGER": "7", "DOUBLE": "0.5",
          "BOOLEAN": "true", "TIMESTAMP": "TIMESTAMP '2026-11-27'"}  # fmt: skip
OTHER = {"VARCHAR": "'w'", "JSON": "'[2]'", "BIGINT": "8", "INTEGER": "8", "DOUBLE": "0.5000000001",
         "BOOLEAN": "false", "TIMESTAMP": "TIMESTAMP '2026-11-27 00:00:01'"}  # fmt: skip
CHAIN = "decision"


@pytest.fixture(scope="module")
def filled() -> Connection:
    """A catalog with one row in every table, all columns filled, and everything decided."""
    connection = connect_in_memory()
    for migration in MIGRATIONS.values():
        connection.execute(migration)
    for name, columns in columns_of(connection).items():
        if name != CHAIN:
            values = ", ".join(FILLED[kind] for kind in columns.values())
            connection.execute(f'INSERT INTO "{name}" VALUES ({values})')
    append_decisions(connection, datetime(2026, 11, 27))
    assert altered(connection) == []
    return connection


def columns_of(connection: Connection) -> dict[str, dict[str, str]]:
    """Table -> column -> type, of everything that the migrations make."""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables()"
        " USING (table_name) ORDER BY table_name, column_index"
    ).fetchall():
        found.setdefault(table, {})[column] = kind
    return found


def is_noticed(connection: Connection, sql: str) -> bool:
    """Whether a change shows in the chain; it is taken back."""
    connection.begin()
    try:
        connection.execute(sql)
        return altered(connection) != []
    finally:
        connection.rollback()


def test_every_column_is_in_the_chain_or_left_out_for_a_reason(filled: Connection) -> None:
    """A migration that adds a column has to decide: v_content, or NOT_COVERED."""
    seen = set()
    for table, columns in columns_of(filled).items():
        seen.update([table, *(f"{table}.{column}" for column in columns)])
        one = " WHERE number = 1" if table == CHAIN else ""  # the others hold one row
        for column, kind in columns.items():
            sql = f'UPDATE "{table}" SET "{column}" = {OTHER[kind]}{one}'
            left_out = table in NOT_COVERED or f"{table}.{column}" in NOT_COVERED
            assert is_noticed(filled, sql) != left_out, f"{table}.{column}"
    assert set(NOT_COVERED) <= seen
    texts = {f"{t.table}.{t.column}" for t in TEXT_COLUMNS if t.table not in NOT_COVERED}
    assert texts <= NOT_COVERED.keys()  # else forgetting a sample would break the chain


def test_rows_that_come_or_go_are_noticed(filled: Connection) -> None:
    for table in columns_of(filled):
        if table in NOT_COVERED:
            continue
        if table != CHAIN:
            assert is_noticed(filled, f'DELETE FROM "{table}"'), table
        keyed = filled.execute(
            "SELECT 1 FROM duckdb_constraints() WHERE table_name = ?"
            " AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')",
            [table],
        ).fetchall()
        if not keyed and table != "event":  # an event that is there twice says nothing new
            assert is_noticed(filled, f'INSERT INTO "{table}" FROM "{table}"'), table


def test_a_link_cannot_be_passed_off_as_one_of_an_older_definition(filled: Connection) -> None:
    assert is_noticed(filled, "UPDATE decision SET version = NULL WHERE kind = 'run'")


OLD_CHAIN = """
INSERT INTO decision (number, "at", kind, subject, content_sha256, previous, sha256)
SELECT $1, $2::TIMESTAMP, kind, subject, content_sha256, $3::VARCHAR,
    sha256(concat_ws('|', $1, $2::TIMESTAMP, kind, subject, content_sha256, $3::VARCHAR))
FROM v_content WHERE kind = $4 AND subject = $5 RETURNING sha256"""
BEFORE_VERSIONS = [name for name in MIGRATIONS if name < "006"]


def old_catalog(path: Path) -> None:
    """A catalog as it was written before decisions had versions."""
    with connect_to_write(path) as connection:
        connection.execute("CREATE TABLE migration (number INTEGER PRIMARY KEY, name VARCHAR)")
        for number, name in enumerate(BEFORE_VERSIONS):
            connection.execute(MIGRATIONS[name])
            connection.execute("INSERT INTO migration VALUES (?, ?)", [number, name])
        known = columns_of(connection)
        made = {name: rows for name, rows in make_tables(n_selected=5).items() if name in known}
        for name, rows in made.items():
            connection.register("new_rows", rows.select([c for c in rows.column_names
                                                         if c in known[name]]))  # fmt: skip
            connection.execute(f'INSERT INTO "{name}" BY NAME FROM new_rows')
        subjects = connection.execute("SELECT kind, subject FROM v_content ORDER BY 1").fetchall()
        previous = ""
        for number, (kind, subject) in enumerate(subjects, 1):
            link = [number, datetime(2026, 11, 20), previous, kind, subject]
            ((previous,),) = connection.execute(OLD_CHAIN, link).fetchall()
        connection.execute("INSERT INTO catalog_commit VALUES (1, now(), 'old')")


def test_an_older_chain_stays_verifiable_and_is_gone_on_with(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    old_catalog(workspace.catalog)
    commit.commit(workspace, make_tables("second", seed=1))
    assert problems(workspace) == []
    versions = run_sql(workspace, "SELECT version, count(*) FROM decision GROUP BY 1 ORDER BY 1")
    assert set(versions.rows) == {(None, 5), (VERSION, 5)}
    for sql, found in (
        ("UPDATE pick SET score = score + 1e-12 WHERE rank = 3", ("selection", "changed")),
        ("UPDATE run SET who = 'nobody'", ("run", "changed")),
        ("DELETE FROM event WHERE run_id IN (SELECT run_id FROM run WHERE name = 'calm-otter')",
         ("event", "deleted")),
        ("UPDATE decision SET version = 2 WHERE kind = 'run' AND number < 6", ("run", "changed")),
    ):  # fmt: skip
        shutil.copy(workspace.catalog, tmp_path / "kept")
        change(workspace, sql)
        assert found in problems(workspace), sql
        shutil.copy(tmp_path / "kept", workspace.catalog)


def test_the_head_does_not_depend_on_texts(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    with open_snapshot(workspace) as connection:
        head = last_link(connection)
    change(workspace, "UPDATE sample SET messages = '[]'")
    change(workspace, "UPDATE pick SET text = NULL")
    change(workspace, "UPDATE occurrence SET raw = NULL")
    assert problems(workspace) == []
    assert head[0] == 5


def test_a_snapshot_of_an_older_version_is_read_as_if_it_were_of_today(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    with duckdb.connect(str(workspace.snapshot)) as connection:
        connection.execute("CREATE TABLE migration (number INTEGER PRIMARY KEY)")
        connection.execute(MIGRATIONS[FIRST])
        connection.execute("INSERT INTO migration VALUES (0)")
        connection.execute("INSERT INTO run (run_id, name, created_at) VALUES ('r', 'old', now())")
    before = workspace.snapshot.read_bytes()
    found = run_sql(workspace, "SELECT name, data_licences FROM run")
    assert list(found.rows) == [("old", None)]
    assert workspace.snapshot.read_bytes() == before


def test_every_table_view_and_column_has_a_comment(tmp_path: Path) -> None:
    tables, columns = dictionary.described()
    assert [table.name for table in tables if not table.comment] == []
    assert [(column.table, column.name) for column in columns if not column.comment] == []


def test_the_picture_and_the_dictionary_are_those_of_the_migrations() -> None:
    said = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
    assert said == dictionary.page(), "run: python -m storage.catalog.dictionary docs/commit.md"
    assert all(f"    {key.target} ||--o{{ {key.table} : " in said for key in KEYS)


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
