"""How a model is run is compared with the plain model: the whole one, one sample at a time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

import selection.activations.run_plan as run_plan
from selection.activations.batching import iter_activations
from selection.activations.loading import find_blocks
from selection.activations.model import ActivationModel, build_model, load_activation_model
from selection.activations.packing import packed
from selection.activations.run_plan import RunPlan, check_samples
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered

N_BLOCKS = 4
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 256,
}  # fmt: skip
ALTERNATING = ["sliding_attention", "full_attention"] * 2
PER_LAYER = {
    "vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2,
    "layer_types": ALTERNATING, "sliding_window": 16,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "minicpm3": {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16,
                 "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
                 "scale_depth": 1.4},
    "gemma3_text": {"use_bidirectional_attention": True, "sliding_window": 40,
                    "layer_types": ALTERNATING},
    "gemma3n_text": {**PER_LAYER, "altup_num_inputs": 2, "laurel_rank": 4,
                     "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [48] * 4},
    "gemma4_text": {**PER_LAYER, "global_head_dim": 8},
    "phi3": {"original_max_position_embeddings": 32,
             "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4,
                              "long_factor": [4.0] * 4}},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mlp", "mamba"],
                   "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2,
                   "chunk_size": 16},
}  # fmt: skip


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as transformers saves it; its matrices matter more than at the start."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **{**SIZES, **KINDS[request.param]})
    kind: Any = AutoModel if request.param == "gemma3_text" else AutoModelForCausalLM
    model = kind.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    return path


def plain(folder: Path, tokens: NDArray[np.uint32], block: int) -> torch.Tensor:
    """The block's output in the whole model, for one sample, by transformers alone."""
    from transformers import AutoModel

    module = AutoModel.from_pretrained(folder).eval()
    seen: list[torch.Tensor] = []
    find_blocks(module, N_BLOCKS)[block].register_forward_hook(
        lambda _, __, out: seen.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    with torch.no_grad():
        module(torch.from_numpy(tokens.astype(np.int64))[None])
    states = seen[0] if seen[0].ndim == 3 else seen[0][0]  # streams of Gemma 3n
    return states[0]


def samples_of(model: ActivationModel) -> list[Rendered]:
    """Mixed numbers of tokens; two begin alike."""
    tokens = check_samples(model.n_vocab, None, model.resolved.max_positions)
    return [Rendered(t, np.ones(len(t), np.bool_), len(t), False, False) for t in tokens]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", [1, 3])
def test_activations_are_those_of_the_plain_model(folder: Path, block: int, tmp_path: Path) -> None:
    hookpoint = Hookpoint("resid", block)
    model = load_activation_model(resolve_model(folder), hookpoint, checks=tmp_path)
    samples = samples_of(model)
    seen = set()
    for batch in iter_activations(model, samples, 1000):
        for number, row in enumerate(batch.rows.tolist()):
            ours = batch.hidden[torch.from_numpy(batch.sample_of_token == number)]
            theirs = plain(folder, samples[row].tokens, block)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            seen.add(row)
    assert seen == set(range(len(samples)))
    assert model.plan.difference is not None
    assert model.plan.difference < 1e-5
    assert model.plan.reason == ""  # known kinds need no trying


@pytest.mark.filterwarnings("ignore")
def test_unknown_kinds_fall_back_to_what_equals_the_plain_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows that MiniCPM and Gemma 3n need their true depth: the comparison shows it."""
    monkeypatch.setattr("selection.activations.model.KINDS_OF_TRUE_DEPTH", ())
    resolved = resolve_model(folder)
    model = load_activation_model(resolved, Hookpoint("resid", 1), checks=tmp_path)
    deep = resolved.model_type in ("minicpm3", "gemma3n_text", "gemma4_text")
    assert (model.plan.depth == "cut") == deep
    assert ("more slowly" in caplog.text) == deep
    sample = samples_of(model)[1]
    [[ours]] = model.read_samples([sample.tokens])
    torch.testing.assert_close(ours, plain(folder, sample.tokens, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_way_that_differs_is_not_taken(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Faults are injected into shared prefixes, and into packing as a whole."""
    resolved, hookpoint = resolve_model(tiny_model_dir), Hookpoint("resid", 2)
    plan = load_activation_model(resolved, hookpoint, dtype=dtype, checks=tmp_path / "a").plan
    assert (plan.depth, plan.batching, plan.reason) == ("truncated", "shared", "")
    monkeypatch.setattr(
        "selection.activations.model.positions_in_row",
        lambda lengths, shared: _shifted(lengths, shared),
    )
    model = load_activation_model(resolved, hookpoint, dtype=dtype, checks=tmp_path / "b")
    assert (model.plan.depth, model.plan.batching) == ("truncated", "packed")
    assert "truncated, shared: activations differ by" in model.plan.reason
    monkeypatch.setattr(
        "selection.activations.packing._mask", lambda *_: None
    )  # no sample's prefix
    monkeypatch.setattr("selection.activations.model.packed", _unpacked)
    model = load_activation_model(resolved, hookpoint, dtype=dtype, checks=tmp_path / "c")
    assert (model.plan.depth, model.plan.batching) == ("truncated", "padded")
    assert "truncated, packed: activations differ by" in model.plan.reason


def _unpacked(lengths: list[int], *_: Any) -> Any:
    """All samples of a row as one, so that they see each other."""
    return packed([sum(lengths)])


def _shifted(lengths: list[int], shared: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    from selection.activations.prefixes import positions_in_row

    positions = positions_in_row(lengths, shared)
    return [
        np.maximum(each - 1, 0) if n else each for each, n in zip(positions, shared, strict=True)
    ]


def test_rounding_that_changes_a_single_token_is_no_fault_in_16_bits() -> None:
    """One of 15 tokens of SmolLM2-135M differs by 64 % where its sample is longer."""
    expected = [[torch.ones(15, 4)], [torch.ones(5, 4)]]
    computed = [[torch.ones(15, 4)], [torch.ones(5, 4)]]
    computed[0][0][3] *= 1.64
    assert run_plan._difference(computed, expected, "float32") == pytest.approx(0.64)
    assert run_plan._difference(computed, expected, "bfloat16") == 0
    computed[0][0][:5] *= 1.64
    assert run_plan._difference(computed, expected, "bfloat16") == pytest.approx(0.64)
    computed = [[torch.ones(15, 4)], [torch.full((5, 4), torch.nan)]]
    assert run_plan._difference(computed, expected, "float16") == float("inf")


def test_the_result_is_kept_by_the_hash_of_the_weights(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve_model(tiny_model_dir)
    first = load_activation_model(resolved, Hookpoint("resid", 2), checks=tmp_path)
    monkeypatch.setattr(run_plan, "_prove", lambda *_: pytest.fail("compared again"))
    again = load_activation_model(resolved, Hookpoint("resid", 2), checks=tmp_path)
    assert again.plan == first.plan
    [file] = tmp_path.iterdir()
    assert RunPlan(**json.loads(file.read_text())) == first.plan
    monkeypatch.setattr(run_plan, "_prove", lambda *_: RunPlan("truncated", "alone", 0.0))
    others: list[tuple[ResolvedModel, Hookpoint]] = [
        (replace(resolved, weights_sha256="other"), Hookpoint("resid", 2)),
        (resolved, Hookpoint("resid", 1)),
    ]
    for other, hookpoint in others:
        model = load_activation_model(other, hookpoint, checks=tmp_path)
        assert model.plan.batching == "alone"
        assert model.tokens_per_batch(1000) == 1
    assert len(list(tmp_path.iterdir())) == 3
    for damage in ("[" * 100_000, "{}", '{"a": 1}'):
        file.write_text(damage)  # as good as none
        model = load_activation_model(resolved, Hookpoint("resid", 2), checks=tmp_path)
        assert model.plan.batching == "alone"


def test_a_model_that_gives_something_else_every_time_is_refused(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*given: Any) -> ActivationModel:
        model = build_model(*given)
        model.blocks[0].register_forward_hook(
            lambda _, __, out: out + torch.rand(()) if isinstance(out, torch.Tensor)
            else (out[0] + torch.rand(()), *out[1:])
        )  # fmt: skip
        return model

    monkeypatch.setattr("selection.activations.model.build_model", noisy)
    with pytest.raises(InputError, match="the same tokens give other activations"):
        load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 2), checks=tmp_path)


def test_a_model_that_cannot_be_run_is_refused(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> ActivationModel:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("selection.activations.model.build_model", broken)
    with pytest.raises(InputError, match=r"cannot be run.*shapes do not match"):
        load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 2), checks=tmp_path)


