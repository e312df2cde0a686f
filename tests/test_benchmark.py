"""The retrieval benchmark on a tiny labelled pool: every method, resumed, recorded, reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from benchmarks import label_free, retrieval
from flows.benchmark.methods import DEFAULT, find_methods
from flows.benchmark.record import benchmark_rows
from flows.benchmark.run import Outcome, identity_of, run_benchmark
from flows.benchmark.scorers import Scorers
from flows.benchmark.setting import BenchPool
from flows.cli.bench import comparison_lines
from flows.config.base import Dtype
from flows.config.data import BenchRequest, UnderTest
from selection.core.errors import InputError
from selection.evaluation.labelled import read_labelled_pool, read_labelled_targets, turns_of
from selection.evaluation.metrics import Quality, measure
from selection.evaluation.summary import as_json
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace
from storage.pools.shards import open_shards
from storage.queries.sql import run_sql
from storage.report.benchmark import write_benchmark_report
from tests.tiny_model import arithmetic, code, sentiment, translation, write_jsonl

KINDS = {"arithmetic": arithmetic, "translation": translation, "code": code, "sentiment": sentiment}


def labelled(i: int) -> dict[str, Any]:
    """Row i: four tasks in turn; every ninth is unlabelled, rows 3 and 43 say the same."""
    kind = list(KINDS)[i % 4]
    question, answer = KINDS[kind](3 if i == 43 else i)
    return {
        "id": f"row-{i:03d}",
        "task": kind,
        "family": kind,
        "category": "words" if kind in ("translation", "sentiment") else kind,
        "label_quality": "weak" if i % 9 == 8 else "gold",
        "instruction": "Do as you are told.",
        "input": question,
        "output": answer,
        "source": "ignored",
    }


def target(kind: str, tasks: list[str], category: str, rows: list[int]) -> dict[str, Any]:
    exemplars = [{**labelled(i), "official_split": "test"} for i in rows]
    return {
        "target": kind,
        "kind": "T1 same task" if tasks[0] in KINDS else "T2",
        "tasks": tasks,
        "category": category,
        "families": tasks,
        "n": len(rows),
        "exemplars": exemplars,
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("labelled")
    rows = [labelled(i) for i in np.random.default_rng(0).permutation(60).tolist()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pool.parquet")
    targets = [
        target("arithmetic", ["arithmetic"], "arithmetic", [400, 404, 408]),
        target("code", ["code"], "code", [402, 406]),
        target("moods", ["elsewhere"], "words", [403, 407, 411]),
    ]
    return folder / "pool.parquet", write_jsonl(folder / "targets.jsonl", targets)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def request_for(files: tuple[Path, Path], tiny_model_dir: Path, tiny_sae_dir: Path) -> Any:
    def make(**more: Any) -> BenchRequest:
        base = {
            "pool": str(files[0]),
            "targets": str(files[1]),
            "setting": "instance",
            "model": str(tiny_model_dir),
            "sae": str(tiny_sae_dir),
            "hookpoint": "resid@2",
        }
        return BenchRequest.model_validate(base | more)

    return make


@pytest.fixture(scope="module")
def outcome(request_for: Any, workspace: Workspace, tiny_model_dir: Path) -> Outcome:
    """Every method there is, both settings; the tiny model serves as the encoder too."""
    return run_benchmark(request_for(setting="both", encoder=str(tiny_model_dir)), workspace)


def test_every_method_is_measured_for_every_target_in_both_settings(outcome: Outcome) -> None:
    names = {*DEFAULT, "encoder"}
    for setting in ("full", "instance"):
        assert set(outcome.measured[setting]) == names
        for method in outcome.methods:
            for target in outcome.targets:
                found = outcome.measured[setting][method.name][target.name]
                assert set(found) == set(method.variants)
                assert all(0 <= value <= 1 for each in found.values() for value in each.values())
    words = {name: outcome.measured["instance"][name]["code"] for name in ("tfidf", "random")}
    assert words["tfidf"]["max"]["ndcg"] > words["random"]["seed0"]["ndcg"] + 0.2


def test_a_bare_name_stands_by_its_best_variant_and_random_by_the_mean_of_its_seeds(
    outcome: Outcome,
) -> None:
    for summary in outcome.summaries["instance"]:
        by_variant = {
            variant: np.mean(
                [
                    outcome.measured["instance"][summary.method][t.name][variant]["ndcg"]
                    for t in outcome.targets
                ]
            )
            for variant in outcome.measured["instance"][summary.method]["code"]
        }
        expected = np.mean if summary.method == "random" else max
        assert summary.ndcg["all"].mean == pytest.approx(expected(list(by_variant.values())))


def test_one_pass_reads_for_all_and_equals_the_ordinary_embedding(
    outcome: Outcome, workspace: Workspace, request_for: Any, tmp_path: Path
) -> None:
    """Shards of the shared pass hold what a run of its own computes."""
    folders = list(workspace.shards.iterdir())
    alone = open_workspace(tmp_path)
    run_benchmark(request_for(methods=("best",)), alone)
    for folder in alone.shards.iterdir():
        assert folder.name in {each.name for each in folders}
        mine, shared = open_shards(folder), open_shards(workspace.shards / folder.name)
        keys = np.concatenate([shard.keys() for shard in mine.shards])
        a, b = mine.gather(keys), shared.gather(keys)
        assert a.latents.tolist() == b.latents.tolist()
        assert np.abs(a.values.astype(int) - b.values.astype(int)).max() <= 1


def test_what_counts_other_tokens_of_the_same_rendering_reads_in_the_same_pass(
    request_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bos = tmp_path / "bos.yaml"
    bos.write_text("bos: {preset: paper, rendering: {counted: every_token}}")

    def refuse(*args: object) -> None:
        raise AssertionError("a second pass over the pool")

    monkeypatch.setattr("flows.stages.represent.units.represent_samples", refuse)
    request = request_for(methods=("best", "paper", str(bos), "gate"))
    found = run_benchmark(request, open_workspace(tmp_path / "w")).measured["instance"]
    assert found["paper"] != found["bos"]


def test_scores_do_not_depend_on_the_order_of_the_pool(
    outcome: Outcome, files: tuple[Path, Path], request_for: Any, tmp_path: Path
) -> None:
    rows = pq.read_table(files[0]).sort_by("id")
    pq.write_table(rows, tmp_path / "sorted.parquet")
    request = request_for(pool=str(tmp_path / "sorted.parquet"), methods=("best", "bm25", "rds"))
    again = run_benchmark(request, open_workspace(tmp_path / "w"))
    for method in ("best", "bm25", "rds"):
        for name, variants in again.measured["instance"][method].items():
            for variant, measures in variants.items():
                before = outcome.measured["instance"][method][name][variant]
                assert measures == pytest.approx(before, abs=1e-6)


def test_finished_results_are_read_and_only_missing_ones_computed(
    outcome: Outcome, request_for: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def counting(grades: NDArray[np.int8]) -> Quality:
        measured.append(len(grades))
        return measure(grades)

    monkeypatch.setattr("flows.benchmark.run.measure", counting)
    request = request_for(methods=("bm25", "random", "paper"))
    again = run_benchmark(request, workspace)
    assert measured == []
    folder = workspace.root / "bench" / "results" / "instance" / "bm25"
    next(folder.glob("code-*.json")).unlink()
    resumed = run_benchmark(request, workspace)
    assert len(measured) == 3  # the three reductions of one target
    assert resumed.measured == again.measured


def test_files_of_scores_plug_in_and_settings_compare_as_yaml(
    files: tuple[Path, Path], request_for: Any, workspace: Workspace, tmp_path: Path
) -> None:
    pool = read_labelled_pool(files[0])
    code = read_labelled_targets(files[1])[1]
    grades = pool.grades(code)
    lines = [{"id": own_id, "score": int(g)} for own_id, g in zip(pool.ids, grades, strict=True)]
    oracle = write_jsonl(tmp_path / "oracle.jsonl", lines)
    config = tmp_path / "more.yaml"
    config.write_text(
        "no-idf: {preset: best, ranking: {weights: none}}\n"
        "unique: {preset: best, ranking: {weights: target_unique}}\n"
    )
    request = request_for(methods=(str(config), "best"), scores={"oracle": str(oracle)})
    found = run_benchmark(request, workspace).measured["instance"]
    assert found["oracle"]["code"]["given"]["ndcg"] == 1.0
    assert found["no-idf"] != found["best"] != found["unique"] != found["no-idf"]
    write_jsonl(oracle, lines[1:])
    with pytest.raises(InputError, match="an id has no score"):
        run_benchmark(request, workspace)


def test_pool_and_targets_are_refused_with_their_place(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    table = pq.read_table(files[0])
    pq.write_table(table.drop_columns("family"), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: `family`: the labelled pool has no such"):
        read_labelled_pool(tmp_path / "a.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="the id stands in several rows"):
        read_labelled_pool(tmp_path / "b.parquet")
    (tmp_path / "ids.txt").write_text("row-001\nrow-999\n")
    with pytest.raises(InputError, match="no such id in the pool"):
        read_labelled_pool(files[0], tmp_path / "ids.txt")
    bad = write_jsonl(tmp_path / "t.jsonl", [{"target": "x", "kind": "T1"}])
    with pytest.raises(InputError, match=r"line 1: `category`"):
        read_labelled_targets(bad)


def test_a_subpool_is_a_pool_of_its_own(files: tuple[Path, Path], tmp_path: Path) -> None:
    ids = [f"row-{i:03d}" for i in range(0, 60, 2)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    whole, part = read_labelled_pool(files[0]), read_labelled_pool(files[0], tmp_path / "ids.txt")
    assert sorted(part.ids.tolist()) == ids
    assert part.sha256 != whole.sha256


def test_turns_follow_the_setting() -> None:
    assert turns_of("do", "this", "done", "full") == ("do\nthis", "done")
    assert turns_of("do", "", "done", "full") == ("do", "done")
    assert turns_of("do", "this", "done", "instance") == ("this", "done")
    assert turns_of("do", " \n", None, "instance") == turns_of("do", None, "", "full") == ("do", "")


@pytest.fixture(scope="module")
def recorded(outcome: Outcome, workspace: Workspace) -> str:
    commit(workspace, benchmark_rows(outcome))
    return outcome.benchmark_id


def test_results_are_in_the_catalog_and_on_a_page(
    outcome: Outcome, recorded: str, workspace: Workspace
) -> None:
    rows: list[dict[str, Any]] = run_sql(
        workspace,
        f"SELECT method, ndcg, lo, hi, behind_best FROM v_benchmark WHERE benchmark_id ="
        f" '{recorded}' AND setting = 'instance' AND kind = 'all' ORDER BY ndcg DESC, method",
    ).to_pylist()
    assert [row["method"] for row in rows] == [s.method for s in outcome.summaries["instance"]]
    assert all(row["lo"] <= row["ndcg"] <= row["hi"] for row in rows)
    assert [row["method"] for row in rows if row["behind_best"] is None] == ["best"]
    page = write_benchmark_report(workspace, recorded).read_text()
    assert "split_relu" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(InputError, match="no such benchmark"):
        write_benchmark_report(workspace, "elsewhere")


def test_the_json_line_keeps_its_contract(outcome: Outcome) -> None:
    found = as_json(outcome.summaries, "m", outcome.pool.sha256, 3, outcome.cost)
    assert set(found) == {"setting", "model", "pool_sha256", "n_targets"}
    settings: Any = json.loads(json.dumps(found))["setting"]
    assert set(settings) == {"full", "instance"}
    assert set(settings["full"]) == {"T1", "T2", "all"}
    assert set(settings["full"]["T1"]["best"]) == {"ndcg", "lo", "hi"}


def test_a_target_without_a_relevant_row_is_refused_before_anything_is_read(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    lines = files[1].read_text().splitlines()
    lost = {**json.loads(lines[0]), "target": "lost", "tasks": ["x"], "families": ["x"]}
    targets = tmp_path / "targets.jsonl"
    targets.write_text("\n".join([*lines, json.dumps({**lost, "category": "x"})]) + "\n")
    request = BenchRequest(pool=str(files[0]), targets=str(targets), model="missing")
    with pytest.raises(InputError, match="no row of the pool is relevant for lost"):
        run_benchmark(request, open_workspace(tmp_path / "workspace"))


def test_losers_are_named(outcome: Outcome) -> None:
    lines = "\n".join(comparison_lines(outcome.summaries["instance"]))
    for summary in outcome.summaries["instance"]:
        for name in summary.lost_to:
            assert f"best loses to {summary.method} on" in lines
            assert name in lines
    assert "Behind best" in lines


def test_the_page_of_results_names_every_method_and_every_loss(outcome: Outcome) -> None:
    text = "".join(retrieval.page({"One": outcome, "Other": outcome}, [600.0, 6.0]))
    for setting, summaries in outcome.summaries.items():
        part = text.partition(f"### Setting {setting}")[2].partition("### ")[0]
        for summary in summaries:
            cell = f"| {summary.variant} | " + f"{summary.ndcg['T1'].mean:.3f}"
            assert cell in part
            if summary.lost_to:
                assert f"best loses to {summary.method} on {summary.lost_to[0]}" in part
        for target in outcome.targets:
            assert f"| {target.name} | " in part
    assert "took" not in text  # other models' runs were not cold
    assert "took 10 minutes" in "".join(retrieval.page({"One": outcome}, [600.0, 6.0]))
    together = text.partition("## 2 models together")[2]
    for name in ("best", "bm25"):  # one outcome twice: the mean of its settings
        found = [s for each in outcome.summaries.values() for s in each if s.method == name]
        mean = np.mean([summary.ndcg["all"].mean for summary in found])
        rows = [
            row for row in together.splitlines() if row.startswith((f"| {name} ", f"| **{name}"))
        ]
        assert f"{mean:.3f}" in rows[0]


def test_the_dtype_is_that_of_every_method_and_of_its_results(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Results in one are never taken for those in another."""
    pool, targets = read_labelled_pool(files[0]), read_labelled_targets(files[1])
    identities = []
    dtypes: tuple[Dtype, ...] = ("auto", "bfloat16")
    for dtype in dtypes:
        given = UnderTest(dtype=dtype)
        bench = BenchPool(pool, targets, "full", open_workspace(tmp_path), given)
        methods = find_methods(["best", "rds"], given)
        reading = Scorers(bench, methods).reading
        assert reading.config.model.dtype == dtype
        assert {each.config.model.dtype for each in reading.representers} == {dtype}
        assert reading.model.dtype == ("float32" if dtype == "auto" else dtype)
        identities.append([identity_of(method, bench) for method in methods])
    assert [a == b for a, b in zip(*identities, strict=True)] == [False, False]


def test_the_check_is_held_against_labels_target_by_target(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_free, "BUDGET", 4)
    pool, targets = read_labelled_pool(files[0]), read_labelled_targets(files[1])
    bench = BenchPool(pool, targets, "full", open_workspace(tmp_path), UnderTest())
    answers = label_free.answers_of(bench, 0)
    assert [each.target for each in answers] == [target.name for target in targets]
    for answer, target in zip(answers, targets, strict=True):
        assert answer.of_task == int((pool.grades(target) == 3).sum())
    assert label_free.summary(answers)["targets"] == len(targets)
