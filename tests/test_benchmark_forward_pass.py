"""What the benchmark's pass reads of a model, against transformers' own hidden states."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM

from flows.benchmark.methods import find_methods
from flows.benchmark.scorers import Scorers
from flows.benchmark.setting import BenchPool
from flows.config.data import UnderTest
from selection.evaluation.labelled import read_labelled_pool, read_labelled_targets
from storage.files.workspace import open_workspace
from tests.test_benchmark import labelled, target
from tests.tiny_model import write_jsonl


def test_the_last_states_are_those_of_transformers_over_all_tokens(
    tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    """RDS and RDS+ by their definition: hidden_states[-1], after the final norm."""
    given = UnderTest(model=str(tiny_model_dir), sae=str(tiny_sae_dir), hookpoint="resid@2")
    pq.write_table(pa.Table.from_pylist([labelled(i) for i in range(20)]), tmp_path / "p.parquet")
    lines = [target("arithmetic", ["arithmetic"], "arithmetic", [400, 404])]
    pool = read_labelled_pool(tmp_path / "p.parquet")
    targets = read_labelled_targets(write_jsonl(tmp_path / "targets.jsonl", lines))
    bench = BenchPool(pool, targets, "full", open_workspace(tmp_path / "w"), given)
    reading = Scorers(bench, find_methods(("rds", "best"), given)).reading
    samples = reading.rendered.samples(np.arange(bench.prepared.n_examples))
    dense, _ = reading.read(samples)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    for row, sample in enumerate(samples):
        assert not sample.content_mask.all()
        with torch.no_grad():
            ids = torch.from_numpy(sample.tokens.astype(np.int64))[None]
            states = model(ids, output_hidden_states=True).hidden_states
        weights = np.arange(1, len(sample.tokens) + 1)
        for name, expected in {
            "last/mean": states[-1][0].mean(0).numpy(),
            "last/position": np.average(states[-1][0].numpy(), axis=0, weights=weights),
            "sae/mean": states[3][0][torch.from_numpy(sample.content_mask)].mean(0).numpy(),
        }.items():
            np.testing.assert_allclose(dense[name][row], expected, rtol=1e-3, atol=1e-4)
