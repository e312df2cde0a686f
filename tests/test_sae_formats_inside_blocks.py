"""SAEs and transcoders that read inside a block: hookpoints, families, what fits a model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selection.activations.capture import part_of
from selection.activations.loading import find_blocks
from selection.activations.model import load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint, hookpoint_of
from selection.models.resolve import resolve_model
from selection.sae.compatibility import check_fits
from selection.sae.formats.find import family_of
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.metadata import SaeInfo
from selection.sae.quality import measure, problems
from tests.test_sae_formats_oracles import GEMMA_2, SAES, edit

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "n_embd": 32, "n_layer": 3,
    "n_head": 4, "max_position_embeddings": 128, "n_positions": 128,
}  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "gemma2", "qwen3", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    base = AutoConfig.for_model(request.param)
    sizes = {name: value for name, value in SIZES.items() if hasattr(base, name)}
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **sizes, bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "ln_" in name:  # else they multiply with 1
                weight.copy_(0.5 + torch.rand(weight.shape))
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    return path


def plain_inside(folder: Path, block: int, ids: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    """What the untruncated model has inside a block, by formulas of the residual stream."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stack: Any = find_blocks(model, 3)[block]
    seen: dict[str, torch.Tensor] = {}
    gemma = hasattr(stack, "post_feedforward_layernorm")

    def add(name: str) -> Any:
        def hook(_: object, inputs: Any, out: Any) -> None:
            seen[name] = (out if isinstance(out, torch.Tensor) else out[0])[0]
            seen[f"{name}.in"] = inputs[0][0] if inputs else torch.empty(0)

        return hook

    attn: Any = part_of(stack, "attn_module")
    for name, part in (
        ("block", stack),
        ("attn", stack.post_attention_layernorm if gemma else attn),
        ("mlp", stack.mlp),
        ("mlp_added", stack.post_feedforward_layernorm if gemma else stack.mlp),
        ("out", attn.o_proj if hasattr(attn, "o_proj") else attn.c_proj),
    ):
        part.register_forward_hook(add(name))
    with torch.no_grad():
        model(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
    middle = seen["block"] - seen["mlp_added"]
    centered = middle - middle.mean(1, keepdim=True) if hasattr(stack, "ln_2") else middle
    epsilon = 1e-5 if hasattr(stack, "ln_2") else model.config.rms_norm_eps
    normed = centered / (centered.square().mean(1, keepdim=True) + epsilon).sqrt()
    return {
        "resid_mid": middle, "mlp_norm": normed, "mlp_in": seen["mlp.in"], "heads": seen["out.in"],
    }  # fmt: skip


@pytest.mark.parametrize("site", ["resid_mid", "mlp_norm", "mlp_in", "heads"])
def test_hookpoints_inside_a_block_are_what_the_whole_model_has(
    folder: Path, site: str, tmp_path: Path
) -> None:
    resolved, hookpoint = resolve_model(folder), Hookpoint(site, 1)
    model = load_activation_model(resolved, hookpoint, "cpu", checks=tmp_path)
    rng = np.random.default_rng(1)
    samples = [rng.integers(3, 64, n).astype(np.uint32) for n in (5, 21, 34)]
    samples[2][:15] = samples[1][:15]
    for [found], ids in zip(model.read_samples(samples), samples, strict=True):
        expected = plain_inside(folder, 1, ids)[site]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert model.plan.depth == "truncated"
    if site == "heads":
        assert found.shape[1] == resolved.d_heads


def test_a_block_without_such_a_part_is_refused() -> None:
    block = torch.nn.Module()
    block.post_attention_layernorm = torch.nn.Identity()
    block.post_feedforward_layernorm = torch.nn.Identity()  # OLMo 2: no norm before the MLP
    for site in ("mlp_norm", "resid_mid", "heads", "mlp_in"):
        with pytest.raises(InputError, match=f"no part that is known as `{site}`"):
            part_of(block, site)


@pytest.mark.parametrize(
    ("name", "hookpoint"),
    [
        ("blocks.3.attn.hook_z", "heads@3"),
        ("model.layers.9.self_attn.o_proj.input", "heads@9"),
        ("blocks.3.ln2.hook_normalized", "mlp_norm@3"),
        ("blocks.3.hook_mlp_in", "resid_mid@3"),
        ("blocks.3.hook_resid_mid", "resid_mid@3"),
        ("blocks.3.mlp.hook_in", "mlp_in@3"),
        ("model.layers.9.pre_feedforward_layernorm.output", "mlp_in@9"),
        ("blocks.3.ln1.hook_normalized", "None"),
        ("blocks.3.attn.hook_q", "None"),
    ],
)
def test_names_of_hookpoints_inside_a_block(name: str, hookpoint: str) -> None:
    assert str(hookpoint_of(name)) == hookpoint


def test_a_skip_transcoder_of_sparsify_reads_the_input_of_its_module(tmp_path: Path) -> None:
    coder = load_sae(SAES / "sparsify_transcoder")
    assert (coder.info.hookpoint, coder.info.centers) == ("mlp_in@3", False)
    assert coder.info.is_transcoder
    quality = measure(coder, [torch.randn(40, 8)])
    assert quality.fvu is None  # it predicts what another module puts out
    assert problems(coder.info, quality) == []
    for name, hookpoint in (("layers.5", "layers.4"), ("layers.2.mlp", "mlp_in@2")):
        shutil.copytree(SAES / "sparsify_transcoder" / "layers.3.mlp", tmp_path / name)
        assert read_sae_info(tmp_path / name).hookpoint == hookpoint
    for name in ("layers.0", "layers.2.self_attn"):
        shutil.copytree(SAES / "sparsify_transcoder" / "layers.3.mlp", tmp_path / name)
        with pytest.raises(InputError, match="input of a module that is not read"):
            read_sae_info(tmp_path / name)


@pytest.mark.parametrize("architecture", ["transcoder", "skip_transcoder"])
def test_transcoders_of_saelens_do_not_center_unless_they_say_so(
    architecture: str, tmp_path: Path
) -> None:
    where = tmp_path / "sae"
    shutil.copytree(SAES / "saelens_no_subtraction", where)
    meta = {"hook_name": "blocks.4.ln2.hook_normalized", "hook_name_out": "blocks.4.hook_mlp_out"}
    config = json.loads((where / "cfg.json").read_text())
    config.pop("apply_b_dec_to_input")
    config |= {"architecture": architecture, "d_out": 8, "metadata": meta}
    (where / "cfg.json").write_text(json.dumps(config))
    coder = load_sae(where)
    assert (coder.info.hookpoint, coder.info.is_transcoder) == ("mlp_norm@4", True)
    assert not coder.info.centers
    expected = load_sae(SAES / "saelens_no_subtraction")
    assert torch.equal(coder.encoder_weight, expected.encoder_weight)


def test_an_sae_of_attention_heads_needs_their_width(tmp_path: Path) -> None:
    where = tmp_path / "sae"
    shutil.copytree(SAES / "saelens_standard", where)
    edit(where / "cfg.json", metadata={"hook_name": "blocks.1.attn.hook_z"},
         reshape_activations="hook_z")  # fmt: skip
    info = read_sae_info(where)
    assert info.hookpoint == "heads@1"
    check_fits(info, Model(d_model=32, d_heads=8), None)
    with pytest.raises(InputError, match="width 8, tiny has 48"):
        check_fits(info, Model(d_model=8, d_heads=48), None)
    unnamed = SaeInfo("x", None, 48, 96, 3)  # a folder without its repository's name
    check_fits(unnamed, Model(d_model=32, d_heads=48), Hookpoint("heads", 1))
    with pytest.raises(InputError, match="width 48, tiny has 32"):
        check_fits(unnamed, Model(d_model=32, d_heads=40), Hookpoint("heads", 1))


class Model:
    """What `check_fits` asks of a model."""

    name, weights_sha256, n_layers = "tiny", "aa", 6

    def __init__(self, d_model: int, d_heads: int | None) -> None:
        self.d_model, self.d_heads, self.d_mlp = d_model, d_heads, None


@pytest.mark.parametrize(
    ("kind", "hookpoint"),
    [
        ("resid_post", "layers.9"),
        ("attn_out", "heads@9"),
        ("mlp_out_all", "mlp@9"),
        ("transcoder", "mlp_in@9"),
    ],
)
def test_gemma_scope_2_without_a_configuration(kind: str, hookpoint: str, tmp_path: Path) -> None:
    named = tmp_path / "gemma-scope-2-1b-it" / kind / "layer_9_width_16k_l0_small"
    named.mkdir(parents=True)
    weights = SAES / "gemma_scope_2" / GEMMA_2 / "params.safetensors"
    shutil.copy(weights, named)
    info = load_sae(named).info
    assert (info.hookpoint, info.model_name) == (hookpoint, "google/gemma-3-1b-it")
    assert info.is_transcoder == (kind == "transcoder")
    bare = tmp_path / "mine"
    bare.mkdir()
    shutil.copy(weights, bare)
    assert (load_sae(bare).info.hookpoint, load_sae(bare).info.model_name) == (None, None)


def test_gemma_scope_2_transcoders_by_their_configuration(tmp_path: Path) -> None:
    where = tmp_path / "transcoder" / "layer_9_width_16k_l0_small_affine"
    shutil.copytree(SAES / "gemma_scope_2" / GEMMA_2, where)
    edit(where / "config.json", affine_connection=True,
         hf_hook_point_in="model.layers.9.pre_feedforward_layernorm.output",
         hf_hook_point_out="model.layers.9.post_feedforward_layernorm.output")  # fmt: skip
    info = read_sae_info(where)
    assert (info.hookpoint, info.is_transcoder) == ("mlp_in@9", True)
    across = tmp_path / "clt" / "layer_9_width_16k_l0_small"
    shutil.copytree(SAES / "gemma_scope_2" / GEMMA_2, across)
    with pytest.raises(InputError, match="several layers at once"):
        read_sae_info(across)


def test_circuit_tracer_says_in_one_file_where_all_layers_read(tmp_path: Path) -> None:
    where = tmp_path / "set"
    shutil.copytree(SAES / "circuit_tracer", where)
    info = load_sae(where).info
    assert (info.hookpoint, info.k, info.model_name) == ("mlp_in@3", 4, "Qwen/Qwen3-0.6B")
    shutil.copy(where / "layer_3.safetensors", where / "layer_11.safetensors")
    assert load_sae(where / "layer_11.safetensors").info.hookpoint == "mlp_in@11"
    with pytest.raises(InputError, match="2 SAEs in this folder"):
        load_sae(where)
    config = where / "config.yaml"
    config.write_text("feature_input_hook: hook_resid_mid\n")
    state = load_file(where / "layer_3.safetensors")
    threshold = {"activation_function.threshold": torch.full((32,), 0.5)}
    save_file({**state, **threshold}, where / "layer_3.safetensors")
    info = load_sae(where / "layer_3.safetensors").info
    assert (info.hookpoint, info.activation) == ("resid_mid@3", "jumprelu")
    for text, message in (
        ("feature_input_hook: hook_q", "where it reads"),
        ("[", "cannot be read"),
    ):
        config.write_text(text)
        with pytest.raises(InputError, match=message):
            load_sae(where / "layer_3.safetensors")


def test_hub_folders_of_dictionary_learning_are_told_from_models(tmp_path: Path) -> None:
    where = tmp_path / "sae"
    shutil.copytree(SAES / "dictionary_hub", where)
    assert read_sae_info(where).hookpoint is None
    (where / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    assert family_of(where) is None
    shutil.rmtree(where)
    shutil.copytree(SAES / "dictionary_hub", where)
    state = load_file(where / "model.safetensors")
    save_file({**state, "threshold": torch.tensor(-1.0)}, where / "model.safetensors")
    with pytest.raises(InputError, match="never set"):
        load_sae(where)
    jumprelu = {"W_enc": torch.ones(8, 32), "threshold": torch.ones(32)}
    save_file(jumprelu, where / "model.safetensors")
    with pytest.raises(InputError, match="class is not known by its tensors"):
        load_sae(where)
    crosscoder = {"encoder.weight": torch.ones(2, 8, 32), "decoder.weight": torch.ones(2, 32, 8)}
    save_file(crosscoder, where / "model.safetensors")
    with pytest.raises(InputError, match="crosscoder"):
        load_sae(where)
