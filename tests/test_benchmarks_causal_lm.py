"""The real model under test: activations kept once, and SAEs trained on them."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.causal_lm import __main__ as causal_lm
from benchmarks.causal_lm.activations import KeptActivations, samples_of
from selection.core.errors import InputError
from selection.evaluation.labelled import read_labelled_pool
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model
from selection.rendering.renderer import renderer_for
from selection.sae.formats.load import load_sae
from selection.sae.quality import measure
from selection.sae.training.train import train_sae

N_ROWS = 600
BLOCKS = (Hookpoint("resid", 0), Hookpoint("resid", 2))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(50)]
    text = [" ".join(rng.choice(words, 6)) for _ in range(N_ROWS)]
    labels = dict.fromkeys(("task", "family", "category", "label_quality"), ["x"] * N_ROWS)
    columns = {"id": [f"r{i}" for i in range(N_ROWS)], "instruction": text, "output": text[::-1]}
    file = tmp_path_factory.mktemp("pool") / "pool.parquet"
    pq.write_table(pa.table({**columns, "input": [""] * N_ROWS, **labels}), file)
    return file


def run(monkeypatch: pytest.MonkeyPatch, model: Path, pool: Path, workspace: Path) -> None:
    given = ["--model", model, "--pool", pool, "--workspace", workspace, "--blocks", 0, 2]
    more = ["--tokens", 20_000, "--train-tokens", 20_000, "--max-length", 64, "--dtype", "float32"]
    saes = ["--sae", "topk:64:4", "batchtopk:64:4"]
    monkeypatch.setattr(sys, "argv", ["causal_lm", *map(str, [*given, *more, *saes])])
    causal_lm.main()


def test_kept_activations_are_the_models_and_a_second_run_goes_on(
    tiny_model_dir: Path,
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(causal_lm, "_batches", lambda samples: iter(()))
    monkeypatch.setattr(causal_lm, "spliced_loss", lambda *given, **named: _NoLoss())
    run(monkeypatch, tiny_model_dir, pool, tmp_path)
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(first) == {f"{a}-64-4/layers.{b}" for a in ("topk", "batchtopk") for b in (0, 2)}
    kept = KeptActivations(tmp_path / "activations", BLOCKS)
    resolved = resolve_model(str(tiny_model_dir))
    samples = samples_of(read_labelled_pool(pool), renderer_for(resolved, max_length=64), 0)
    whole = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    expected = []
    with torch.no_grad():
        for sample in samples:
            ids = torch.from_numpy(sample.tokens.astype(np.int64))[None]
            states = whole.model(ids, output_hidden_states=True).hidden_states
            expected.append(states[1][0][torch.from_numpy(sample.content_mask)])
    (stored,) = (c for i, c in enumerate(kept.chunks(BLOCKS[0], held_out=True)) if i == 0)
    mine = torch.cat(expected)
    order = [np.lexsort(each.numpy().T.round(3)) for each in (stored, mine)]
    torch.testing.assert_close(stored[order[0]], mine[order[1]], rtol=1e-3, atol=1e-4)
    coder = load_sae(tmp_path / "saes" / "topk-64-4" / "layers.2")
    quality = measure(coder, kept.chunks(BLOCKS[1], held_out=True))
    assert first["topk-64-4/layers.2"]["fvu"] == round(quality.fvu or 0.0, 4)
    assert first["topk-64-4/layers.2"]["l0"] == 4.0
    # Each is trained on its own activations, whatever was trained before it.
    settings = causal_lm.settings_of("topk:64:4", 20_000)
    alone, _ = train_sae(kept.batches(BLOCKS[1], settings.batch_tokens, settings.seed), settings)
    torch.testing.assert_close(coder.encoder_weight, alone.encoder_weight)
    lost = kept.file(1, BLOCKS[1])
    before = lost.read_bytes()
    lost.unlink()
    (tmp_path / "saes.json").unlink()
    run(monkeypatch, tiny_model_dir, pool, tmp_path)
    assert lost.read_bytes() == before
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first


class _NoLoss:
    """The tiny model's text is random: no loss can be recovered on it."""

    def as_record(self) -> dict[str, float]:
        return {}


def test_batches_for_training_hold_every_token_of_the_training_chunks_once_an_epoch(
    tmp_path: Path,
) -> None:
    kept = KeptActivations(tmp_path, BLOCKS[:1])
    with pytest.raises(InputError, match="no activations are kept"):
        next(kept.batches(BLOCKS[0], 4, seed=3))
    for number, n in enumerate((5, 7, 9, 4)):
        part = np.full((n, 3), number, np.float32)
        part[:, 1] = np.arange(n)
        kept.write(number, [part])
    assert kept.numbers(held_out=True) == [0]
    batches = kept.batches(BLOCKS[0], 4, seed=3)
    epoch = torch.cat([next(batches) for _ in range(5)])  # 20 tokens: all of chunks 1 to 3
    pairs = sorted((int(row[0]), int(row[1])) for row in epoch)
    assert pairs == [(number, i) for number, n in ((1, 7), (2, 9), (3, 4)) for i in range(n)]
    again = kept.batches(BLOCKS[0], 4, seed=3)
    torch.testing.assert_close(torch.cat([next(again) for _ in range(5)]), epoch)
