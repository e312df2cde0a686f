import os
from pathlib import Path

import pytest

from selection.core.errors import InputError
from storage.files import atomic
from storage.files.workspace import Workspace, find_workspace, open_workspace, resolve


def finished(workspace: Workspace, kind: str, name: str, at: int) -> Path:
    folder = workspace.root / kind / name
    atomic.write_json(folder / atomic.MANIFEST, {"name": name})
    os.utime(folder / atomic.MANIFEST, (at, at))
    return folder


def test_a_new_workspace_is_marked_with_its_format(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "a" / "b")
    assert atomic.read_json(workspace.root / "workspace.json") == {"format": 1}
    again = (open_workspace(workspace.root), find_workspace(workspace.root))
    assert [each.root for each in again] == [workspace.root] * 2
    assert [entry.name for entry in workspace.root.iterdir()] == ["workspace.json"]


def test_the_environment_names_the_workspace_and_the_option_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAELECT_WORKSPACE", raising=False)
    assert open_workspace().root == Path("workspace")
    monkeypatch.setenv("SAELECT_WORKSPACE", str(tmp_path / "from-environment"))
    assert open_workspace().root == tmp_path / "from-environment"
    assert open_workspace(tmp_path / "option").root == tmp_path / "option"


@pytest.mark.parametrize("opened", [open_workspace, find_workspace])
def test_a_workspace_of_a_newer_version_is_refused(tmp_path: Path, opened: object) -> None:
    atomic.write_json(tmp_path / "workspace.json", {"format": 2})
    with pytest.raises(InputError, match=r"newer saelect .*found: 2.*Update saelect") as caught:
        opened(tmp_path)  # type: ignore[operator]
    assert "workspace.json" in str(caught.value)


@pytest.mark.parametrize("value", ["1", None, 0, True])
def test_a_damaged_format_mark_is_refused(tmp_path: Path, value: object) -> None:
    atomic.write_json(tmp_path / "workspace.json", {"format": value})
    with pytest.raises(InputError, match="expected a whole number"):
        open_workspace(tmp_path)


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_workspace_that_cannot_be_written_is_refused(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write into the workspace .*--workspace DIR"):
        open_workspace(tmp_path / "file" / inside)


def test_a_read_only_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        open_workspace(tmp_path)


def test_reading_makes_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no saelect workspace is here.*saelect demo"):
        find_workspace(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_lone_snapshot_is_enough_to_read(tmp_path: Path) -> None:
    (tmp_path / "snapshot.duckdb").touch()
    assert find_workspace(tmp_path).snapshot == tmp_path / "snapshot.duckdb"


def test_things_are_found_by_id_prefix_or_latest(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    old = finished(workspace, "pools", "ab12", at=100)
    new = finished(workspace, "pools", "ab34", at=200)
    exact = finished(workspace, "pools", "ab", at=50)
    (workspace.pools / "abhalf").mkdir()
    finished(workspace, "pools", f"{atomic.TEMP_PREFIX}1-x", at=300)
    assert resolve(workspace, "pools", "latest") == new
    assert resolve(workspace, "pools", "ab1") == old
    assert resolve(workspace, "pools", "ab") == exact
    with pytest.raises(InputError, match=r"several things begin with this.*ab, ab12, ab34"):
        resolve(workspace, "pools", "a")
    with pytest.raises(InputError, match=r"not found among pools.*'zz'.*ab, ab12, ab34"):
        resolve(workspace, "pools", "zz")
    with pytest.raises(InputError, match="none yet"):
        resolve(workspace, "saes", "latest")


def test_stored_paths_are_relative_inside_the_workspace_only(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "w")
    assert workspace.relative(workspace.exports / "x" / "train.jsonl") == "exports/x/train.jsonl"
    assert workspace.relative(tmp_path / "out") == str((tmp_path / "out").resolve())
