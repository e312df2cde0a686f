"""`train-sae` and `describe` on eight architectures: stopped, resumed, read by both libraries.

What is written is compared with the definitions of sparsify and SAELens in plain numpy, and with
the libraries themselves where they are installed (`pip install -e '.[oracles]'`).
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from flows.config.jobs import VectorJob
from flows.stages.describe import describe_latents
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import render
from flows.stages.represent.sae import ensure_sae
from flows.stages.session import session_of
from selection.core.errors import InputError
from selection.sae.encode import encode, reconstruct
from selection.sae.formats.load import load_sae
from selection.sae.training import batches
from selection.sae.training.batches import token_batches
from selection.sae.training.train import train_sae
from storage.files.workspace import Workspace, open_workspace
from tests.test_activations_run_plan import SIZES
from tests.test_cli_describe import job
from tests.test_sae_nonnegative import by_loops

TRAIN: dict[str, Any] = {"num_latents": 64, "k": 4, "tokens": 2048, "batch_tokens": 256,
                         "learning_rate": 0.01}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": ("resid@1", {}, {"n_embd": 32, "n_layer": 4, "n_head": 4}),
    "gemma2": ("mlp_module@1", {"architecture": "batchtopk"}, {}),
    "olmo2": ("attn@1", {"architecture": "matryoshka", "widths": (16, 64)}, {}),
    "qwen3": ("heads@1", {"architecture": "batchtopk", "k_start": 8, "k_anneal_share": 0.5}, {}),
    "gpt_neox": ("mlp_in@1", {}, {}),
    "qwen2": ("mlp_hidden@1", {"architecture": "seminmf", "learning_rate": None}, {}),
    "llama": ("resid@1", {"architecture": "codebook", "groups": 2}, {}),
    "mamba": ("resid@2", {"architecture": "matryoshka"}, {"state_size": 8}),
}
"""Architecture -> hookpoint, kind of SAE, further sizes of the model."""
HOOKS = {"resid@1": "blocks.1.hook_resid_post", "resid@2": "blocks.2.hook_resid_post",
         "mlp_module@1": "layers.1.mlp", "attn@1": "blocks.1.hook_attn_out",
         "heads@1": "blocks.1.attn.hook_z", "mlp_in@1": "blocks.1.mlp.hook_in",
         "mlp_hidden@1": "blocks.1.mlp.hook_post"}  # fmt: skip


def write_model(kind: str, sizes: dict[str, Any], tokenizer: Path, folder: Path) -> Path:
    """A random model of the kind with the tiny model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    n_vocab = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": n_vocab, **sizes})
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors", "config*"))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def train(config: VectorJob, workspace: Workspace) -> Path:
    """The folder of the trained SAE."""
    session = session_of(config, workspace)
    pool = prepare(config, workspace)
    render(workspace, pool, session.model_input)
    return Path(ensure_sae(session, pool.pool_id))


def by_definition(folder: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense latents as the library whose files these are computes them."""
    config = json.loads((folder / "cfg.json").read_text())
    if "architecture" in config:  # SAELens
        w = load_file(folder / "sae_weights.safetensors")
        x = x - w["b_dec"] if config["apply_b_dec_to_input"] else x
        if config["architecture"] == "seminmf":
            parts = w["W_dec"].astype(np.float64)
            return np.array([by_loops(row, parts, config["k"]) for row in x.astype(np.float64)])
        pre = x @ w["W_enc"] + w["b_enc"]
        if config["architecture"] == "codebook":
            n = config["groups"]
            order = np.argsort(-pre.reshape(len(x), n, -1), axis=2).argsort(axis=2)
            return np.where(order < config["k"] // n, 1.0, 0.0).reshape(pre.shape)
        if config["architecture"] == "jumprelu":
            return np.where(pre > w["threshold"], np.maximum(pre, 0), 0)
    else:
        w = load_file(folder / "sae.safetensors")
        pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    pre = np.maximum(pre, 0)
    kept = np.argsort(-pre, axis=1)[:, : config["k"]]
    latents = np.zeros_like(pre)
    np.put_along_axis(latents, kept, np.take_along_axis(pre, kept, 1), 1)
    return latents


def by_library(folder: Path, x: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The same by the library; None where that is not installed."""
    config = json.loads((folder / "cfg.json").read_text())
    is_saelens = "architecture" in config
    if config.get("architecture") in ("seminmf", "codebook"):
        return None  # no library reads it
    try:
        if is_saelens:
            import sae_lens
        else:
            import sparsify
    except ImportError:
        return None
    with torch.no_grad():
        if is_saelens:
            latents: Any = sae_lens.SAE.load_from_disk(folder).encode(torch.from_numpy(x))
            return np.asarray(latents)
        loaded = sparsify.SparseCoder.load_from_disk(folder)
        found = loaded.encode(torch.from_numpy(x))
        dense = torch.zeros(len(x), loaded.num_latents)
        return np.asarray(dense.scatter_add_(1, found.top_indices, found.top_acts))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(CASES))
