"""`mlp_hidden@` and `heads@` are what the projections behind them get, in eight architectures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, linear, relu, silu

from flows.stages.represent.calibration import measure_sae
from selection.activations.capture import part_of
from selection.activations.loading import find_blocks
from selection.activations.model import load_activation_model
from selection.activations.run_plan import check_samples
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint, hookpoint_of
from selection.models.resolve import resolve_model
from selection.records import Rendered
from selection.sae.coder import make_coder
from selection.sae.compatibility import check_fits
from selection.sae.metadata import SaeInfo

N_BLOCKS, BLOCK, D_MLP = 3, 1, 56
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": D_MLP, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 12, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 256, "n_embd": 32,
    "n_layer": N_BLOCKS, "n_head": 4, "n_inner": D_MLP, "ffn_dim": D_MLP, "word_embed_proj_dim": 32,
}  # fmt: skip
Activate = Callable[[torch.Tensor], torch.Tensor]


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return gelu(x, approximate="tanh")


def gated(activate: Activate) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def hidden(block: Any, x: torch.Tensor) -> torch.Tensor:
        return activate(linear(x, block.mlp.gate_proj.weight)) * linear(x, block.mlp.up_proj.weight)

    return hidden


def plain(name: str, activate: Activate) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def hidden(block: Any, x: torch.Tensor) -> torch.Tensor:
        part = block.get_submodule(name)
        is_linear = isinstance(part, torch.nn.Linear)  # GPT-2 keeps its matrices transposed
        return activate(linear(x, part.weight if is_linear else part.weight.T, part.bias))

    return hidden


KINDS: dict[str, tuple[str, Callable[[Any, torch.Tensor], torch.Tensor], str]] = {
    "llama": ("mlp", gated(silu), "self_attn.o_proj"),
    "qwen3": ("mlp", gated(silu), "self_attn.o_proj"),
    "gemma2": ("mlp", gated(tanh_gelu), "self_attn.o_proj"),
    "gpt2": ("mlp", plain("mlp.c_fc", tanh_gelu), "attn.c_proj"),
    "gpt_neox": ("mlp", plain("mlp.dense_h_to_4h", gelu), "attention.dense"),
    "bloom": ("mlp.dense_h_to_4h", plain("mlp.dense_h_to_4h", tanh_gelu), "self_attention.dense"),
    "bert": ("intermediate", plain("intermediate.dense", gelu), ""),
    "opt": ("fc1", plain("fc1", relu), "self_attn.out_proj"),
}
"""Kind -> the module that gets the MLP's input, its hidden units, the projection of the heads."""


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    base = AutoConfig.for_model(request.param)
    sizes = {name: value for name, value in SIZES.items() if hasattr(base, name)}
    model = AutoModel.from_config(AutoConfig.for_model(request.param, **sizes))
    with torch.no_grad():
        for weight in model.parameters():  # biases and norms that start as nothing matter too
            weight.add_(0.2 * torch.randn(weight.shape))
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    return path


