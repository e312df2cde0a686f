"""The whole benchmark with the tiny model: resumed, recorded, reported, refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.benchmark.methods import BASELINES
from flows.cli.bench import bench_finetune_command
from flows.config.data import FinetuneRequest, UnderTest
from flows.finetune.arms import Arms, methods_of
from flows.finetune.cells import Cell, Laboratory
from flows.finetune.quick import QUICK, TARGETS, write_quick_files
from flows.finetune.record import finetune_rows
from flows.finetune.run import FinetuneOutcome, request_of, run_finetune
from selection.core.errors import InputError
from selection.evaluation.labelled import read_labelled_pool, read_labelled_targets
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace
from storage.queries.sql import run_sql
from storage.report.finetune import write_finetune_report
from tests.catalog_fixture import made_workspace
from tests.finetune_pool import write_files
from tests.tiny_model import write_jsonl

ARMS = ("zero", "random", "length_matched", "bm25", "given", "oracle")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("finetune")
    pool, targets = write_files(folder)
    ids = read_labelled_pool(pool).ids.tolist()
    scores = write_jsonl(
        folder / "scores.jsonl", [{"id": name, "score": int(name[4:]) % 7} for name in ids]
    )
    seen = folder / "seen.txt"
    seen.write_text("\n".join(f"row-{i:03d}" for i in range(0, 40, 4)))
    return {
        "pool": str(pool), "targets_file": str(targets), "arms": ARMS, "seeds": 2,
        "budget_tokens": (150, 300), "held_out": 12, "trainee": str(tiny_model_dir),
        "max_length": 64, "learning_rate": 3e-3, "dtype": "float32", "device": "cpu",
        "scores": {"given": str(scores)}, "exclude": str(seen),
    }  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def outcome(given: dict[str, Any], workspace: Workspace) -> FinetuneOutcome:
    return run_finetune(FinetuneRequest.model_validate(given), workspace)


def results(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Name of each run's file -> what it holds, without the time it took."""
    files = sorted((workspace.root / "bench" / "finetune" / "runs").rglob("*.json"))
    known = {str(f.relative_to(workspace.root)): json.loads(f.read_text()) for f in files}
    return {name: {**value, "seconds": None} for name, value in known.items()}


def test_every_arm_trains_on_eligible_rows_for_the_same_number_of_tokens(
    outcome: FinetuneOutcome, given: dict[str, Any]
) -> None:
    assert [target.name for target in outcome.targets] == ["arithmetic", "mood"]
    assert len(outcome.results) == 2 * (1 + 5 * 2 * 2)
    eligible = set(outcome.pool.ids.tolist())
    whole = read_labelled_pool(given["pool"])
    assert len(eligible) + sum(outcome.removed.values()) == len(whole)
    by_key: dict[tuple[Any, ...], list[str]] = {}
    for run in outcome.results:
        assert set(run["trained_on"]) <= eligible
        assert len(run["bits"]) == len(run["n_bytes"]) == 12
        by_key[run["target"], run["arm"], run["budget"], run["seed"]] = run["trained_on"]
    for (target, arm, budget, seed), rows in by_key.items():
        if budget == 300 and arm != "length_matched":  # these follow the picks of the budget
            small = by_key[target, arm, 150, seed]
            assert rows[: len(small)] == small
        if arm == "oracle":
            tasks = whole.table["task"].to_pylist()
            assert {tasks[whole.ids.tolist().index(name)] for name in rows} == {target}
    for target in ("arithmetic", "mood"):
        assert by_key[target, "random", 300, 0] != by_key[target, "random", 300, 1]
        first, second = (by_key[target, "bm25", 300, seed] for seed in (0, 1))
        assert len(set(first) & set(second)) >= len(first) - 2  # ties aside
        top = [int(name[4:]) % 7 for name in by_key[target, "given", 150, 0]]
        assert top == [6] * len(top)
    assert outcome.seen == ["arithmetic"]
    groups = [(s.budget, s.group) for s in outcome.summaries]
    assert groups == [(b, g) for b in (150, 300) for g in ("all", "seen", "new")]
    gains = {row.arm: row.gain.mean for row in outcome.summaries[3].arms}
    assert gains["oracle"] > gains["random"]


