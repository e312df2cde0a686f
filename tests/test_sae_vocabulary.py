"""The vocabulary as a dictionary, against the models' own heads."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.sae.coder import SparseCoder, card
from selection.sae.encode import encode, prepared
from selection.sae.formats.load import load_sae
from selection.sae.interpret.latents_file import FILE, read_descriptions
from selection.sae.training.settings import TrainSettings
from selection.sae.vocabulary import vocabulary_coder
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config
from tests.test_activations_run_plan import SIZES

K = 5
KINDS: dict[str, dict[str, Any]] = {
    "llama": {}, "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4}, "gpt_neox": {}, "gemma2": {},
    "phi": {}, "granite": {"logits_scaling": 4.0}, "cohere": {}, "nemotron": {},
}  # fmt: skip
"""RMSNorm, LayerNorm with and without bias, weights that are 1 + w, a head with a bias, scales."""


def random_model(kind: str, sizes: dict[str, Any], folder: Path) -> Any:
    """A model whose norms, biases and states are not those of a new one; saved in the folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **sizes})
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3 + 0.1)
    model.save_pretrained(folder)
    return model.eval()


def resolved(folder: Path) -> ResolvedModel:
    return resolve_model(str(folder))


def states_and_logits(model: Any) -> tuple[Tensor, Tensor]:
    """Of some tokens: what leaves the last block, and what the head makes of it in the end."""
    seen: dict[str, Any] = {}
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    stack[-1].register_forward_hook(lambda *a: seen.update(x=a[2]))
    model.get_output_embeddings().register_forward_hook(lambda *a: seen.update(y=a[2]))
    with torch.no_grad():
        model(input_ids=torch.arange(3, 43)[None], use_cache=False)
    x = seen["x"][0] if isinstance(seen["x"], tuple) else seen["x"]
    return x[0], seen["y"][0]


def pre_activations(coder: SparseCoder, x: Tensor) -> Tensor:
    return prepared(coder, x) @ coder.encoder_weight.T + coder.encoder_bias


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_the_largest_logits_of_the_model_s_own_head(kind: str, tmp_path: Path) -> None:
    model = random_model(kind, KINDS[kind], tmp_path)
    x, logits = states_and_logits(model)
    coder = vocabulary_coder(resolved(tmp_path), Hookpoint("resid", 3), K)
    centered = logits - logits.mean(dim=1, keepdim=True)
    torch.testing.assert_close(pre_activations(coder, x), centered + 1, rtol=1e-3, atol=1e-2)
    found = encode(coder, x)
    for i, row in enumerate(centered.tolist()):
        largest = sorted(range(len(row)), key=lambda j, row=row: -row[j])[:K]  # type: ignore[misc]
        assert set(found.top_indices[i].tolist()) == set(largest)
        elu1p = sorted(row[j] + 1 if row[j] > 0 else np.exp(row[j]) for j in largest)
        assert sorted(found.top_acts[i].tolist()) == pytest.approx(elu1p, rel=1e-3, abs=1e-2)


def test_models_and_hookpoints_without_an_unembedding_are_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, BertForMaskedLM

    BertForMaskedLM(AutoConfig.for_model("bert", **SIZES)).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="an encoder has no unembedding"):
        vocabulary_coder(resolved(tmp_path / "bert"), Hookpoint("resid", 1), K)
    random_model("llama", {}, tmp_path / "llama")
    llama = resolved(tmp_path / "llama")
    with pytest.raises(InputError, match=r"resid@1"):
        vocabulary_coder(llama, Hookpoint("mlp", 1), K)
    with pytest.raises(InputError, match="96 tokens"):
        vocabulary_coder(llama, Hookpoint("resid", 1), 97)


def test_what_is_no_norm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    random_model("llama", {}, tmp_path)
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda _, x: torch.tanh(x))
    with pytest.raises(InputError, match="no known norm"):
        vocabulary_coder(resolved(tmp_path), Hookpoint("resid", 1), K)


def test_settings_of_a_training_are_not_for_it() -> None:
    given = TrainSettings(architecture="vocabulary", k=8)
    assert TrainSettings.model_validate(given.model_dump()) == given
    with pytest.raises(ValueError, match="`tokens` is not for it"):
        TrainSettings(architecture="vocabulary", tokens=5)


def test_a_run_ranks_by_the_vocabulary_and_names_its_tokens(
    tiny_pool_path: Path, tiny_exemplars_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    sae = {"train": {"architecture": "vocabulary", "k": K}}
    config = tiny_config(
        tiny_pool_path, tiny_exemplars_path, tiny_model_dir, sae,
        index=False, representation={"token_aggregate": "max", "keep_top": 20},
    )  # fmt: skip
    workspace, results = run_job(config, tmp_path)
    (folder,) = workspace.saes.glob("*/layers.2")
    coder = load_sae(folder)
    assert coder.info.is_transcoder
    assert dict(card(coder))["kind"] == "vocabulary"
    again = vocabulary_coder(resolved(tiny_model_dir), Hookpoint("resid", 2), K)
    assert coder.info.sha256 == again.info.sha256
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    described = read_descriptions(folder, coder.info.sha256)
    assert described[300] == f'"{tokenizer.decode([300])}"'
    assert pq.read_table(folder / FILE).num_rows == len(described)
    sql = (
        "SELECT latent, description FROM explanation JOIN latent_description USING (latent)"
        f" WHERE selection_id = '{results[0]['selection_id']}' AND latent >= 0"
    )
    shown: list[dict[str, Any]] = run_sql(workspace, sql).to_pylist()
    assert shown
    assert all(described[row["latent"]] == row["description"] for row in shown)
    joined = {"kind": "sae", "sae": str(folder), "token_aggregate": "max"}
    more = tiny_config(
        tiny_pool_path, tiny_exemplars_path, tiny_model_dir,
        tiny_sae_dir, index=False, name="joined", representation={"spaces": ["sae", joined]},
    )  # fmt: skip
    workspace, results = run_job(more, tmp_path)
    spaces = run_sql(
        workspace,
        f"SELECT DISTINCT space FROM explanation"
        f" WHERE selection_id = '{results[0]['selection_id']}' AND space IS NOT NULL",
    ).to_pylist()
    assert len(spaces) == 2
