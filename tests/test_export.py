import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from storage.export.export import FORMATS as ALL_FORMATS
from storage.export.export import export_selection
from storage.files.atomic import read_json
from storage.files.workspace import Workspace
from storage.queries import lookup
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace, make_tables
from tests.catalog_run import HOSTILE, hostile_example, make_example, tool_example

FORMATS = [name for name in ALL_FORMATS if name != "preference"]  # no pick is a preference row
ROOT = Path(__file__).resolve().parent.parent
needs_json = pytest.mark.skipif(
    tuple(map(int, version("datasets").split(".")[:2])) < (4, 7),
    reason="rows that differ in shape need the type Json, which came with datasets 4.7",
)
ALL_FILES = {
    "train.jsonl",
    "train.parquet",
    "original.jsonl",
    "ids.csv",
    "hf_dataset",
    "dataset_info.json",
    "llama_factory.jsonl",
    "axolotl.yaml",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A run of plain conversations."""
    return made_workspace(tmp_path / "w")


@pytest.fixture
def tools_workspace(tmp_path: Path) -> Workspace:
    """A run whose second pick has tools, calls, a tool's result and reasoning."""
    return made_workspace(tmp_path / "w", extra=(hostile_example(), tool_example()))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def expected_rows(workspace: Workspace, **options: Any) -> list[dict[str, Any]]:
    """The rows by the tables that were committed."""
    tables = make_tables(**options)
    chosen = lookup.find_selection(workspace, "calm-otter").selection_id
    samples = {row["example_id"]: row for row in tables["sample"].to_pylist()}
    picks = [p for p in tables["pick"].to_pylist() if p["selection_id"] == chosen]
    return [
        {"id": p["example_id"], "messages": json.loads(samples[p["example_id"]]["messages"])}
        for p in sorted(picks, key=lambda p: p["rank"])
    ]


def test_training_rows_are_the_picks_in_order_of_rank(workspace: Workspace) -> None:
    exported = export_selection(workspace, "latest")
    assert exported.folder == workspace.exports / "calm-otter"
    rows = lines(exported.folder / "train.jsonl")
    assert rows == expected_rows(workspace)
    assert pq.read_table(exported.folder / "train.parquet").to_pylist() == rows
    assert list(rows[0]) == ["id", "messages"]
    assert list(rows[0]["messages"][0]) == ["role", "content"]


def test_no_line_of_the_file_is_broken_by_its_content(workspace: Workspace) -> None:
    export_selection(workspace, "calm-otter")
    text = (workspace.exports / "calm-otter" / "train.jsonl").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 120  # which also splits at U+2028
    assert "\u2028" in json.loads(text.splitlines()[0])["messages"][0]["content"]
    assert HOSTILE in json.loads(text.splitlines()[0])["messages"][0]["content"]


def test_everything_can_be_exported_after_pools_and_shards_are_gone(workspace: Workspace) -> None:
    for name in ("pools", "shards", "scores", "indexes"):
        (workspace.root / name).mkdir()
        shutil.rmtree(workspace.root / name)
    exported = export_selection(workspace, "calm-otter", FORMATS)
    assert {file.path for file in exported.files} == ALL_FILES
    assert ALL_FILES | {"README.md", "manifest.json"} == {p.name for p in exported.folder.iterdir()}


def test_original_rows_are_unchanged(workspace: Workspace) -> None:
    export_selection(workspace, "calm-otter", ["original"])
    written = (workspace.exports / "calm-otter" / "original.jsonl").read_bytes().decode()
    places = sorted(make_tables()["occurrence"].to_pylist(), key=lambda row: row["file"])
    raws = {row["example_id"]: row["raw"] for row in reversed(places)}
    wanted = [raws[row["id"]] for row in expected_rows(workspace)]
    assert written == "".join(f"{raw}\n" for raw in wanted)
    assert '"quality": 1.0, ' in wanted[0]


def test_original_rows_over_several_lines_become_one_line_of_the_same_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import catalog_fixture, catalog_run

    monkeypatch.setattr(
        catalog_run.MadeExample,
        "raw",
        property(lambda e: f'{{\r\n "id": {e.row},\n "x": 1.0}}'),
    )
    catalog_fixture._template.cache_clear()
    workspace = made_workspace(tmp_path, n_selected=4)
    catalog_fixture._template.cache_clear()
    export_selection(workspace, "calm-otter", ["original"])
    text = (workspace.exports / "calm-otter" / "original.jsonl").read_text()
    assert len(text.splitlines()) == 4
    assert text.splitlines()[0] == '{   "id": 90001,  "x": 1.0}'


def test_ids_name_every_place_of_every_pick(workspace: Workspace) -> None:
    exported = export_selection(workspace, "calm-otter", ["ids"])
    with (exported.folder / "ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (exported.files[0].rows or 0) > 120  # every tenth example has a copy
    twice = next(row["rank"] for row in rows if row["file"] == "data/mirror.jsonl")
    assert [row["source"] for row in rows if row["rank"] == twice] == [
        "grade-school-math",
        "mirror",
    ]
    assert {row["example_id"] for row in rows} == {row["id"] for row in expected_rows(workspace)}


LOADER = """
import json, sys
import datasets

def load(kind, path):
    if kind == "disk":
        return datasets.load_from_disk(path)
    if kind == "folder":
        return datasets.load_dataset(path, split="train")
    return datasets.load_dataset(kind, data_files=path, split="train")

loaded = [load(*wanted.split(":", 1)) for wanted in sys.argv[1:]]
json.dump([[rows[i] for i in range(len(rows))] for rows in loaded], sys.stdout)
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """Rows as the `datasets` package loads them, offline, in a process and home of its own."""
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

    def loaded(*wanted: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", LOADER, *wanted],
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return loaded


def test_datasets_loads_the_same_rows_from_every_format(
    workspace: Workspace, load: Callable[..., Any]
) -> None:
    folder = export_selection(workspace, "calm-otter", ["messages", "hf"]).folder
    rows = expected_rows(workspace)
    loaded = load(
        f"json:{folder}/train.jsonl",
        f"parquet:{folder}/train.parquet",
        f"disk:{folder}/hf_dataset",
        f"folder:{folder}",
    )
    assert loaded == [rows] * 4


@needs_json
def test_tool_calls_names_and_reasoning_survive_loading(
    tools_workspace: Workspace, load: Callable[..., Any]
) -> None:
    folder = export_selection(tools_workspace, "calm-otter", ["messages", "hf"]).folder
    rows = lines(folder / "train.jsonl")
    example = tool_example()
    assert rows[1] == {"id": example.id, "messages": example.messages, "tools": example.tools}
    assert rows[0]["tools"] is None
    loaded = load(
        f"json:{folder}/train.jsonl",
        f"parquet:{folder}/train.parquet",
        f"disk:{folder}/hf_dataset",
        f"folder:{folder}",
    )
    assert loaded == [rows] * 4


@needs_json
def test_a_late_row_of_another_shape_loads_too(tmp_path: Path, load: Callable[..., Any]) -> None:
    long = [
        replace(
            plain, messages=[{**m, "content": str(m["content"]) * 9000} for m in plain.messages]
        )
        for plain in [make_example(i, np.random.default_rng(i), "translation") for i in range(11)]
    ]
    workspace = made_workspace(tmp_path / "w", extra=(*long, tool_example()), n_selected=12)
    folder = export_selection(workspace, "calm-otter").folder
    rows = lines(folder / "train.jsonl")
    assert sum(len(json.dumps(row)) for row in rows[:11]) > 10 << 20
    assert load(f"folder:{folder}", f"parquet:{folder}/train.parquet") == [rows] * 2


@pytest.mark.parametrize("content", [[{"type": "text", "text": "What?"}], None, 7])
def test_content_that_is_no_text_stays_what_it_is(tmp_path: Path, content: object) -> None:
    messages: list[dict[str, object]] = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "So."},
    ]
    odd = replace(hostile_example(), messages=messages)
    workspace = made_workspace(tmp_path / "w", extra=(odd,), n_selected=3)
    folder = export_selection(workspace, "calm-otter").folder
    stored = pq.read_table(folder / "train.parquet").to_pylist()
    rows = [{**row, "messages": [json.loads(m) for m in row["messages"]]} for row in stored]
    assert rows == lines(folder / "train.jsonl")
    assert rows[0]["messages"] == messages


def test_a_trainers_chat_template_renders_the_rows(
    tools_workspace: Workspace, tiny_model_dir: Path
) -> None:
    from transformers import AutoTokenizer

    folder = export_selection(tools_workspace, "calm-otter").folder
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    for row in lines(folder / "train.jsonl"):
        text = tokenizer.apply_chat_template(row["messages"], tools=row["tools"], tokenize=False)
        assert row["messages"][-1]["content"] in text


def test_settings_for_trainers_name_what_is_there(workspace: Workspace) -> None:
    folder = export_selection(workspace, "calm-otter", ["llama-factory", "axolotl"]).folder
    info = json.loads((folder / "dataset_info.json").read_text())["calm-otter"]
    assert info["formatting"] == "sharegpt"
    row = lines(folder / info["file_name"])[0]
    message = row[info["columns"]["messages"]][0]
    assert message["from"] == "human"
    assert message["value"]
    row = lines(folder / "train.jsonl")[0]
    (block,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    assert (folder / block["path"]).exists()
    assert block["type"] == "chat_template"
    assert block["field_messages"] in row
    assert "field_tools" not in block


def test_settings_for_trainers_know_tools(tools_workspace: Workspace) -> None:
    folder = export_selection(tools_workspace, "calm-otter", ["llama_factory", "axolotl"]).folder
    info = json.loads((folder / "dataset_info.json").read_text())["calm-otter"]
    assert info["formatting"] == "sharegpt"
    rows = lines(folder / info["file_name"])
    tools = {row["id"]: row["tools"] for row in lines(folder / "train.jsonl")}
    assert all(json.loads(row["tools"] or "null") == tools[row["id"]] for row in rows)
    assert any(row["tools"] for row in rows)
    (block,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    assert block["field_tools"] == "tools"


def test_the_manifest_hashes_every_file_and_says_where_it_came_from(workspace: Workspace) -> None:
    folder = export_selection(workspace, "calm-otter", FORMATS).folder
    manifest = read_json(folder / "manifest.json")
    files: Any = manifest["files"]
    assert {file["path"] for file in files} == ALL_FILES
    for file in files:
        path = folder / file["path"]
        if path.is_file():
            assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert file["bytes"] == path.stat().st_size
    run = make_tables()["run"].to_pylist()[0]
    for key in ("pool_id", "model_sha256", "sae_sha256", "git_sha", "run_id"):
        assert manifest[key] == run[key]
    assert manifest["config"] == json.loads(run["config"])
    assert manifest["datasets"]["hf_dataset"] == "4.0"  # type: ignore[index]
    assert manifest["n_selected"] == 120
    chain = run_sql(workspace, "FROM catalog_commit ORDER BY number").to_pylist()
    assert manifest["commit"] in [{k: link[k] for k in ("number", "sha256")} for link in chain]
    assert sum(source["n"] for source in manifest["sources"]) == 120  # type: ignore[attr-defined]


def test_the_card_lists_sources_licences_and_files(workspace: Workspace) -> None:
    folder = export_selection(workspace, "calm-otter", ["messages"]).folder
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    assert "| grade-school-math | mit | " in card
    assert "not named" in card
    assert hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest() in card
    assert "gsm8k (8 exemplars)" in card
    assert "demonstration model" not in card


def test_the_card_says_when_the_demo_model_chose(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path, is_demo=True)
    folder = export_selection(workspace, "calm-otter").folder
    assert "demonstration model" in (folder / "README.md").read_text()


def test_an_export_is_recorded_where_auditors_look(workspace: Workspace, tmp_path: Path) -> None:
    export_selection(workspace, "calm-otter")
    export_selection(workspace, "calm-otter", ["ids"], out=tmp_path / "elsewhere")
    example = expected_rows(workspace)[3]["id"]
    uses = lookup.where_used(workspace, example)
    assert [(use.format, use.path) for use in uses if use.path] == [
        ("messages", "exports/calm-otter/train.jsonl"),
        ("messages", "exports/calm-otter/train.parquet"),
        ("ids", str(tmp_path / "elsewhere" / "ids.csv")),
    ]
    train = workspace.exports / "calm-otter" / "train.jsonl"
    assert uses[0].sha256 == hashlib.sha256(train.read_bytes()).hexdigest()
