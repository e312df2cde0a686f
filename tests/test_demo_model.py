"""The demo model's benchmark: scores against slow definitions, one pass, resumed to equal bytes."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import demo_model
from benchmarks.demo_quality.labels import read_bench_pool
from benchmarks.demo_quality.lexical import bm25_mean, count_known, tfidf_centroid, vocabulary_of
from benchmarks.demo_quality.passes import work_units
from benchmarks.demo_quality.reading import SampleVectors, load_block, load_rows
from benchmarks.demo_quality.scoring import Figures, Judge, sae_name
from benchmarks.demo_quality.table import differences
from selection.activations import load_activation_model
from selection.baselines import bm25_of_sets, words
from selection.labelled import as_messages, read_labelled_pool, read_labelled_targets
from selection.models import Hookpoint, resolve_model
from selection.rendering import load_renderer
from selection.representation import represent
from selection.sae.formats import load_sae
from selection.sparse import to_dense
from tests import oracles
from tests.conftest import TINY_HOOKPOINT, arithmetic, code, sentiment, translation

Report = Callable[..., dict[str, Any]]
N_ROWS, N_SMALL, BLOCK = 44, 12, 2
MAKERS = {"sum": arithmetic, "french": translation, "python": code, "mood": sentiment}


def slow_ndcg(scores: list[float], grades: list[int], cutoff: int) -> float:
    judged = [(s, g) for s, g in zip(scores, grades, strict=True) if g >= 0]
    ranked = [g for _, g in sorted(judged, key=lambda pair: -pair[0])][:cutoff]
    ideal = sorted((g for _, g in judged), reverse=True)[:cutoff]

    def dcg(chosen: list[int]) -> float:
        return sum((2**g - 1) / math.log2(i + 2) for i, g in enumerate(chosen))

    return dcg(ranked) / dcg(ideal) if dcg(ideal) else 0.0


def labelled_row(i: int, first: int = 0) -> dict[str, Any]:
    # Labels have little to do with the text, so that no method ranks them all right.
    task = list(MAKERS)[(i * i + i // 5) % 4]
    question, answer = list(MAKERS.values())[i % 4](first + i // 4)
    return {
        "id": f"r{(7 * i) % N_ROWS:02d}",
        "task": task,
        "family": task if i % 3 else "other",
        "category": "numbers" if task == "sum" else "words",
        "label_quality": "weak" if i % 11 == 3 else "gold",
        "instruction": "Do it." if i % 2 else question,
        "input": question if i % 2 else "",
        "output": answer,
        "license": "MIT" if i % 2 else "CC BY-NC 4.0",
        "canary": False,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    pl.DataFrame([labelled_row(i) for i in range(N_ROWS)]).write_parquet(folder / "pool.parquet")
    (folder / "subpool.txt").write_text("\n".join(f"r{3 * i:02d}" for i in range(N_SMALL)))
    targets = [
        {
            "target": f"t{i}",
            "kind": ("T1", "T2")[i],
            "category": ("numbers", "words")[i],
            "tasks": (["sum"], [])[i],
            "families": (["sum"], ["mood"])[i],
            "exemplars": [labelled_row(4 * j + 3 * i, first=30) for j in range(3)],
        }
        for i in range(2)
    ]
    (folder / "targets.jsonl").write_text("\n".join(map(json.dumps, targets)))
    return folder


@pytest.fixture
def run(
    data: Path, tiny_model_dir: Path, tiny_sae_dir: Path, capsys: pytest.CaptureFixture[str]
) -> Report:
    def report(state: Path, *more: str) -> dict[str, Any]:
        arguments = ["--pool", data / "pool.parquet", "--targets", data / "targets.jsonl"]
        arguments += ["--subpool", data / "subpool.txt", "--state", state, "--unit-rows", "5"]
        arguments += ["--model", tiny_model_dir, "--sae", tiny_sae_dir, "--dtype", "float32"]
        demo_model.main([*map(str, arguments), *more])
        result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return result

    return report


def test_figures_are_the_definition_on_all_rows_and_on_unseen_ones(data: Path) -> None:
    pool = read_bench_pool(data / "pool.parquet", data / "subpool.txt")
    targets = read_labelled_targets(data / "targets.jsonl")
    rows = np.flatnonzero(np.arange(N_ROWS) % 5 > 0)
    by_id = rows[np.argsort(pool.labelled.ids[rows])]
    assert pool.in_subpool.sum() == N_SMALL
    assert 0 < pool.trained[rows].sum() < len(rows)
    scores = np.random.default_rng(0).integers(0, 5, (len(targets), N_ROWS)) / 4.0
    found = Judge(pool, rows, targets).figures(scores[:, rows])
    for number, target in enumerate(targets):
        grades = pool.labelled.grades(target)
        unseen = np.where(pool.trained, -1, grades)
        for values, wanted in ((found.all_rows, grades), (found.unseen, unseen)):
            slow = slow_ndcg(scores[number, by_id].tolist(), wanted[by_id].tolist(), 1000)
            assert values[number] == pytest.approx(slow)
    nothing_left = read_labelled_targets(data / "targets.jsonl")[0]
    only = np.flatnonzero(pool.labelled.grades(nothing_left) == 0)
    assert Judge(pool, only, [nothing_left]).figures(np.zeros((1, len(only)))).all_rows == [0.0]


def test_tfidf_is_its_definition() -> None:
    vocabulary, counts = vocabulary_of(["red cat", "red dog", ""])
    exemplars = count_known(["red cat cat zebra", "dog"], vocabulary)
    idf = {word: math.log(4 / (1 + df)) + 1 for word, df in {"red": 2, "cat": 1, "dog": 1}.items()}

    def unit(count: dict[str, int]) -> NDArray[np.float64]:
        row = np.array([count.get(word, 0) * idf[word] for word in vocabulary])
        return row / max(np.linalg.norm(row), 1e-12)

    centroid = (unit({"red": 1, "cat": 2}) + unit({"dog": 1})) / 2
    rows = [unit({"red": 1, "cat": 1}), unit({"red": 1, "dog": 1}), unit({})]
    expected = [row @ centroid / np.linalg.norm(centroid) for row in rows]
    assert tfidf_centroid(counts, [exemplars])[0] == pytest.approx(expected)


def test_bm25_is_the_main_jobs() -> None:
    texts = [" ".join(arithmetic(i)) for i in range(9)] + [" ".join(code(i)) for i in range(9)]
    queries = [" ".join(arithmetic(40)), "function function of apples"]
    vocabulary, counts = vocabulary_of(texts)
    lengths = np.array([len(words(text)) for text in texts], np.float64)
    found = bm25_mean(counts, lengths, [count_known(queries, vocabulary)])
    expected, _ = bm25_of_sets(texts, queries, [np.arange(2)])
    assert found[0] == pytest.approx(expected[:, 0])


def test_units_hold_the_subpool_first_and_never_both() -> None:
    inside = np.random.default_rng(0).random(50) < 0.3
    units, n_small = work_units(inside, 4)
    assert sorted(np.concatenate(units)) == list(range(50))
    assert np.concatenate(units[:n_small]).tolist() == np.flatnonzero(inside).tolist()
    assert max(map(len, units)) == 4


def test_intervals_are_paired_and_losses_are_named() -> None:
    figures = {
        "dense mean": Figures([0.5, 0.2, 0.9], [0.0] * 3),
        "TF-IDF centroid": Figures([0.4, 0.3, 0.8], [0.0] * 3),
    }
    found = differences(figures, ["a", "b", "c"], ["T1", "T2", "T1"])
    gap = found["dense mean - TF-IDF centroid"]
    assert gap["lost"] == {"b": -0.1}
    # Both T1 targets win by 0.1, so no resample of them can differ.
    assert gap["T1"] == {"mean": 0.1, "lo": 0.1, "hi": 0.1}
    assert gap["all"]["lo"] < gap["all"]["mean"] < gap["all"]["hi"]


def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, run: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--setting", "instance", "--only-trained")
    whole = run(tmp_path / "whole", *options)
    save = SampleVectors.save
    saved: list[Path] = []

    def kill(vectors: SampleVectors, path: Path) -> None:
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(path)
        save(vectors, path)

    monkeypatch.setattr(SampleVectors, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", *options)
    monkeypatch.setattr(SampleVectors, "save", save)
    before = {path: path.stat().st_mtime_ns for path in saved}
    assert run(tmp_path / "killed", *options) == whole
    assert {path: path.stat().st_mtime_ns for path in saved} == before
    for path in sorted((tmp_path / "whole").rglob("*.npz")):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()


def test_the_subpool_is_part_of_the_pools_files(tmp_path: Path, run: Report) -> None:
    options = ("--setting", "instance", "--only-trained")
    small = run(tmp_path, "--rows", "subpool", *options)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert "pool" not in small
    both = run(tmp_path, *options)
    assert both["subpool"] == small["subpool"]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert both["pool"]["n_rows"] == N_ROWS
    assert small["subpool"]["n_rows"] == N_SMALL


def test_vectors_are_those_of_the_main_job(
    tmp_path: Path, run: Report, data: Path, tiny_model_dir: Path, tiny_sae_dir: Path
) -> None:
    run(tmp_path, "--setting", "full", "--only-trained", "--rows", "subpool")
    small = read_labelled_pool(data / "pool.parquet", data / "subpool.txt")
    renderer = load_renderer(tiny_model_dir, max_length=256)
    turns = small.turns("full", 0, 5)
    samples = renderer.render_batch([(as_messages(pair), None) for pair in turns])
    hookpoint = Hookpoint("resid", BLOCK)
    model = load_activation_model(resolve_model(tiny_model_dir), hookpoint, dtype="float32")
    (folder,) = tmp_path.glob("pass-*")
    units = json.loads((folder / "units.json").read_text())
    means = load_block(folder / "unit-00000.npz", BLOCK)
    for i, sample in enumerate(samples):
        states = model.hidden([sample.tokens])[0].numpy()
        slow = np.mean([states[t] for t in np.flatnonzero(sample.counted)], axis=0)
        assert means[i] == pytest.approx(slow, abs=2e-3, rel=2e-3)  # stored in half precision
    for how in ("mean", "max"):
        expected, _ = represent(
            samples,
            model,
            load_sae(tiny_sae_dir),
            token_aggregate=how,
            unit=units[how],
            keep_top=None,
            tokens_per_batch=8192,
        )
        found = to_dense(load_rows(folder / "unit-00000.npz", how))
        assert np.abs(found.astype(int) - to_dense(expected).astype(int)).max() <= 1


def test_sae_figures_are_exact_jaccard_with_idf_of_the_judged_rows(
    tmp_path: Path, run: Report, data: Path
) -> None:
    result = run(tmp_path, "--setting", "instance", "--only-trained", "--rows", "subpool")
    (folder,) = tmp_path.glob("pass-*")
    files = sorted(folder.glob("unit-*.npz"))
    parts = [to_dense(load_rows(path, "max")) for path in files]
    rows = [_as_dict(row) for row in np.concatenate(parts)]
    exemplars = [_as_dict(row) for row in to_dense(load_rows(folder / "exemplars.npz", "max"))]
    small = read_labelled_pool(data / "pool.parquet", data / "subpool.txt")
    n = sum(bool(row) for row in rows)
    weights = {f: oracles.idf_weight(sum(f in row for row in rows), n) for f in range(64)}
    for number, target in enumerate(read_labelled_targets(data / "targets.jsonl")):
        own = exemplars[3 * number : 3 * number + 3]
        scores = [
            float(np.mean([oracles.generalized_jaccard(row, e, weights) for e in own]))
            for row in rows
        ]
        grades = small.grades(target)
        method = result["subpool"]["instance"]["methods"][sae_name("max", "mean", "idf")]
        by_id = small.id_order.tolist()
        expected = slow_ndcg([scores[i] for i in by_id], grades[by_id].tolist(), 1000)
        assert method["targets"][target.name] == pytest.approx(expected, abs=1e-3)


def _as_dict(row: NDArray[np.uint16]) -> dict[int, int]:
    return {int(f): int(row[f]) for f in np.flatnonzero(row)}


def test_random_weights_are_read_without_the_sae(
    tmp_path: Path, run: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "SEED", 1)  # the tiny model itself was drawn with seed 0
    result = run(tmp_path, "--setting", "instance", "--rows", "subpool")
    methods = result["subpool"]["instance"]["methods"]
    assert {"random weights", "random weights, block 3", "dense mean, block 0"} <= set(methods)
    assert not any(name.startswith("random weights, SAE") for name in methods)
    assert methods["dense mean"] == methods[f"dense mean, block {BLOCK}"]
    assert methods["random weights"] != methods["dense mean"]
    assert result["hookpoint"] == f"resid@{TINY_HOOKPOINT.split('.')[1]}"
    assert torch.get_num_threads() == 1


def test_an_impossible_hookpoint_is_refused_before_any_pass(tmp_path: Path, run: Report) -> None:
    with pytest.raises(Exception, match="4 blocks"):
        run(tmp_path, "--block", "9")
    assert not tmp_path.exists() or not list(tmp_path.rglob("*.npz"))
