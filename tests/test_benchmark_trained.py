"""`less` and `loss_drop` in the retrieval benchmark: planted tasks, resumed runs, refusals."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from flows.benchmark import trained
from flows.benchmark.record import benchmark_rows
from flows.benchmark.run import Outcome, run_benchmark
from flows.benchmark.trained import Candidates, loss_drops
from flows.config.data import BenchRequest
from selection.core.errors import InputError
from selection.evaluation.influence.adapted import AdaptedModel, load_adapted
from selection.evaluation.influence.warm_up import WarmUp, warm_up
from selection.evaluation.summary import as_json
from selection.models.resolve import resolve_model
from selection.records import Rendered
from selection.rendering.renderer import renderer_for
from storage.files.atomic import write_arrays
from storage.files.workspace import open_workspace
from tests.test_influence_gradients import value_by_hand
from tests.tiny_model import code, translation, write_jsonl

TASKS = {"code": code, "translation": translation}


def labelled(i: int) -> dict[str, Any]:
    """Row i: two tasks in turn."""
    task = list(TASKS)[i % 2]
    question, answer = TASKS[task](i)
    labels = {"task": task, "family": task, "category": task, "label_quality": "gold"}
    own = {"instruction": question, "input": "", "output": answer, "source": "ignored"}
    return {"id": f"row-{i:03d}", **labels, **own}


@pytest.fixture(scope="module", autouse=True)
def longer_warm_up() -> Iterator[None]:
    """A model of random weights learns nothing from a few gentle steps."""
    longer = {"epochs": 4, "batch": 4, "learning_rate": 1e-3, "seed": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trained.LOSS_DROP, "warm_up", longer)
        yield


@pytest.fixture(scope="module")
def request_for(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_sae_dir: Path
) -> Any:
    folder = tmp_path_factory.mktemp("two-tasks")
    pq.write_table(pa.Table.from_pylist([labelled(i) for i in range(40)]), folder / "p.parquet")
    targets = [
        {
            "target": task,
            "kind": "T1",
            "tasks": [task],
            "category": task,
            "families": [task],
            "exemplars": [labelled(i) for i in range(100 + first, 116 + first, 2)],
        }
        for first, task in enumerate(TASKS)
    ]
    given = {
        "pool": str(folder / "p.parquet"),
        "targets": str(write_jsonl(folder / "t.jsonl", targets)),
        "setting": "instance",
        "model": str(tiny_model_dir),
        "sae": str(tiny_sae_dir),
        "hookpoint": "resid@2",
        "methods": ("less", "loss_drop", "random"),
    }
    return lambda **more: BenchRequest.model_validate(given | more)


@pytest.fixture(scope="module")
def outcome(request_for: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_benchmark(request_for(), open_workspace(tmp_path_factory.mktemp("w")))


def test_both_recover_a_planted_task_among_two(outcome: Outcome) -> None:
    found = outcome.measured["instance"]
    for task in TASKS:
        for method in ("less", "loss_drop"):
            precision = max(each["r_precision"] for each in found[method][task].values())
            assert precision > 0.9, (method, task)
        assert found["less"][task]["adam/mean"]["r_precision"] > 0.9  # as LESS has it
        assert found["random"][task]["seed0"]["r_precision"] < 0.8


def test_the_cost_stands_beside_the_quality(outcome: Outcome) -> None:
    assert set(outcome.cost["instance"]) == {"less", "loss_drop"}
    line: Any = as_json(outcome.summaries, "m", outcome.pool.sha256, 2, outcome.cost)
    methods = line["setting"]["instance"]["all"]
    assert methods["less"]["seconds"] > 0
    assert "seconds" not in methods["random"]
    [row] = benchmark_rows(outcome)["benchmark"].to_pylist()
    recorded = json.loads(row["methods"])
    assert recorded["less"]["seconds"]["instance"] == methods["less"]["seconds"]


def test_a_killed_run_goes_on_and_gives_the_same_scores(
    outcome: Outcome, request_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "UNIT", 16)
    whole = open_workspace(tmp_path / "whole")
    expected = run_benchmark(request_for(), whole).measured
    broken = open_workspace(tmp_path / "broken")
    for n_written in (1, 3, 5, 6):
        monkeypatch.setattr("flows.benchmark.trained.write_arrays", dying_after(n_written))
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(request_for(), broken)
    monkeypatch.undo()
    monkeypatch.setattr(trained, "UNIT", 16)
    assert run_benchmark(request_for(), broken).measured == expected
    kept, resumed = kept_files(whole.root), kept_files(broken.root)
    assert len(kept) > 10
    assert kept.keys() == resumed.keys()
    for name, file in kept.items():
        with np.load(file) as one, np.load(resumed[name]) as other:
            for key in set(one.files) - {"seconds"}:
                assert one[key].tobytes() == other[key].tobytes()


def kept_files(root: Path) -> dict[tuple[str, ...], Path]:
    """By method and name; the folder between them is named after the pool in its workspace."""
    found = {}
    for file in (root / "bench").rglob("*.npz"):
        method, _, *name = file.relative_to(root / "bench").parts
        found[method, *name] = file
    return found


def dying_after(n_written: int) -> Any:
    """A writer that is killed before its file number n_written + 1."""
    left = [n_written]

    def write(file: Path, arrays: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write_arrays(file, arrays)

    return write


@pytest.fixture(scope="module")
def samples(tiny_model_dir: Path) -> list[Rendered]:
    renderer = renderer_for(resolve_model(tiny_model_dir), max_length=64, counted="response")
    turns = [(labelled(i)["instruction"], labelled(i)["output"]) for i in range(12)]
    return renderer.render_batch(
        [
            ([{"role": "user", "content": q}, {"role": "assistant", "content": a}], None)
            for q, a in turns
        ]
    )


def test_loss_drops_are_losses_before_minus_after_one_at_a_time(
    tiny_model_dir: Path, samples: Sequence[Rendered], tmp_path: Path
) -> None:
    def load() -> AdaptedModel:
        return load_adapted(resolve_model(tiny_model_dir), 16, 64)

    def of(rows: NDArray[np.int64]) -> Sequence[Rendered]:
        return [samples[row] for row in rows.tolist()]

    candidates = Candidates(tmp_path, 8, of, load)
    found = loss_drops(candidates, "a", samples[8:], lambda _: None)
    trainee = load()
    before = [value_by_hand(trainee, sample) for sample in samples[:8]]
    warm_up(trainee, samples[8:], WarmUp(**trained.LOSS_DROP["warm_up"]))
    after = [value_by_hand(trainee, sample) for sample in samples[:8]]
    drop = np.array(before) - np.array(after)
    assert np.abs(drop).min() > 1e-3
    assert found["per_token"] == pytest.approx(drop, abs=1e-4)
    assert found["relative"] == pytest.approx(drop / before, abs=1e-4)


def test_what_cannot_be_trained_is_refused(
    request_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trained.LESS, "most", 39)
    with monkeypatch.context() as patch:
        patch.delattr("flows.benchmark.scorers.Scorers.of")  # before other methods compute
        with pytest.raises(InputError, match=r"of 39 at most.*--subpool"):
            run_benchmark(request_for(methods=("best", "less")), open_workspace(tmp_path))
    only_questions = [{**labelled(100), "output": ""}]
    target = {"target": "x", "kind": "T1", "tasks": ["code"], "category": "code", "families": []}
    file = write_jsonl(tmp_path / "t.jsonl", [{**target, "exemplars": only_questions}])
    for method in ("less", "loss_drop"):
        monkeypatch.setitem(trained.LESS, "most", 40)
        request = request_for(targets=str(file), methods=(method,))
        with pytest.raises(InputError, match="no exemplar of this target has a response"):
            run_benchmark(request, open_workspace(tmp_path / method))