def test_a_stopped_benchmark_goes_on_and_leaves_the_same_files(
    outcome: FinetuneOutcome,
    given: dict[str, Any],
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, made = Laboratory.run, list[Cell]()

    def stopped(self: Laboratory, cell: Cell) -> None:
        if len(made) == 9:
            raise KeyboardInterrupt
        made.append(cell)
        run(self, cell)

    other = open_workspace(tmp_path)
    request = FinetuneRequest.model_validate(given)
    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_finetune(request, other)
    assert len(results(other)) == 9
    late = run_finetune(request.model_copy(update={"hours": 1e-9}), other)
    assert (late.n_made, late.n_left, len(late.results)) == (1, 42 - 10, 10)
    # One target has all arms of the smaller budget.
    assert [(s.budget, s.targets) for s in late.summaries if s.group == "all"] == [
        (150, ["arithmetic"])
    ]
    again = run_finetune(request, other)
    assert again.n_left == 0
    assert results(other) == results(workspace)
    assert again.summaries == outcome.summaries
    one = run_finetune(request.model_copy(update={"targets": ("mood",)}), other)
    assert [t.name for t in one.targets] == ["mood"]  # the same rows, so the same files
    assert results(other) == results(workspace)


def test_runs_are_rows_of_the_catalog_and_a_page(
    outcome: FinetuneOutcome, workspace: Workspace, tmp_path: Path
) -> None:
    commit(workspace, finetune_rows(outcome))
    table = run_sql(
        workspace,
        "SELECT target, arm, n_seeds, gain, gap_closed, is_seen FROM v_finetune"
        " WHERE budget = 300 ORDER BY target, arm",
    ).rows
    assert len(table) == 2 * 5
    summary = {row.arm: row for row in outcome.summaries[3].arms}
    for arm in ("bm25", "oracle"):
        mean = np.mean([row[3] for row in table if row[1] == arm])
        assert mean == pytest.approx(summary[arm].gain.mean)
    assert {row[4] for row in table if row[1] == "oracle"} == {1.0}
    assert {row[4] for row in table if row[1] == "random"} == {0.0}
    copy = tmp_path / "copy.duckdb"
    shutil.copy(workspace.snapshot, copy)
    with duckdb.connect(str(copy)) as connection:  # no way from random to oracle: no share of it
        connection.execute("UPDATE finetune SET gain = -1 WHERE arm = 'oracle'")
        gaps = connection.execute("SELECT DISTINCT gap_closed FROM v_finetune").fetchall()
    assert gaps == [(None,)]
    page = write_finetune_report(workspace, outcome.benchmark_id).read_text()
    assert page.count("<figure>") == 2
    for arm in ARMS[1:]:
        assert f"<title>{arm}</title>" in page
    with pytest.raises(InputError, match="no such benchmark"):
        write_finetune_report(workspace, "none")


def test_a_selection_is_an_arm_and_its_outcome_is_recorded(
    given: dict[str, Any], tmp_path: Path
) -> None:
    workspace = made_workspace(tmp_path, name="calm-otter")
    own = run_sql(workspace, "SELECT own_id FROM v_selection ORDER BY selection, rank").rows
    pool, rename = (
        read_labelled_pool(given["pool"]),
        iter(dict.fromkeys(str(name) for (name,) in own if name)),
    )
    ids = [next(rename, name) for name in pool.ids.tolist()]
    file = tmp_path / "pool.parquet"
    pq.write_table(pool.table.set_column(0, "id", pa.array(ids)), file)
    arms = ("zero", "random", "selection:calm-otter")
    changed: dict[str, Any] = {
        "pool": str(file),
        "arms": arms,
        "scores": {},
        "exclude": None,
        "seeds": 1,
    }
    request = FinetuneRequest.model_validate({**given, **changed, "budget_tokens": (60,)})
    outcome = run_finetune(request, workspace)
    commit(workspace, finetune_rows(outcome))
    picks = [
        str(own_id)
        for (own_id,) in run_sql(
            workspace, "SELECT own_id FROM v_selection WHERE selection = 'calm-otter' ORDER BY rank"
        ).rows
    ]
    eligible = set(outcome.pool.ids.tolist())
    wanted = [name for name in picks if name in eligible]
    for run in outcome.results:
        if run["arm"] == arms[2]:
            assert run["trained_on"] == wanted[: len(run["trained_on"])]
    assert run_sql(workspace, "SELECT DISTINCT is_seen FROM v_finetune").rows == [(None,)]
    recorded = run_sql(workspace, "SELECT metric, mean FROM v_outcome ORDER BY metric").rows
    assert [metric for metric, _ in recorded] == [
        f"gain on {target}, 60 tokens" for target in ("arithmetic", "mood")
    ]
    with pytest.raises(InputError, match=r"nothing has been recorded|no such"):
        run_finetune(
            request.model_copy(update={"arms": ("selection:none",)}), open_workspace(tmp_path / "x")
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"targets": ("jokes",)}, "no such target"),
        ({"targets": ("mood",), "budget_tokens": (90_000,)}, "less than twice.*--budget-tokens"),
        ({"budget_tokens": (90_000,)}, "less than twice the budget"),
        ({"held_out": 50}, "too few rows to hold 50 out.*--held-out"),
        ({"arms": ("random", "random")}, "named twice"),
        ({"arms": ("random", "gate_")}, "no such arm.*less, loss_drop.*selection:NAME"),
        ({"arms": ("random", "mine.yaml")}, "no such arm"),
        ({"arms": ("random", "rds:best")}, "`arms`: no such variant"),
        ({"exclude": "missing.txt"}, "cannot be read"),
        ({"scores": {"given": "missing.jsonl"}}, "is no file of scores"),
        ({"scores": {"oracle": "missing.jsonl"}}, "cannot have this name"),
        ({"trainee": "/no/such/folder"}, "neither a folder nor"),
        ({"tune": "last:9"}, "has 4 blocks"),
        ({"device": "abacus"}, "cannot be used here"),
        ({"seeds": 0}, "`--seeds`.*`saelect bench finetune --help`"),
        (
            {"budget_tokens": (0,)},
            r"greater than 0 \(found: 0\). `saelect bench finetune --help`.*s\.$",
        ),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_computed(
    given: dict[str, Any],
    workspace: Workspace,
    changed: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Arms, "score")
    with pytest.raises(InputError, match=message):
        run_finetune(request_of(**{**given, **changed}), workspace)


