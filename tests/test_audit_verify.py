"""verify names what was changed by hand, and says what it cannot vouch for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from storage.audit.verify import ALTERED, MISSING, OK, UNCHECKED, head, verify
from storage.catalog.commit import commit
from storage.files.scores import iter_scores_files
from storage.files.workspace import Workspace, find_workspace, open_workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace
from tests.catalog_run import real_run

BOTH = ("catalog.duckdb", "snapshot.duckdb")
CUT = """
DELETE FROM event WHERE action = 'noted';
DELETE FROM catalog_commit WHERE number = (SELECT max(number) FROM catalog_commit)"""


def change(workspace: Workspace, sql: str, *names: str) -> None:
    for name in names or BOTH:
        with duckdb.connect(str(workspace.root / name)) as connection:
            connection.execute(sql)


def found(workspace: Workspace) -> list[tuple[str, str, str]]:
    return [(each.state, each.name, each.detail) for each in verify(workspace)
            if each.state != OK and each.kind != "sae"]  # fmt: skip


@pytest.fixture
def noted(tmp_path: Path) -> Workspace:
    """A catalog of two commits; the second is an event."""
    workspace = made_workspace(tmp_path)
    shutil.rmtree(workspace.scores, ignore_errors=True)
    event = run_sql(workspace, "FROM event LIMIT 1").to_pylist()[0]
    commit(workspace, {"event": [{**event, "action": "noted", "detail": {}}]})
    return workspace


def catalogs(workspace: Workspace) -> list[tuple[str, str, str]]:
    return [(each.state, each.name, each.detail) for each in verify(workspace)
            if each.kind == "catalog" and each.state != OK]  # fmt: skip


@pytest.mark.parametrize(
    "sql",
    ["CREATE MACRO sha256(x) AS 'same'", "CREATE MACRO duckdb_tables() AS TABLE SELECT 1 AS x"],
)
def test_a_function_that_would_stand_before_duckdbs_is_named(noted: Workspace, sql: str) -> None:
    change(noted, sql)
    assert [(state, name) for state, name, _ in catalogs(noted)] == [
        (ALTERED, "snapshot.duckdb"), (ALTERED, "catalog.duckdb")
    ]  # fmt: skip  # as above
    assert all("it has functions" in detail for *_, detail in catalogs(noted))


def test_a_tail_that_is_cut_in_one_file_is_seen_from_the_other(noted: Workspace) -> None:
    kept = head(noted)
    change(noted, CUT, "catalog.duckdb")
    assert catalogs(noted) == [
        (ALTERED, "catalog.duckdb", "it lacks 1 commit that snapshot.duckdb has")
    ]
    change(noted, CUT, "snapshot.duckdb")
    assert catalogs(noted) == []
    assert [each.name for each in verify(noted, kept) if each.state == ALTERED] == [
        "snapshot.duckdb: commit 2",
        "catalog.duckdb: commit 2",
    ]


def test_commits_that_nobody_can_read_yet_are_said(noted: Workspace) -> None:
    change(noted, CUT, "snapshot.duckdb")
    ((state, name, detail),) = catalogs(noted)
    assert (state, name) == (UNCHECKED, "snapshot.duckdb")
    assert "1 commit of catalog.duckdb" in detail


@pytest.mark.parametrize("name", BOTH)
def test_a_missing_file_is_not_ok_but_a_copied_snapshot_is(noted: Workspace, name: str) -> None:
    (noted.root / name).unlink()
    assert [(state, file) for state, file, _ in catalogs(noted)] == [(MISSING, name)]
    if name == "catalog.duckdb":
        (noted.root / "workspace.json").unlink()
        assert catalogs(find_workspace(noted.root)) == []


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("verify") / "workspace"
    shutil.copytree(real_run().parent / "workspace", root)
    return open_workspace(root)


def add_part(workspace: Workspace) -> Path:
    (part,) = workspace.pools.glob("*/examples-*.parquet")
    return Path(shutil.copy(part, part.with_name("examples-00009.parquet")))


def add_shard(workspace: Workspace) -> Path:
    unit = sorted(workspace.shards.glob("*/*/manifest.json"))[0].parent
    return Path(shutil.copytree(unit, unit.with_name("f" * 24)))


def add_rendering(workspace: Workspace) -> Path:
    (rendering,) = workspace.pools.glob("*/renderings/*")
    return Path(shutil.copytree(rendering, rendering.with_name("f" * 16)))


def add_unit(workspace: Workspace) -> Path:
    (unit,) = workspace.units.glob("*.json")
    return Path(shutil.copy(unit, unit.with_name(f"{'f' * 16}.json")))


def add_scores(workspace: Workspace) -> Path:
    file = next(iter_scores_files(workspace.scores))
    return Path(shutil.copy(file, file.with_name("made-up.parquet")))


def add_temp(workspace: Workspace) -> Path:
    workspace.reports.mkdir(exist_ok=True)
    page = workspace.reports / ".tmp-page.html"
    page.write_text("made up")
    return page


@pytest.mark.parametrize(
    ("add", "state", "words"),
    [
        (add_part, ALTERED, "examples-00009.parquet: nobody recorded it"),
        (add_rendering, UNCHECKED, "1 rendering that no recorded run has used"),
        (add_unit, UNCHECKED, "1 unit that no recorded run has used"),
        (add_shard, UNCHECKED, "1 shard that no recorded run has used"),
        (add_scores, UNCHECKED, "of no recorded selection"),
        (add_temp, UNCHECKED, "a later one removes it"),
    ],
)
def test_files_that_came_beside_recorded_ones_are_named(
    real: Workspace, add: Callable[[Workspace], Path], state: str, words: str
) -> None:
    assert found(real) == []
    n_scores = run_sql(real, "SELECT count(*) FROM scores").rows
    path = add(real)
    try:
        ((other, _, detail),) = found(real)
        assert other == state
        assert words in detail
        assert run_sql(real, "SELECT count(*) FROM scores").rows == n_scores
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_times_of_files_do_not_matter(real: Workspace) -> None:
    for path in real.root.rglob("*"):
        os.utime(path, (1, 1))
    assert found(real) == []
