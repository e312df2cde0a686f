"""The demo model's card, its tried recipes, its SAE's rounding and the loss that it recovers."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from benchmarks.demo.build_demo_sae import as_half, save_half
from benchmarks.demo.card import evaluation_text, sae_text
from benchmarks.demo.loss_recovered import TokenBatch, spliced_loss
from benchmarks.demo.tried_recipes import read_recipes, recipes_text
from selection.core.errors import InputError
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import decode, encode
from selection.sae.formats.load import load_sae
from selection.sae.metadata import SaeInfo


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
    columns = ("T1", "T2", "all", "T1 unseen", "T2 unseen")
    figures = {column: {"mean": 0.5 + i / 100} for i, column in enumerate(columns)}
    gap = {kind: {"mean": 0.1, "lo": -0.2, "hi": 0.3} for kind in ("T1", "T2", "all")}
    setting = {
        "methods": {"TF-IDF centroid": figures, "dense mean, block 4": figures},
        "differences": {"a - b": {**gap, "lost": {"copa": -0.1}}, "b - c": {**gap, "lost": {}}},
    }
    summary = {
        "n_targets": {"T1": 20, "T2": 6},
        "settings": {"dtype": "bfloat16", "max_tokens": 256},
        "subpool": {"n_rows": 10_000, "instance": setting},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(summary))
    text = evaluation_text(tmp_path / "evaluation.json", block=4)
    assert "| TF-IDF centroid | 0.500 | 0.510 | 0.520 | 0.530 | 0.540 |\n" in text
    assert "| **dense mean, block 4** | **0.500** |" in text
    assert "|\n\n- a - b: T1 +0.100 [-0.200, +0.300];" in text
    assert "loses copa\n- b - c:" in text
    assert "takes in 10% of the rows" in text
    assert "whole pool" not in text
    assert "Not measured yet" in evaluation_text(None, block=4)


def test_the_card_states_the_loss_recovered_where_it_was_measured(tmp_path: Path) -> None:
    settings = {"num_latents": 8, "k": 2}
    quality = {"held_out_tokens": 10.0, "fvu": 0.2, "l0": 2.0, "dead_share": 0.0}
    spliced = {"ce_original": 2.0, "ce_sae": 2.5, "ce_ablated": 7.0, "ce_loss_score": 0.9}
    folder = tmp_path / "layers.1"
    folder.mkdir()
    for measured, shown in ((quality, False), ({**quality, **spliced}, True)):
        record = {"training": {"settings": settings, "n_tokens": 100}, "quality": measured}
        (folder / "saelect.json").write_text(json.dumps(record))
        assert ("90.0% of the loss is recovered" in sae_text(tmp_path, 1)) is shown


def test_loss_recovered_is_its_definition(tiny_model_dir: Path, tiny_sae_dir: Path) -> None:
    """Sample by sample, with the replaced states computed by hand, and block by block."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    coder, block = load_sae(tiny_sae_dir), 2
    rng = np.random.default_rng(0)
    rows = [_spoken(model, start, n) for start, n in ((5, 9), (77, 6), (210, 3))]
    counted = [rng.random(len(row)) < 0.7 for row in rows]
    width = max(map(len, rows))
    padded = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
    marks = np.stack([np.pad(mark, (0, width - len(mark))) for mark in counted])
    real = np.arange(width) < np.array([[len(row)] for row in rows])
    tensors = [torch.from_numpy(array) for array in (padded, real, marks)]
    found = spliced_loss(model, model.model.layers[block], coder, [TokenBatch(*tensors)])
    sums, n = np.zeros(3), 0
    for row, mark in zip(rows, counted, strict=True):
        for way in range(3):
            logits = _logits(model, torch.from_numpy(row)[None], mark, block, coder, way)
            logs = torch.log_softmax(logits[0].double(), dim=-1)
            places = [t for t in range(len(row) - 1) if mark[t]]
            sums[way] -= sum(float(logs[t, row[t + 1]]) for t in places)
        n += len(places)
    original, spliced, ablated = sums / n
    assert found.n_predictions == n
    values = (found.ce_original, found.ce_sae, found.ce_ablated)
    assert values == pytest.approx((original, spliced, ablated), rel=1e-4)
    expected = (ablated - spliced) / (ablated - original)
    assert found.ce_loss_score == pytest.approx(expected, rel=1e-2)


