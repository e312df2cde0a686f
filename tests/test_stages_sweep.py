"""A sweep of budgets in whole runs: one selection, nested exports, and a section of the report."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.jobs import SelectConfig
from flows.stages.reproduce import reproduce
from selection.core.errors import InputError
from selection.data.training_rows import RowLayout
from storage.audit.forget import forget
from storage.audit.reproduction import recorded_run
from storage.audit.verify import verify
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.queries.lookup import where_used
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config

Paths = tuple[Path, Path, Path, Path]
MORE: dict[str, Any] = {
    "replay": {"share": 0.25},
    "controls": ["random"],
    "near_duplicates": {"similarity": 0.5, "text_overlap": 0.1},
}
SWEEP: dict[str, Any] = {**MORE, "budget": {"examples": 12, "sweep": [8, 4]}}


def rows(workspace: Workspace, query: str) -> list[dict[str, Any]]:
    return run_sql(workspace, query).to_pylist()


def ids(file: Path) -> list[str]:
    return [json.loads(line)["id"] for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def ran(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str, str]:
    """A workspace with a run of three budgets and one of the largest alone."""
    root = tmp_path_factory.mktemp("sweep")
    workspace, results = run_job(tiny_config(*paths, **SWEEP), root)
    _, alone = run_job(tiny_config(*paths, **MORE, budget={"examples": 12}), root)
    return workspace, str(results[0]["name"]), str(alone[0]["name"])


def test_a_sweep_changes_no_pick_and_no_byte(ran: tuple[Workspace, str, str]) -> None:
    workspace, name, alone = ran
    query = "SELECT example_id, score, reason FROM v_selection WHERE selection = '{}' ORDER BY rank"
    assert rows(workspace, query.format(name)) == rows(workspace, query.format(alone))
    files = [workspace.exports / each / "train.jsonl" for each in (name, alone)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not rows(workspace, f"FROM v_budgets WHERE selection LIKE '{alone}%'")
    assert 'id="budgets"' not in (workspace.reports / f"{alone}.html").read_text()


def test_budgets_are_counted_and_nested(ran: tuple[Workspace, str, str]) -> None:
    workspace, name, _ = ran
    for selection in (name, f"{name}-random"):
        where = f"WHERE selection = '{selection}'"
        picks = rows(workspace, f"FROM v_selection {where} ORDER BY rank")
        [made] = rows(workspace, f"SELECT * FROM selection WHERE name = '{selection}'")
        budgets = rows(workspace, f"FROM v_budgets {where} ORDER BY budget")
        assert [b["budget"] for b in budgets] == [b["n_selected"] for b in budgets] == [4, 8, 12]
        for b in budgets:
            held = [p for p in picks if p["budget"] <= b["budget"]]
            scored = [p for p in held if p["reason"] != "replay"]
            assert b["n_replay"] == len(held) - len(scored)
            assert b["n_tokens"] == sum(p["tokens"] for p in held)
            assert b["cut_score"] == min(p["score"] for p in scored)
            assert scored == [p for p in picks if p["reason"] != "replay"][: len(scored)]
        for key in ("n_selected", "n_replay", "n_tokens", "cut_score"):
            assert budgets[-1][key] == made[key]
    [check] = rows(
        workspace,
        f"""SELECT c.* FROM held_out_check c JOIN selection s
        USING (selection_id) WHERE s.name = '{name}' AND c.method = 'jaccard'""",
    )
    [largest] = rows(workspace, f"FROM v_budgets WHERE selection = '{name}' AND budget = 12")
    assert largest["n_beyond"] == check["n_beyond"]
    passed = rows(workspace, "SELECT count(*) AS n FROM selection_drop JOIN selection s"
                  f" USING (selection_id) WHERE s.name = '{name}' AND score_rank <"
                  " (SELECT max(score_rank) FROM pick p WHERE p.selection_id = s.selection_id"
                  " AND p.reason <> 'replay')")  # fmt: skip
    assert largest["n_near_duplicates"] == passed[0]["n"]


def test_exports_are_nested_and_known_to_auditors(ran: tuple[Workspace, str, str]) -> None:
    workspace, name, _ = ran
    folder = workspace.exports / name
    whole, middle, small = (
        ids(folder / part / "train.jsonl") for part in ("", "budget-8", "budget-4")
    )
    assert [len(each) for each in (whole, middle, small)] == [12, 8, 4]
    assert set(small) < set(middle) < set(whole)
    assert [each for each in whole if each in small] == small
    manifest = json.loads((folder / "budget-8" / "manifest.json").read_text())
    assert (manifest["n_selected"], manifest["n_replay"]) == (8, 2)
    assert sum(source["n"] for source in manifest["sources"]) == 8
    assert len(rows(workspace, manifest["sql"])) == 8
    held = {use.path for use in where_used(workspace, whole[8]) if use.format == "messages"}
    only = next(each for each in whole if each not in middle)
    less = {use.path for use in where_used(workspace, only) if use.path}
    assert f"exports/{name}/train.jsonl" in held & less
    assert not any("budget-" in path for path in less if f"/{name}/" in path)
    page = (workspace.reports / f"{name}.html").read_text()
    assert 'id="budgets"' in page
    assert "<h3>Composition, as shares" in page


def test_the_command_writes_one_budget(ran: tuple[Workspace, str, str], tmp_path: Path) -> None:
    workspace, name, alone = ran
    words = ["export", name, "--budget", "8", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, [*words, "-w", str(workspace.root)])
    assert done.exit_code == 0, done.output
    same = workspace.exports / name / "budget-8" / "train.jsonl"
    assert (tmp_path / "o" / "train.jsonl").read_bytes() == same.read_bytes()
    for selection, budget in ((name, 7.0), (alone, 12.0)):
        with pytest.raises(InputError, match="no such budget"):
            export_selection(workspace, selection, layout=RowLayout(budget=budget))


def test_runs_are_reproduced_verified_and_forgotten(ran: tuple[Workspace, str, str]) -> None:
    workspace, name, _ = ran
    assert all(each.is_same for each in reproduce(workspace, recorded_run(workspace, name)))
    assert {finding.state for finding in verify(workspace)} <= {"ok", "unchecked"}
    folders = [workspace.exports / name / part for part in ("", "budget-8", "budget-4")]
    removed = ids(folders[2] / "train.jsonl")[1]
    forget(workspace, [removed], reason="wanted")
    assert [len(ids(folder / "train.jsonl")) for folder in folders] == [11, 7, 3]
    assert not any(removed in (folder / "train.jsonl").read_text() for folder in folders)
    assert {f.state for f in verify(workspace)} <= {"ok", "unchecked", "redacted"}


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"examples": 9, "sweep": [9]}, "smaller budgets than 9, in examples"),
        ({"tokens": 900, "sweep": [0]}, "smaller budgets than 900, in tokens"),
        ({"examples": 9, "sweep": [0.5]}, "in examples"),
        ({"sweep": [3, 4]}, "exactly one of"),
    ],
)
def test_a_sweep_has_smaller_budgets_of_one_unit(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SelectConfig.model_validate({"pool": "p", "exemplars": "e", "budget": budget})
