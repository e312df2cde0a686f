"""Runs in real MLflow, trackio and wandb, on files of this machine; each where it is installed."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration import trackers
from flows.orchestration.trackers import check_tracker, track, tracked_run
from selection.core.errors import InputError
from storage.catalog.snapshot import open_snapshot
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.report.page import write_report
from tests.catalog_fixture import made_workspace

pytestmark = pytest.mark.filterwarnings("ignore")  # the trackers' own
RUN = "calm-otter"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    workspace = made_workspace(tmp_path / "w", n_selected=30, n_near=5)
    export_selection(workspace, RUN)
    write_report(workspace, RUN)
    return workspace


def expected(workspace: Workspace) -> dict[str, float]:
    """Some numbers, each by a query of its own."""
    queries = {
        "counts/rows": "SELECT (counts->>'rows')::INT FROM run",
        f"{RUN}/n_selected": "SELECT n_selected FROM selection WHERE name = 'calm-otter'",
        f"{RUN}/cut_score": "SELECT min(score) FROM v_selection WHERE selection = 'calm-otter'",
        f"{RUN}-random/n_tokens": "SELECT n_tokens FROM selection WHERE name LIKE '%-random'",
        f"{RUN}/check/gsm8k/bm25/percentile": "SELECT percentile FROM held_out_check"
        " WHERE method = 'bm25'",
        f"{RUN}/check/gsm8k/jaccard/depth": "SELECT depth FROM held_out_check"
        " WHERE method = 'jaccard'",
    }
    with open_snapshot(workspace) as connection:
        return {k: float(connection.execute(q).fetchall()[0][0]) for k, q in queries.items()}


def test_a_tracked_run_is_what_the_catalog_has(workspace: Workspace) -> None:
    run = tracked_run(workspace, RUN)
    assert expected(workspace).items() <= run.numbers.items()
    assert run.config["budget/examples"] == 30
    assert run.paths == {
        "workspace": str(workspace.root),
        f"{RUN}/report": str(workspace.reports / "calm-otter.html"),
        **{f"{RUN}/export/{name}": str(workspace.exports / RUN / name)
           for name in ("train.jsonl", "train.parquet")},
    }  # fmt: skip


def test_a_tracker_that_fails_warns_and_the_run_stays(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("no route to https://me:hunter2@host")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", fails)
    with caplog.at_level(logging.WARNING):
        track("mlflow", workspace, RUN)
    assert "mlflow did not take the run (RuntimeError: no route" in caplog.text
    assert "hunter2" not in caplog.text
    track("mlflow", workspace, "no such run")


def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'saelect\[trackio\]'"):
        check_tracker("trackio")


def test_mlflow_has_the_run(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    track("mlflow", workspace, RUN)
    (found,) = mlflow.MlflowClient().search_runs(
        [mlflow.get_experiment_by_name("saelect").experiment_id]
    )
    run = tracked_run(workspace, RUN)
    assert found.info.run_name == RUN
    assert found.info.status == "FINISHED"
    assert found.data.metrics == run.numbers
    assert found.data.params == {key: str(value) for key, value in run.config.items()}
    assert run.paths.items() <= found.data.tags.items()


def test_trackio_has_the_run(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    track("trackio", workspace, RUN)
    run = tracked_run(workspace, RUN)
    (found,) = trackio.Api().runs("saelect")
    assert found.name == RUN
    assert {key: found.config[key] for key in run.config} == dict(run.config)
    assert run.paths.items() <= found.config.items()


def test_wandb_offline_has_the_run(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track("wandb", workspace, RUN)
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    run = tracked_run(workspace, RUN)
    for name in (*run.numbers, *run.config, *run.paths.values()):
        assert name.encode() in content, name
