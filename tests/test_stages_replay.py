"""Replay in whole runs: what the catalog, exports, checks and `forget` make of it."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.config.jobs import SelectConfig
from flows.stages.reproduce import reproduce
from selection.data.training_rows import RowLayout
from storage.audit.explain import explain
from storage.audit.forget import forget
from storage.audit.reproduction import recorded_run
from storage.audit.verify import verify
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config

Paths = tuple[Path, Path, Path, Path]
REPLAY: dict[str, Any] = {
    "budget": {"examples": 10},
    "replay": {"share": 0.3},
    "exclude": ["row-5", "row-6"],
    "drop_exemplar_copies": False,
    "controls": ["bm25", "random"],
    "combine": "joint",
    "export": ["messages", "ids"],
}


def rows(workspace: Workspace, query: str) -> list[dict[str, Any]]:
    return run_sql(workspace, query).to_pylist()


def picks(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    query = f"SELECT * FROM v_selection WHERE selection = '{name}' ORDER BY rank"
    return rows(workspace, query)


@pytest.fixture(scope="module")
def ran(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    root = tmp_path_factory.mktemp("replay")
    workspace, results = run_job(tiny_config(*paths, **REPLAY), root)
    return workspace, str(results[0]["name"])


def test_the_catalog_says_which_picks_are_replay(ran: tuple[Workspace, str]) -> None:
    workspace, name = ran
    chosen = picks(workspace, name)
    assert [row["reason"] for row in chosen] == ["score"] * 7 + ["replay"] * 3
    assert len({row["example_id"] for row in chosen}) == 10
    assert not {row["own_id"] for row in chosen} & {"row-5", "row-6"}
    exemplars = {row["exemplar_id"] for row in rows(workspace, "FROM exemplar")}
    assert not {row["example_id"] for row in chosen[7:]} & exemplars
    [run] = rows(workspace, "FROM run")
    counts, drops = json.loads(run["counts"]), rows(workspace, "FROM selection_drop")
    for row in rows(workspace, "FROM selection"):
        of_it = picks(workspace, row["name"])
        assert row["n_selected"] == len(of_it) == 10
        n_replay = sum(pick["reason"] == "replay" for pick in of_it)
        assert row["n_replay"] == n_replay == (0 if row["method"] == "random" else 3)
        assert row["n_tokens"] == sum(pick["tokens"] for pick in of_it)
        assert row["cut_score"] == min(p["score"] for p in of_it if p["reason"] == "score")
        query = f"FROM scores WHERE selection_id = '{row['selection_id']}'"
        assert len(rows(workspace, query)) == counts["ranked"]
    assert not drops
    n_dropped = sum(counts["dropped_before_ranking"].values())
    assert counts["examples"] == counts["ranked"] + n_dropped


def test_the_check_counts_picks_and_a_reason_is_given(ran: tuple[Workspace, str]) -> None:
    workspace, name = ran
    checks = rows(workspace, "FROM held_out_check WHERE n_picks IS NOT NULL")
    assert all(row["n_picks"] <= 7 for row in checks)
    chosen = picks(workspace, name)
    assert explain(workspace, name, chosen[8]["example_id"]).reason == "replay"
    [miss] = rows(workspace, f"FROM near_miss WHERE selection_id = '{chosen[0]['selection_id']}'"
                  " ORDER BY score_rank LIMIT 1")  # fmt: skip
    change = explain(workspace, name, miss["example_id"]).change
    if miss["score_rank"] <= 10:
        assert change is not None
        assert (change.key, change.value) == ("replay", None)


def test_exports_mark_it_and_equal_runs_are_equal(ran: tuple[Workspace, str], paths: Paths) -> None:
    workspace, name = ran
    folder = workspace.exports / name
    with (folder / "ids.csv").open(newline="") as file:
        reasons = {row["example_id"]: row["reason"] for row in csv.DictReader(file)}
    chosen = picks(workspace, name)
    assert reasons == {row["example_id"]: row["reason"] for row in chosen}
    assert json.loads((folder / "manifest.json").read_text())["n_replay"] == 3
    assert "3 are replay" in (folder / "README.md").read_text()
    assert "are replay" in (workspace.reports / f"{name}.html").read_text()
    layout = RowLayout(("reason", "weight"))
    out = export_selection(workspace, name, out=workspace.root / "marked", layout=layout).folder
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [row["reason"] for row in chosen]
    assert [line["weight"] for line in lines[7:]] == [1.0] * 3
    _, results = run_job(tiny_config(*paths, **REPLAY), workspace.root)
    again = workspace.exports / str(results[0]["name"])
    assert (again / "train.jsonl").read_bytes() == (folder / "train.jsonl").read_bytes()
    assert all(each.is_same for each in reproduce(workspace, recorded_run(workspace, name)))
    assert {finding.state for finding in verify(workspace)} <= {"ok", "unchecked"}


def test_a_replay_row_is_forgotten_like_any_other(paths: Paths, tmp_path: Path) -> None:
    workspace, results = run_job(tiny_config(*paths, **REPLAY), tmp_path)
    name = str(results[0]["name"])
    removed = picks(workspace, name)[8]["example_id"]
    forget(workspace, [removed], reason="wanted")
    text = (workspace.exports / name / "train.jsonl").read_text()
    assert removed not in text
    assert len(text.splitlines()) == 9
    assert picks(workspace, name)[8]["text"] is None
    assert find_selection(workspace, name).n_replay == 3
    assert {f.state for f in verify(workspace)} <= {"ok", "unchecked", "redacted"}


def test_what_cannot_be_drawn_is_refused() -> None:
    base: dict[str, Any] = {"pool": "p", "exemplars": "e", "budget": {"examples": 3}}
    for more, message in (
        ({"replay": {"tokens": 4}}, "needs `budget.tokens`"),
        ({"replay": {}}, "exactly one"),
        ({"replay": {"share": 1.0}}, "less than 1"),
        ({"replay": {"share": 0.5}, "ranking": {"search": "faiss"}}, "drawn from all rows"),
    ):
        with pytest.raises(ValidationError, match=message):
            SelectConfig.model_validate({**base, **more})
