"""Dictionaries side by side: a run of all of them on a tiny model, its page, its correlations."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.causal_lm import __main__ as causal_lm
from benchmarks.dictionaries import __main__ as dictionaries
from benchmarks.dictionaries.table import page, rank_correlation
from selection.sae.formats.load import load_sae
from tests.test_benchmark import labelled, target
from tests.tiny_model import write_jsonl

N_ROWS = 600
EXPECTED = {
    "TopK": ("topk", "resid@2"),
    "BatchTopK": ("jumprelu", "resid@2"),
    "Matryoshka": ("jumprelu", "resid@2"),
    "Codebook": ("codebook", "resid@2"),
    "Attention heads, TopK": ("topk", "heads@2"),
    "Vocabulary": ("topk", "resid@2"),
    "Matching pursuit": ("matching_pursuit", "resid@2"),
    "Semi-NMF of MLP units": ("seminmf", "mlp_hidden@2"),
}


class _NoLoss:
    """The tiny model's text is random: no loss can be recovered on it."""

    def as_record(self) -> dict[str, float]:
        return {}


def run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    sizes = {"latents": 64, "k": 4, "tokens": 20_000, "train-tokens": 8_000, "threads": 1}
    files = {"pool": "pool.parquet", "targets": "targets.jsonl", "subpool": "ids.txt"}
    places = {name: str(folder / file) for name, file in files.items()}
    more = {"workspace": folder / "w", "page": folder / "page.md", "setting": "full"}
    named = {**sizes, **places, **more, "model": model, "name": "tiny"}
    given = [part for name, value in named.items() for part in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["dictionaries", *given])
    dictionaries.main()
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1])["tiny"])


def test_all_of_them_are_trained_measured_and_ranked_once(
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [labelled(i) for i in np.random.default_rng(0).permutation(N_ROWS).tolist()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    (tmp_path / "ids.txt").write_text("".join(f"{row['id']}\n" for row in rows[:60]))
    targets = [
        target("arithmetic", ["arithmetic"], "arithmetic", [900, 904, 908]),
        target("code", ["code"], "code", [902, 906]),
        target("moods", ["elsewhere"], "words", [903, 907, 911]),
    ]
    write_jsonl(tmp_path / "targets.jsonl", targets)
    monkeypatch.setattr(dictionaries, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(causal_lm, "spliced_loss", lambda *given, **named: _NoLoss())
    first = run(monkeypatch, tmp_path, tiny_model_dir, capsys)
    found = {}
    for name, of in first["dictionaries"].items():
        each = next(each for each in dictionaries.DICTIONARIES if each.name == name)
        folder = tmp_path / "w" / "dictionaries" / f"{each.architecture}-{each.site}-64-4"
        info = load_sae(folder / "block2").info
        found[name] = (info.activation, of["hookpoint"])
        assert set(of["quality"]) == {"arithmetic", "code", "moods"}
        assert ("fvu" in of) == (name != "Vocabulary")
    assert found == EXPECTED
    joined = first["ndcg"]["full"]["joined"]
    assert set(joined) == {*EXPECTED, "TopK, weights `target_unique`"}
    assert all(0 <= value <= 1 for of in joined.values() for value in of.values())
    text = (tmp_path / "page.md").read_text()
    mean = np.mean(list(first["ndcg"]["full"]["alone"]["Codebook"].values()))
    (line,) = (
        line for line in text.splitlines() if line.startswith("| Codebook | 0") and "[" in line
    )
    assert line.split(" | ")[3] == f"{mean:.3f}"
    # What is there is read: nothing is trained or measured again.
    monkeypatch.setattr(dictionaries, "figures", None)
    monkeypatch.setattr(causal_lm, "train_sae", None)
    assert run(monkeypatch, tmp_path, tiny_model_dir, capsys) == first
    assert json.loads((tmp_path / "results.json").read_text()) == {"tiny": first}
    assert page({"tiny": first}) == text


def test_rank_correlation_is_that_of_ranks_counted_by_hand() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((6, 10)), rng.random((6, 10))
    means = [each.mean(1) for each in (a, b)]
    ranks = [[sum(other < one for other in each) for one in each] for each in means]
    n, squares = 6, sum((x - y) ** 2 for x, y in zip(*ranks, strict=True))
    rho, lo, hi = rank_correlation(a, b)
    assert rho == pytest.approx(1 - 6 * squares / (n * (n * n - 1)))
    assert -1 <= lo <= hi <= 1
    assert lo < hi
    assert rank_correlation(a, a * 2 + 1) == (1.0, 1.0, 1.0)
    assert rank_correlation(a, -a)[0] == -1.0