def test_loss_at_the_input_of_a_part_is_that_at_the_output_before_it(
    tiny_model_dir: Path, tiny_sae_dir: Path
) -> None:
    """Block 3 takes nothing but what block 2 gives."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    ids = torch.from_numpy(_spoken(model, 5, 12))[None]
    counted = torch.ones_like(ids, dtype=torch.bool)
    batches, coder = [TokenBatch(ids, counted, counted)], load_sae(tiny_sae_dir)
    after = spliced_loss(model, model.model.layers[2], coder, batches)
    before = spliced_loss(model, model.model.layers[3], coder, batches, of_input=True)
    assert before.as_record() == pytest.approx(after.as_record())
    assert before.ce_sae != before.ce_original


@torch.no_grad()
def _spoken(model: Any, start: int, n: int) -> NDArray[np.int64]:
    """N tokens, each the one that the model expects: text on which its activations matter."""
    ids = [start]
    while len(ids) < n:
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return np.array(ids, np.int64)


@torch.no_grad()
def _logits(
    model: Any, ids: torch.Tensor, mark: Any, block: int, coder: SparseCoder, way: int
) -> torch.Tensor:
    """Logits with the block's output left alone (0), reconstructed (1) or zeroed (2)."""
    states = model.model(ids, output_hidden_states=True, use_cache=False).hidden_states[block + 1]
    changed = states.clone()
    for t in np.flatnonzero(mark):
        x = states[0, t : t + 1]
        found = encode(coder, x)
        changed[0, t] = [x, decode(coder, found), torch.zeros_like(x)][way][0]
    later = model.model.layers[block + 1]
    handle = later.register_forward_pre_hook(lambda module, inputs: (changed, *inputs[1:]))
    logits: torch.Tensor = model(ids, use_cache=False).logits
    handle.remove()
    return logits


def test_recipes_are_read_in_order_and_shown_with_their_curves(tmp_path: Path) -> None:
    record = {
        "settings": {"n_layers": 2, "d_model": 8, "vocab_size": 1000},
        "parameters": 2_000_000,
        "tokens": 3_000_000,
        "minutes": 12.4,
        "tokens_per_second": 4000,
        "held_out_loss": 2.5,
        "bits_per_byte": 1.2,
        "curve": [[i, i * 1_000_000, i, 4.0 - i / 10] for i in range(1, 14)],
        "retrieval": {
            "results": {
                "trained, block 0": {"T1": 0.5, "T2": 0.9},
                "dense mean, block 1": {"T1": 0.75, "T2": 0.25},
                "random weights, block 1": {"T1": 1.0, "T2": 1.0},
            }
        },
        "remark": "Wins.",
    }
    (tmp_path / "b.json").write_text(json.dumps(record))
    worse = {**record, "bits_per_byte": 1.5, "remark": "", "retrieval": None}
    (tmp_path / "a.json").write_text(json.dumps(worse))
    recipes = read_recipes(tmp_path)
    assert [recipe.name for recipe in recipes] == ["b", "a"]
    text = recipes_text(recipes)
    assert "| b | 2 x 8, 1,000 tokens | 2.0 | 3.00 | 12 | 4,000 | 2.500 | 1.200 |" in text
    assert "0.750 / 0.250 (block 1) |" in text
    assert "13.0 M: 2.700 |" in text
    assert "- b: Wins." in text
    assert "- a" not in text
    assert recipes_text([]) == ""
    (tmp_path / "c.json").write_text(json.dumps({**record, "curve": []}))
    with pytest.raises(InputError, match="curve"):
        read_recipes(tmp_path)


def test_the_committed_recipes_are_whole() -> None:
    recipes = read_recipes()
    assert len(recipes) >= 3
    for recipe in recipes:
        steps = [point[0] for point in recipe.found["curve"]]
        assert steps == sorted(steps)
        bits = recipe.found["held_out_loss"] / math.log(2) / recipe.found["bytes_per_token"]
        assert bits == pytest.approx(recipe.found["bits_per_byte"], abs=2e-3)
