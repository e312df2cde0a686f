"""The hash chain over decisions, and what a catalog says of itself."""

import hashlib
from pathlib import Path

import duckdb
import pytest

from storage import catalog, schema_page
from storage.chain import altered, last_link
from storage.database import connect_to_write, open_snapshot
from storage.schema import FIRST, KEYS, MIGRATIONS
from storage.sql import run_sql
from storage.workspace import Workspace, open_workspace
from tests.made_catalog import made_workspace, make_tables

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
    catalog.commit(workspace, make_tables("second", seed=1))
    rows = run_sql(workspace, "FROM decision ORDER BY number").rows
    previous = ""
    for number, at, kind, subject, content, before, sha in rows:
        assert before == previous
        text = f"{number}|{str(at).rstrip('0')}|{kind}|{subject}|{content}|{previous}"
        assert sha == hashlib.sha256(text.encode()).hexdigest()
        previous = str(sha)
    assert [row[2] for row in rows] == 2 * ["run", *3 * ["selection"], "event"]
    assert problems(workspace) == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("UPDATE pick SET score = score + 1e-12 WHERE rank = 3", ("selection", "changed")),
        ("UPDATE near_miss SET example_id = 'x' WHERE rank = 130", ("selection", "changed")),
        ("UPDATE why SET contribution = 1 WHERE latent = 101", ("selection", "changed")),
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
    tables, columns = schema_page.described()
    assert [table.name for table in tables if not table.comment] == []
    assert [(column.table, column.name) for column in columns if not column.comment] == []


def test_the_picture_and_the_dictionary_are_those_of_the_migrations() -> None:
    said = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
    assert said == schema_page.page(), "run: python -m storage.schema_page docs/catalog.md"
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
