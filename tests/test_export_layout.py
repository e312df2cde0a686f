"""Further columns and other orders of the rows of an export."""

import hashlib
import json
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.load import resolve
from selection.core.errors import InputError
from selection.data.training_rows import RowLayout, sample_weights
from storage.audit.forget import forget
from storage.export.export import export_selection
from storage.files.atomic import read_json
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace

ALL = ("score", "rank", "weight")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path / "w")


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def picks(workspace: Workspace) -> list[dict[str, Any]]:
    query = "SELECT * FROM v_selection WHERE selection = 'calm-otter' ORDER BY rank"
    return run_sql(workspace, query).to_pylist()


def slow_weights(scores: list[float], temperature: float) -> list[float]:
    raised = np.exp(np.array(scores, np.longdouble) / (temperature * pstdev(scores)))
    return [float(value) for value in raised / raised.mean()]


def test_columns_are_those_of_the_catalog_and_weights_a_softmax(workspace: Workspace) -> None:
    layout = RowLayout(ALL, temperature=0.5)
    formats = ["messages", "llama_factory"]
    folder = export_selection(workspace, "calm-otter", formats, layout=layout).folder
    rows, chosen = lines(folder / "train.jsonl"), picks(workspace)
    assert [list(row) for row in rows] == [["id", "messages", *ALL]] * 120
    assert [(r["id"], r["score"], r["rank"]) for r in rows] == [
        (p["example_id"], p["score"], p["rank"]) for p in chosen
    ]
    weights = [row["weight"] for row in rows]
    assert weights == pytest.approx(slow_weights([p["score"] for p in chosen], 0.5), rel=1e-12)
    assert fmean(weights) == pytest.approx(1, abs=1e-12)
    assert len(set(weights)) > 50
    assert pq.read_table(folder / "train.parquet").to_pylist() == rows
    named = [{name: row[name] for name in ("id", *ALL)} for row in rows]
    trained = lines(folder / "llama_factory.jsonl")
    assert [{name: row[name] for name in ("id", *ALL)} for row in trained] == named
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert [f["name"] for f in front["dataset_info"]["features"]] == ["id", "messages", *ALL]
    files: Any = read_json(folder / "manifest.json")["files"]
    assert all(file["layout"]["temperature"] == 0.5 for file in files)


def test_a_saved_dataset_has_the_columns(workspace: Workspace) -> None:
    from datasets import load_from_disk

    layout = RowLayout(("weight", "rank"), "length")
    folder = export_selection(workspace, "calm-otter", ["messages", "hf"], layout=layout).folder
    assert load_from_disk(str(folder / "hf_dataset")).to_list() == lines(folder / "train.jsonl")


def test_each_target_has_mean_one_and_replay_weighs_one() -> None:
    scores = [0.9, 0.5, 0.1, 30.0, 10.0, 0.7, 0.7, 0.2]
    targets = ["a", "a", "a", "b", "b", "c", "c", "a"]
    weights = sample_weights(scores, targets, ["score"] * 7 + ["replay"], 2.0)
    assert weights[:3] == pytest.approx(slow_weights(scores[:3], 2.0))
    assert weights[3:5] == pytest.approx(slow_weights(scores[3:5], 2.0))
    assert weights[5:] == [1.0, 1.0, 1.0]


def test_rows_stand_by_length(workspace: Workspace) -> None:
    wanted = sorted(picks(workspace), key=lambda p: (p["tokens"], p["rank"]))
    formats, layout = ["messages", "original", "axolotl"], RowLayout(order="length")
    folder = export_selection(workspace, "calm-otter", formats, layout=layout).folder
    assert [row["id"] for row in lines(folder / "train.jsonl")] == [
        pick["example_id"] for pick in wanted
    ]
    own = [row.get("id") for row in lines(folder / "original.jsonl")]
    assert own[-9:] == [pick["own_id"] for pick in wanted[-9:]]
    settings = yaml.safe_load((folder / "axolotl.yaml").read_text())
    assert settings["curriculum_sampling"] is True
    assert settings["shuffle_merged_datasets"] is False


def test_rows_stand_by_a_seed(workspace: Workspace) -> None:
    chosen, orders = {pick["example_id"] for pick in picks(workspace)}, []
    for seed in (7, 7, 8):
        keys = {
            hashlib.sha256(f"order:{seed}:{name}".encode()).hexdigest(): name for name in chosen
        }
        layout = RowLayout(order="random", seed=seed)
        folder = export_selection(workspace, "calm-otter", layout=layout).folder
        orders.append([row["id"] for row in lines(folder / "train.jsonl")])
        assert orders[-1] == [keys[key] for key in sorted(keys)]
        assert f"random order (seed {seed})" in (folder / "README.md").read_text()
    assert orders[0] == orders[1] != orders[2]


def test_what_makes_no_sense_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="random control"):
        export_selection(workspace, "calm-otter-random", layout=RowLayout(("weight",)))
    with pytest.raises(InputError, match="no such order"):
        RowLayout(order="perplexity")
    with pytest.raises(InputError, match="above 0"):
        RowLayout(temperature=0)


def test_forgetting_writes_the_same_layout_without_the_sample(workspace: Workspace) -> None:
    export_selection(workspace, "calm-otter", ["original"])
    folder = export_selection(workspace, "calm-otter", layout=RowLayout(ALL, "random", 3)).folder
    rows, original = lines(folder / "train.jsonl"), lines(folder / "original.jsonl")
    forget(workspace, [rows[4]["id"]], reason="wanted")
    assert lines(folder / "train.jsonl") == [*rows[:4], *rows[5:]]
    left = lines(folder / "original.jsonl")
    assert len(left) == 119
    assert [row for row in original if row in left] == left


def test_the_command_and_the_config_take_the_same_options(
    workspace: Workspace, tmp_path: Path
) -> None:
    words = ["export", "calm-otter", "--column", "weight", "--order", "random", "--seed", "5"]
    more = ["--temperature", "2", "--out", str(tmp_path / "o"), "-w", str(workspace.root)]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    layout = RowLayout(("weight",), "random", 5, 2.0)
    export_selection(workspace, "calm-otter", out=tmp_path / "p", layout=layout)
    same = [(tmp_path / name / "train.jsonl").read_bytes() for name in "op"]
    assert same[0] == same[1]
    base = {"pool": "p", "exemplars": "e", "budget": {"examples": 3}}
    export: Any = {"columns": ["weight"], "order": "random", "seed": 5, "temperature": 2}
    assert resolve({**base, "export": export}).export.as_layout() == layout
    assert resolve({**base, "export": ["ids"]}).export.formats == ("ids",)
    assert resolve(base).export.as_layout() == RowLayout()