def expected(folder: Path, ids: "np.ndarray[Any, Any]", site: str) -> torch.Tensor:
    """What the whole model has there for one sample, by a formula or a plain hook."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    into, hidden, projection = KINDS[model.config.model_type]
    block: Any = find_blocks(model, N_BLOCKS)[BLOCK]
    seen: list[torch.Tensor] = []
    block.get_submodule(into if site == "mlp_hidden" else projection).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    with torch.no_grad():
        model(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
        x = seen[0].reshape(len(ids), -1)
        return hidden(block, x) if site == "mlp_hidden" else x


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("site", ["mlp_hidden", "heads"])
def test_it_is_what_the_whole_model_computes(folder: Path, site: str, tmp_path: Path) -> None:
    resolved = resolve_model(folder)
    if site == "heads" and not KINDS[resolved.model_type][2]:
        pytest.skip("not read in this kind")
    model = load_activation_model(resolved, Hookpoint(site, BLOCK), "cpu", checks=tmp_path)
    samples = check_samples(model.n_vocab, model.sliding_window, None)
    for [found], ids in zip(model.read_samples(samples), samples, strict=True):
        torch.testing.assert_close(found, expected(folder, ids, site), rtol=1e-4, atol=1e-4)
    if site == "mlp_hidden":
        assert resolved.d_mlp in (found.shape[1], None)  # Bloom's config does not say it
        assert found.shape[1] == (128 if resolved.model_type == "bloom" else D_MLP)


MOE: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                  "mlp_only_layers": [0]},
    "gpt_oss": {"num_local_experts": 4},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(MOE))
def test_a_mixture_of_experts_is_refused_by_its_name_and_its_dense_blocks_are_read(
    kind: str,
) -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, **{**SIZES, **MOE[kind]})
    blocks = find_blocks(AutoModel.from_config(config), N_BLOCKS)
    with pytest.raises(InputError, match=r"mixture of experts.*mlp\.experts") as refused:
        part_of(blocks[BLOCK], "mlp_hidden")
    assert "Moe" in str(refused.value.value) or "Layer" in str(refused.value.value)
    assert "mlp_module@" in str(refused.value.remedy)
    if kind == "qwen3_moe":
        block: Any = blocks[0]
        assert part_of(block, "mlp_hidden") is block.mlp.down_proj


def test_experts_that_are_one_tensor_are_no_projection() -> None:
    block = torch.nn.Module()
    block.mlp = torch.nn.Module()
    block.mlp.down_proj = torch.nn.Parameter(torch.zeros(4, 8, 8))
    with pytest.raises(InputError, match="no part that is known as `mlp_hidden`"):
        part_of(block, "mlp_hidden")


@pytest.mark.parametrize(
    ("name", "hookpoint"),
    [
        ("blocks.3.mlp.hook_post", "mlp_hidden@3"),
        ("model.layers.9.mlp.down_proj.input", "mlp_hidden@9"),
        ("transformer.h.2.mlp.c_proj.input", "mlp_hidden@2"),
        ("layers.2.feed_forward.w2.input", "mlp_hidden@2"),
        ("mlp_hidden@7", "mlp_hidden@7"),
        ("blocks.3.mlp.hook_pre", "None"),
        ("model.layers.9.mlp.down_proj", "None"),
    ],
)
def test_names_that_libraries_give_it(name: str, hookpoint: str) -> None:
    assert str(hookpoint_of(name)) == hookpoint


class Model:
    """What `check_fits` asks of a model."""

    name, weights_sha256, n_layers, d_model, d_heads = "tiny", "aa", 6, 32, 40

    def __init__(self, d_mlp: int | None) -> None:
        self.d_mlp = d_mlp


def test_an_sae_of_another_width_is_refused() -> None:
    info = SaeInfo("x", "blocks.1.mlp.hook_post", 56, 96, 3)
    for known in (56, None):
        check_fits(info, Model(known), None)
    with pytest.raises(InputError, match="reads activations of width 56, tiny has 64"):
        check_fits(info, Model(64), None)
    unnamed = SaeInfo("x", None, 56, 96, 3)
    check_fits(unnamed, Model(56), Hookpoint("mlp_hidden", 1))
    with pytest.raises(InputError, match="width 56, tiny has 32"):
        check_fits(unnamed, Model(64), Hookpoint("mlp_hidden", 1))


def test_a_config_that_has_mlps_of_several_widths_does_not_say_one(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    for kind, more, width in (("gpt2", {}, 128), ("llama", {}, 56),
                              ("lfm2", {"block_auto_adjust_ff_dim": True}, None)):  # fmt: skip
        base = AutoConfig.for_model(kind)
        sizes = {name: value for name, value in SIZES.items() if hasattr(base, name)} | more
        sizes.pop("n_inner", None)
        model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))
        model.save_pretrained(tmp_path / kind)
        assert resolve_model(tmp_path / kind).d_mlp == width


def test_a_width_that_no_config_tells_is_refused_where_it_is_first_seen(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    place = Hookpoint("mlp_hidden", 1)
    model = load_activation_model(resolve_model(tiny_model_dir), place, "cpu", checks=tmp_path)
    ids = np.arange(3, 20, dtype=np.uint32)
    samples = [Rendered(ids, np.ones(len(ids), np.bool_), len(ids), False, False)]
    width = int(model.read_samples([ids])[0][0].shape[1])
    for d_in in (width, width - 1):
        weights = torch.randn(16, d_in)
        info = SaeInfo("", None, d_in, 16, 2)
        coder = make_coder(weights, torch.zeros(16), weights, torch.zeros(d_in), info=info)
        if d_in == width:
            assert measure_sae(coder, model, samples, None, place).n_tokens == len(ids)
            continue
        with pytest.raises(InputError, match=f"width {d_in}, mlp_hidden@1 of .* has {width}"):
            measure_sae(coder, model, samples, None, place)
