"""No decision is lost: either file of the catalog is made again from the other."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from selection.core.errors import InputError
from storage.audit.forget import meant
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.catalog.snapshot import open_snapshot, open_to_read
from storage.files.workspace import Workspace
from storage.queries.lookup import free_run_name
from tests.catalog_fixture import made_workspace, make_tables

NOTHING = {"event": to_arrow("event", [])}


def runs(workspace: Workspace) -> list[str]:
    with open_snapshot(workspace) as connection:
        rows = connection.execute("SELECT name FROM run ORDER BY name").fetchall()
    return [name for (name,) in rows]


def test_clients_of_duckdb_1_2_can_open_both_files_whatever_wrote_last(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    for _ in range(2):
        commit(workspace, NOTHING)
        for path in (workspace.catalog, workspace.snapshot):
            with open_to_read(path) as connection:
                rows = connection.execute(
                    "SELECT tags['storage_version'] FROM duckdb_databases()"
                    " WHERE database_name = 'snapshot'"
                ).fetchall()
            assert rows == [("v1.2.0+",)]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, truncate, lambda p: p.write_bytes(bytes(9000)), lambda p: p.write_bytes(b"")],
    ids=["missing", "truncated", "zeroed", "empty"],
)
def test_a_missing_or_damaged_catalog_is_restored_from_the_snapshot(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    workspace = made_workspace(tmp_path)
    damage(workspace.catalog)
    commit(workspace, NOTHING)
    assert runs(workspace) == ["calm-otter"]


def test_an_older_catalog_never_replaces_a_newer_snapshot(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    shutil.copy(workspace.catalog, tmp_path / "backup")
    commit(workspace, make_tables("second", seed=1))
    shutil.copy(tmp_path / "backup", workspace.catalog)
    commit(workspace, NOTHING)
    assert runs(workspace) == ["calm-otter", "second"]


def test_files_with_different_histories_are_refused(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    for file in (workspace.catalog, workspace.snapshot):
        shutil.copy(file, tmp_path / f"old-{file.name}")
    commit(workspace, make_tables("second", seed=1))
    shutil.copy(workspace.snapshot, tmp_path / "other")
    for file in (workspace.catalog, workspace.snapshot):
        shutil.copy(tmp_path / f"old-{file.name}", file)
    commit(workspace, make_tables("third", seed=2))
    shutil.copy(tmp_path / "other", workspace.snapshot)
    with pytest.raises(InputError, match="do not go together: 1 commits"):
        commit(workspace, NOTHING)
    assert runs(workspace) == ["calm-otter", "second"]


def test_the_catalog_is_read_where_only_the_snapshot_is_missing(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    with open_snapshot(workspace) as connection:
        (exemplar,) = connection.execute("SELECT exemplar_id FROM exemplar LIMIT 1").fetchall()[0]
    workspace.snapshot.unlink()
    assert runs(workspace) == ["calm-otter"]
    assert free_run_name(workspace, "calm-otter") == "calm-otter-2"
    assert meant(workspace, [exemplar], None) == [exemplar]
    commit(workspace, NOTHING)
    assert workspace.snapshot.exists()
