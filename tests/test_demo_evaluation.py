"""Scores of the demo model's evaluation against slow definitions, and its SAE's rounding."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from scipy import sparse

from benchmarks.demo_training.build_demo_sae import as_half, save_half
from benchmarks.demo_training.card import evaluation_text
from benchmarks.demo_training.ranking_score import centroid_cosine, ndcg, relevance, tfidf
from selection.sae.formats import load_sae, make_coder
from selection.sae.info import SaeInfo


def slow_ndcg(scores: list[float], grades: list[int], cutoff: int) -> float:
    judged = [(s, g) for s, g in zip(scores, grades, strict=True) if g >= 0]
    ranked = [g for _, g in sorted(judged, key=lambda pair: -pair[0])][:cutoff]
    ideal = sorted((g for _, g in judged), reverse=True)[:cutoff]

    def dcg(chosen: list[int]) -> float:
        return sum((2**g - 1) / math.log2(i + 2) for i, g in enumerate(chosen))

    return dcg(ranked) / dcg(ideal) if dcg(ideal) else 0.0


@pytest.mark.parametrize("cutoff", [3, 10, 1000])
def test_ndcg_agrees_with_its_definition(cutoff: int) -> None:
    rng = np.random.default_rng(cutoff)
    for _ in range(20):
        scores = rng.integers(0, 5, 40) / 4.0
        grades = rng.integers(-1, 4, 40)
        expected = slow_ndcg(scores.tolist(), grades.tolist(), cutoff)
        assert ndcg(scores, grades, cutoff) == pytest.approx(expected)
    assert ndcg(np.zeros(3), np.array([-1, 0, 0])) == 0.0


def test_relevance_grades() -> None:
    target = {"category": "math", "tasks": ["sum"], "families": ["school"]}
    columns = ["task", "family", "category", "label_quality"]
    rows = [
        ("sum", "other", "math", "weak"),
        ("minus", "school", "math", "weak"),
        ("minus", "school", "math", "gold"),
        ("minus", "other", "math", "gold"),
        ("minus", "school", "poetry", "gold"),
    ]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    assert relevance(frame, target).tolist() == [3, -1, 2, 1, 0]


def test_tfidf_rows_have_unit_length_and_idf_of_the_fitted_rows() -> None:
    matrix = tfidf(["red cat", "red dog", "red bird zebra"], n_fit=2).toarray()
    rare, common = math.log(3 / 2) + 1, math.log(3 / 3) + 1
    length = math.hypot(rare, common)
    assert matrix[0] == pytest.approx([common / length, rare / length, 0.0])
    assert matrix[2] == pytest.approx([1.0, 0.0, 0.0])  # words that were not fitted are unknown


def test_cosine_is_the_same_for_dense_and_sparse_rows() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((6, 4)) * (rng.random((6, 4)) > 0.3)
    dense[5] = 0.0
    got = centroid_cosine(dense, dense[:2])
    centroid = dense[:2].mean(0)
    for row in range(5):
        norms = np.linalg.norm(dense[row]) * np.linalg.norm(centroid)
        assert got[row] == pytest.approx(dense[row] @ centroid / norms)
    assert got[5] == 0.0
    rows = sparse.csr_matrix(dense)
    assert centroid_cosine(rows, rows[:2]) == pytest.approx(got)


def test_a_coder_saved_in_fp16_loads_with_the_same_weights_and_hash(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    info = SaeInfo("", "layers.1", 4, 8, 2, "topk", "demo", None)
    shapes = [(8, 4), (8,), (8, 4), (4,)]
    coder = as_half(
        make_coder(*(torch.randn(shape, generator=generator) for shape in shapes), info=info)
    )
    save_half(coder, tmp_path / "layers.1", {"quality": {"fvu": 0.5}})
    loaded = load_sae(tmp_path / "layers.1")
    assert loaded.info.sha256 == coder.info.sha256
    assert torch.equal(loaded.encoder_weight, coder.encoder_weight)
    assert loaded.info.record["quality"] == {"fvu": 0.5}
    tensors = load_file(tmp_path / "layers.1" / "sae.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_the_card_marks_the_hookpoint_and_says_when_nothing_was_measured(tmp_path: Path) -> None:
    figures = {"T1": 0.5, "T1 unseen": 0.4, "T2": 0.25, "T2 unseen": 0.125}
    summary = {
        "n_rows": 1000,
        "n_trained": 10,
        "n_targets": {"T1": 20, "T2": 6},
        "results": {"TF-IDF": figures, "trained, block 4": figures},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(summary))
    text = evaluation_text(tmp_path / "evaluation.json", block=4)
    assert "| TF-IDF | 0.500 | 0.400 | 0.250 | 0.125 |" in text
    assert "| **trained, block 4** | **0.500** |" in text
    assert "Not measured yet" in evaluation_text(None, block=4)
