"""Files of an export: repeated, joined, refused, and names that lead nowhere else."""

import errno
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selection.core.errors import InputError
from storage.catalog.commit import commit
from storage.export.export import FORMATS as ALL_FORMATS
from storage.export.export import export_selection
from storage.files.atomic import read_json
from storage.files.workspace import Workspace, file_name, open_workspace
from storage.queries import lookup
from storage.report.page import write_report
from tests.catalog_fixture import made_workspace, make_tables

FORMATS = [name for name in ALL_FORMATS if name != "preference"]  # no pick is a preference row


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A run of plain conversations."""
    return made_workspace(tmp_path / "w")


def test_two_exports_of_a_selection_are_the_same_bytes(
    workspace: Workspace, tmp_path: Path
) -> None:
    one = export_selection(workspace, "calm-otter", FORMATS, out=tmp_path / "one")
    two = export_selection(workspace, "calm-otter", FORMATS, out=tmp_path / "two")
    assert one.files == two.files


def test_a_later_format_joins_the_earlier_ones_in_the_manifest(workspace: Workspace) -> None:
    folder = export_selection(workspace, "calm-otter", ["messages"]).folder
    export_selection(workspace, "calm-otter", ["ids"])
    files: Any = read_json(folder / "manifest.json")["files"]
    assert [file["path"] for file in files] == ["ids.csv", "train.jsonl", "train.parquet"]
    (folder / "ids.csv").unlink()
    export_selection(workspace, "calm-otter", ["messages"])
    files = read_json(folder / "manifest.json")["files"]
    assert [file["path"] for file in files] == ["train.jsonl", "train.parquet"]


def test_selections_of_one_name_do_not_overwrite_each_other(workspace: Workspace) -> None:
    from storage.catalog.commit import commit

    first = export_selection(workspace, "calm-otter").folder
    before = (first / "train.jsonl").read_bytes()
    commit(workspace, make_tables(seed=5))
    second = export_selection(workspace, "calm-otter").folder
    chosen = lookup.find_selection(workspace, "calm-otter").selection_id
    assert second.name == f"calm-otter-{chosen[:8]}"
    assert (first / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("formats", [["sharegpt"], []])
def test_an_unknown_format_is_refused_with_the_known_ones(
    workspace: Workspace, formats: list[str]
) -> None:
    with pytest.raises(
        InputError, match=r"messages, preference, original, ids, hf, llama_factory, axolotl"
    ):
        export_selection(workspace, "calm-otter", formats)


def test_other_peoples_files_are_not_overwritten(workspace: Workspace, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "train.jsonl").write_text("precious")
    with pytest.raises(InputError, match="the folder holds other files"):
        export_selection(workspace, "calm-otter", out=mine)
    with pytest.raises(InputError, match="a file is in the way"):
        export_selection(workspace, "calm-otter", out=mine / "train.jsonl")
    assert (mine / "train.jsonl").read_text() == "precious"


@pytest.mark.parametrize("formats", [["messages"], ["original"], ["ids"], ["hf"]])
def test_a_disk_that_fills_up_leaves_no_half_file(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, formats: list[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        export_selection(workspace, "calm-otter", formats)
    assert list((workspace.exports / "calm-otter").iterdir()) == []


def test_original_rows_that_were_not_recorded_are_refused(tmp_path: Path) -> None:
    from storage.catalog.arrow_rows import to_arrow
    from storage.catalog.commit import commit
    from storage.files.workspace import open_workspace

    workspace = open_workspace(tmp_path)
    tables = make_tables(n_selected=3)
    rows = [{**row, "raw": None} for row in tables["occurrence"].to_pylist()]
    commit(workspace, {**tables, "occurrence": to_arrow("occurrence", rows)})
    with pytest.raises(InputError, match="did not record the original rows"):
        export_selection(workspace, "calm-otter", ["original"])
    assert not (workspace.exports / "calm-otter" / "original.jsonl").exists()


ODD_NAMES = [
    "../../outside",
    "/etc/outside",
    "..",
    "a/b",
    "a b",
    "x" * 300,
    "line\nbreak\0null",
    "$(touch outside) `id` ;*",
    "naïve-名前",
]


def test_every_name_becomes_one_file_of_its_own_in_its_folder(tmp_path: Path) -> None:
    """Names come from configs, deployments and exemplar files."""
    found = [file_name(name) for name in [*ODD_NAMES, "a-b", "selection", "plain_name.1"]]
    assert len(set(found)) == len(found)
    assert found[-1] == "plain_name.1"
    for name in found:
        (tmp_path / name).touch()
        assert not name.startswith(".")
        assert len(name.encode()) <= 160
    assert {path.name for path in tmp_path.iterdir()} == set(found)


def test_no_name_of_a_selection_leads_out_of_the_workspace(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "deep" / "workspace")
    for number, name in enumerate(ODD_NAMES[:3]):
        tables = make_tables(f"run-{number}", n_selected=2, n_near=1, seed=number)
        names = [name, f"{number}-random", f"{number}-bm25"]
        tables["selection"] = tables["selection"].set_column(
            tables["selection"].column_names.index("name"), "name", pa.array(names)
        )
        commit(workspace, tables)
    before = {path for path in tmp_path.rglob("*") if workspace.root not in path.parents}
    folders, reports = set(), set()
    for name in ODD_NAMES[:3]:
        folders.add(export_selection(workspace, name).folder)
        reports.add(write_report(workspace, name))
    assert len(folders) == len(reports) == 3
    assert {folder.parent for folder in folders} == {workspace.exports}
    assert {report.parent for report in reports} == {workspace.reports}
    assert all((folder / "train.jsonl").is_file() for folder in folders)
    after = {path for path in tmp_path.rglob("*") if workspace.root not in path.parents}
    assert after == before


def test_links_inside_the_workspace_are_not_written_through(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path / "workspace", n_selected=3, n_near=1)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    workspace.exports.mkdir()
    folder = workspace.exports / "calm-otter"
    folder.symlink_to(outside)
    with pytest.raises(InputError, match="a link leads out"):
        export_selection(workspace, "calm-otter")
    folder.unlink()
    folder.mkdir()
    for name in ("train.jsonl", "README.md", "manifest.json"):
        (folder / name).symlink_to(outside / "kept.txt")
    (folder / "manifest.json").unlink()
    workspace.reports.mkdir()
    (workspace.reports / "calm-otter.html").symlink_to(outside / "kept.txt")
    export_selection(workspace, "calm-otter")
    write_report(workspace, "calm-otter")
    assert [path.name for path in outside.iterdir()] == ["kept.txt"]
    assert (outside / "kept.txt").read_text() == "kept"
    assert not (folder / "train.jsonl").is_symlink()