def test_samples_beyond_the_short_regime_of_longrope_are_refused(tmp_path: Path) -> None:
    """Beside a longer sample, or alone beyond it, positions would be scaled otherwise."""
    config = {**SIZES, **KINDS["phi3"], "model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    assert resolve_model(tmp_path).max_positions == 32


def test_a_model_that_adds_tokens_of_its_own_is_refused(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CPMAnt does: what would be read for a token is another one's."""
    model = load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 1), "cpu")
    watched = model._outputs
    run = model.module.forward

    def longer(*args: Any, **options: Any) -> Any:
        out = run(*args, **options)
        for hookpoint, states in watched.items():
            watched[hookpoint] = torch.cat([states[:, :3], states], dim=1)
        return out

    monkeypatch.setattr(model.module, "forward", longer)
    with pytest.raises(InputError, match="gives 8 activations at resid@1 for 5 tokens"):
        model.read_samples([np.arange(7, 12, dtype=np.uint32)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_model_that_is_called_causal_and_is_not_is_run_to_its_end(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    """As some models of embeddings are: what follows the counted tokens decides what these are."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, is_causal=False)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    model.save_pretrained(tmp_path / "model")
    resolved = resolve_model(tmp_path / "model")
    assert resolved.kind == "causal"
    read = load_activation_model(
        resolved, Hookpoint("resid", 2), dtype=dtype, checks=tmp_path / "checks"
    )
    assert not read.is_causal
    assert not read.shares
    assert "tokens see those behind them" in read.plan.reason
    if dtype == "bfloat16":  # what is taken from it is too coarse to compare
        return
    counted = np.arange(40) < 15
    tokens = np.arange(5, 45, dtype=np.uint32)
    short = Rendered(tokens[:25], np.ones(25, np.bool_), 25, False, False)
    samples = [Rendered(tokens, counted, 40, False, False), short]
    for batch in iter_activations(read, samples, 1000):
        for number, row in enumerate(batch.rows.tolist()):
            expected = plain(tmp_path / "model", samples[row].tokens, 2)
            ours = batch.hidden[batch.sample_of_token == number]
            torch.testing.assert_close(
                ours, expected[: len(ours)], rtol=1e-4, atol=1e-4 * float(expected.abs().mean())
            )