def test_selections_without_enough_rows_are_refused_before_anything_is_computed(
    given: dict[str, Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Arms, "score")
    arm, own = "selection:few", read_labelled_pool(given["pool"]).ids.tolist()[:8]
    for picks, message in ((["elsewhere"], "no pick"), (own, "fewer than the budget of 300")):
        few = {arm: ("few", picks)}
        monkeypatch.setattr("flows.finetune.run.read_selections", lambda *_, few=few: few)
        with pytest.raises(InputError, match=message):
            run_finetune(request_of(**{**given, "arms": ("random", arm)}), workspace)


def test_an_encoder_is_no_trainee(given: dict[str, Any], workspace: Workspace) -> None:
    folder = shutil.copytree(given["trainee"], workspace.root / "encoder")
    config = json.loads((folder / "config.json").read_text())
    changed = {**config, "model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="this one is an encoder"):
        run_finetune(request_of(**{**given, "trainee": str(folder)}), workspace)


def test_every_method_is_an_arm_by_its_bare_name() -> None:
    methods = methods_of(("zero", *BASELINES, "oracle", "bm25:max"), UnderTest())
    assert list(methods) == [*(name for name in BASELINES if name != "random"), "bm25:max"]
    assert {len(method.variants) for method in methods.values()} == {1}
    assert methods["less"].variants == ("adam/mean",)


def test_files_of_scores_are_arms_unasked(given: dict[str, Any], workspace: Workspace) -> None:
    outcome = run_finetune(request_of(**{**given, "arms": ("random",)}), workspace)
    assert outcome.n_made == 0  # all runs are files already
    assert {run["arm"] for run in outcome.results} == {"zero", "random", "given"}


def test_quick_is_what_no_option_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[dict[str, Any]] = []

    def stop(**given: Any) -> None:
        received.append(given)
        raise InputError("enough", remedy="None.")

    monkeypatch.setattr("flows.finetune.run.request_of", stop)
    with pytest.raises(InputError, match="enough"):
        bench_finetune_command({"seeds": 3}, tmp_path, quick=True, as_json_line=False)
    assert received[0]["seeds"] == 3
    assert received[0]["arms"] == QUICK["arms"]
    assert Path(received[0]["pool"]).is_file()


def test_the_packaged_pool_has_two_targets_to_test_quickly(tmp_path: Path) -> None:
    pool, targets = write_quick_files(tmp_path)
    whole, named = read_labelled_pool(pool), read_labelled_targets(targets)
    assert tuple(target.name for target in named) == TARGETS
    for target in named:
        assert (whole.grades(target) == 3).sum() > 3 * QUICK["held_out"]