def test_an_sae_is_trained_resumed_described_and_read_by_both_libraries(
    kind: str,
    tiny_pool_path: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hookpoint, more, sizes = CASES[kind]
    model = write_model(kind, sizes, tiny_model_dir, tmp_path / "model")
    config = job(tiny_pool_path, model, {"train": {**TRAIN, **more}})
    config["model"]["hookpoint"] = hookpoint
    config["compute"]["threads"] = 1
    given = VectorJob.model_validate(config)
    whole = train(given, open_workspace(tmp_path / "whole"))

    real_batches, real_train = token_batches, train_sae
    skipped: list[int] = []

    def stopping(*arguments: Any) -> Iterator[torch.Tensor]:
        skipped.append(arguments[-1])
        for number, batch in enumerate(real_batches(*arguments)):
            if number == 5 and len(skipped) == 1:
                raise KeyboardInterrupt
            yield batch

    def often(*arguments: Any, **named: Any) -> Any:
        return real_train(*arguments, **named, checkpoint_every=2)

    monkeypatch.setattr(batches, "token_batches", stopping)
    monkeypatch.setattr(batches, "train_sae", often)
    workspace = open_workspace(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train(given, workspace)
    with pytest.raises(InputError, match="not trained yet"):
        describe_latents(given, workspace, 20)
    folder = train(given, workspace)
    assert skipped == [0, 4]
    coder = load_sae(folder)
    assert coder.info.sha256 == load_sae(whole).info.sha256
    assert not list(workspace.saes.rglob("training.pt"))

    x = np.random.default_rng(0).normal(size=(40, coder.info.d_in)).astype(np.float32)
    found = encode(coder, torch.from_numpy(x))
    dense = torch.zeros(40, 64).scatter_add_(1, found.top_indices, found.top_acts).numpy()
    copies = [folder, folder.parent / "saelens" / folder.name]
    copies = [copy for copy in copies if copy.is_dir()]
    assert len(copies) == (2 if coder.info.activation == "topk" else 1)
    for copy in copies:
        again = load_sae(copy)
        assert again.info.sha256 == coder.info.sha256
        assert again.info.hookpoint == coder.info.hookpoint
        near = 1e-2 if coder.info.activation == "seminmf" else 1e-5  # passes in another order
        np.testing.assert_allclose(dense, by_definition(copy, x), rtol=1e-4, atol=near)
        theirs = by_library(copy, x)
        if theirs is not None:
            np.testing.assert_allclose(dense, theirs, rtol=1e-4, atol=1e-5)
    lens = json.loads((copies[-1] / "cfg.json").read_text())
    assert lens["metadata"]["hook_name"] == HOOKS[hookpoint]
    assert torch.isfinite(reconstruct(coder, found, torch.from_numpy(x))).all()

    file = describe_latents(given, workspace, 20)
    rows = pq.read_table(file).to_pylist()
    assert 0 < len(rows) <= 64
    assert all(row["description"] for row in rows)
    for row in rows:
        of_heads = hookpoint.startswith("heads")
        assert ("; pre-activation " in row["description"]) == of_heads
        assert (row["heads"] is not None) == (row["bias_share"] is not None) == of_heads
