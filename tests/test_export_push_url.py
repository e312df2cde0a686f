"""Exports at addresses of fsspec: the manifest last, half an upload marked, secrets left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from storage.catalog.snapshot import open_snapshot
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection, picks, where_used
from tests.catalog_fixture import made_workspace

SECRET = "hunter2secret"
URL = f"memory://me:{SECRET}@bucket/picks"
SHOWN = "memory://***@bucket/picks"
ALLOWED = ("--allow-licence", "not named")


@pytest.fixture
def store() -> Iterator[Any]:
    """The file system in memory, empty."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = made_workspace(tmp_path / "w", n_selected=30, n_near=5)
    export_selection(workspace, "calm-otter", ["messages", "hf"])
    return workspace


def run(workspace: Workspace, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "-w", str(workspace.root)])
    return done.stdout if done.exception is None else f"REFUSED {done.exception}"


def push(workspace: Workspace, url: str = URL) -> str:
    return run(workspace, "push", "calm-otter", "--to", url, *ALLOWED, "--yes")


def files(store: Any) -> dict[str, bytes]:
    """Path below the folder -> content."""
    base = "me:hunter2secret@bucket/picks/"
    return {k.split(base)[1]: v.getvalue() for k, v in store.store.items() if base in k}


def local(workspace: Workspace) -> dict[str, bytes]:
    folder = workspace.exports / "calm-otter"
    inside = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in inside}


def test_every_file_arrives_and_the_manifest_is_the_last(
    store: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(workspace, "push", "calm-otter", "--to", URL, *ALLOWED)
    assert f"{SHOWN}/: a new folder" in shown
    assert files(store) == {}
    order: list[str] = []
    put = type(store).put_file

    def kept(self: Any, path: str, there: str, **options: Any) -> None:
        order.append(there)
        put(self, path, there, **options)

    monkeypatch.setattr(type(store), "put_file", kept)
    assert f"uploaded to {SHOWN}" in push(workspace)
    assert files(store) == local(workspace)
    assert [name.rpartition("/")[2] for name in order[-2:]] == ["README.md", "manifest.json"]
    assert "an earlier upload of it is replaced" in push(workspace)

    row = find_selection(workspace, "calm-otter")
    used = where_used(workspace, picks(workspace, row.selection_id, 1)[0].example_id)
    assert [each.path for each in used].count(f"{SHOWN}/train.jsonl") == 2


@pytest.mark.parametrize("is_new", [True, False])
def test_half_an_upload_is_marked_and_has_no_manifest(
    store: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    if not is_new:
        push(workspace)
    put = type(store).put_file

    def breaks(self: Any, path: str, there: str, **options: Any) -> None:
        if there.endswith("train.parquet"):
            raise ConnectionError(f"reset by {SECRET}")
        put(self, path, there, **options)

    monkeypatch.setattr(type(store), "put_file", breaks)
    died = push(workspace)
    assert "ConnectionError" in died
    assert "marked as unfinished (UNFINISHED.json, no manifest.json)" in died
    assert "manifest.json" not in files(store)
    assert json.loads(files(store)["UNFINISHED.json"])["selection_id"]
    with open_snapshot(workspace) as connection:
        query = "SELECT action, detail->>'error' FROM event ORDER BY rowid DESC LIMIT 1"
        assert connection.execute(query).fetchall() == [("push_failed", "InputError")]
    monkeypatch.setattr(type(store), "put_file", put)
    assert "was not finished" in push(workspace)
    assert files(store) == local(workspace)


def test_what_did_not_arrive_whole_is_noticed(
    store: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store), "size", lambda *_: 3)
    assert "did not arrive whole" in push(workspace)
    assert "manifest.json" not in files(store)


def test_other_files_and_other_selections_are_not_overwritten(
    store: Any, workspace: Workspace
) -> None:
    store.pipe("memory://theirs/train.jsonl", b"precious")
    assert "holds other files" in push(workspace, "memory://theirs")
    push(workspace)
    export_selection(workspace, "calm-otter-random")
    other = run(workspace, "push", "calm-otter-random", "--to", URL, "--yes",
                *ALLOWED, "--allow-licence", "cc-by-nc-4.0")  # fmt: skip
    assert "holds other files" in other
    assert store.cat("memory://theirs/train.jsonl") == b"precious"
    assert "half an export could show" in push(workspace, "hf://datasets/org/picks")
    assert "REFUSED nosuch://x" in push(workspace, "nosuch://x")


def test_an_export_to_an_address_is_recorded_and_its_password_is_not(
    store: Any, workspace: Workspace, tmp_path: Path
) -> None:
    done = run(workspace, "export", "calm-otter", "--to", URL, "-f", "ids")
    assert f"30 examples in {SHOWN}: ids.csv" in done
    assert files(store) == local(workspace)
    said = [done, push(workspace), run(workspace, "sql", "FROM export"),
            run(workspace, "sql", "FROM event")]  # fmt: skip
    assert SHOWN in said[2]
    assert all(SECRET not in text for text in said)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path
