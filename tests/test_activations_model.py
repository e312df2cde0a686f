"""Activations against the untruncated model of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save_file

from selection.activations.batching import iter_activations
from selection.activations.loading import find_blocks, load_config
from selection.activations.model import ActivationModel, Packing, load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered

N_VOCAB, N_BLOCKS = 96, 4
SMALL = {
    "vocab_size": N_VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=N_VOCAB,
        n_embd=32,
        n_layer=N_BLOCKS,
        n_head=4,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
    ),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=6),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, sliding_window=6),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**GROUPED, sliding_window=6),
    "olmo": lambda: transformers.OlmoConfig(**SMALL),
    "olmo2": lambda: transformers.Olmo2Config(**SMALL),
    "bert": lambda: transformers.BertConfig(**SMALL),
    "roberta": lambda: transformers.RobertaConfig(**SMALL),
}
ENCODERS = ("bert", "roberta")


@pytest.fixture(scope="module", params=list(CONFIGS))
def saved_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = CONFIGS[request.param]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if request.param in ENCODERS:
            model = transformers.AutoModelForMaskedLM.from_config(config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return folder


def sample(
    rng: np.random.Generator, n_tokens: int, counted: NDArray[np.bool_] | None = None
) -> Rendered:
    tokens = rng.integers(3, N_VOCAB, n_tokens).astype(np.uint32)
    if counted is None:
        counted = rng.random(n_tokens) < 0.7
    return Rendered(tokens, counted, n_tokens, False, False)


def samples_of(lengths: Sequence[int], seed: int = 0) -> list[Rendered]:
    rng = np.random.default_rng(seed)
    return [sample(rng, n) for n in lengths]


def whole_model_hidden(folder: Path, tokens: NDArray[np.uint32], block: int) -> torch.Tensor:
    """hidden_states[block + 1] of the untruncated model, one sample, no padding."""
    model = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(tokens.astype(np.int64))[None], output_hidden_states=True
        )
    hidden: torch.Tensor = out.hidden_states[block + 1][0]
    return hidden


def activations_by_sample(
    model: ActivationModel, samples: Sequence[Rendered], tokens_per_batch: int
) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for batch in iter_activations(model, samples, tokens_per_batch):
        for i, row in enumerate(batch.rows.tolist()):
            assert row not in found
            found[row] = batch.hidden[torch.from_numpy(batch.sample_of_token == i)]
    return found


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_activations_equal_hidden_states_of_the_whole_model(
    saved_model: Path, packing: Packing
) -> None:
    samples = samples_of([5, 17, 17, 3, 30])
    resolved = resolve_model(saved_model)
    for block in (0, 2):
        model = load_activation_model(
            resolved, Hookpoint("resid", block), device="cpu", packing=packing
        )
        assert model.packs == (packing == "packed")
        found = activations_by_sample(model, samples, tokens_per_batch=40)
        assert sorted(found) == list(range(len(samples)))
        for row, rendered in enumerate(samples):
            whole = whole_model_hidden(saved_model, rendered.tokens, block)
            expected = whole[torch.from_numpy(rendered.content_mask)]
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


SITES = {  # module whose output is read, per architecture; None is its usual name
    "gpt_neox": ("attention", "mlp"),
    "gpt2": ("attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "bert": ("attention.output.dense", "output.dense"),
    "roberta": ("attention.output.dense", "output.dense"),
}


def test_mlp_and_attention_outputs_are_those_of_the_whole_model(saved_model: Path) -> None:
    [rendered] = samples_of([19])
    resolved = resolve_model(saved_model)
    whole = transformers.AutoModel.from_pretrained(
        saved_model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    places = [Hookpoint("attn", 1), Hookpoint("mlp", 2), Hookpoint("resid", 0)]
    block = find_blocks(whole, N_BLOCKS)
    names = SITES.get(whole.config.model_type, ("self_attn", "mlp"))
    parts = [block[1].get_submodule(names[0]), block[2].get_submodule(names[1]), block[0]]
    seen: dict[int, torch.Tensor] = {}
    for number, part in enumerate(parts):

        def keep(module: object, inputs: object, output: Any, number: int = number) -> None:
            seen[number] = output if isinstance(output, torch.Tensor) else output[0]

        part.register_forward_hook(keep)
    with torch.no_grad():
        whole(input_ids=torch.tensor(rendered.tokens.astype(np.int64))[None])
    model = load_activation_model(resolved, places, device="cpu")
    [batch] = iter_activations(model, [rendered], 64)
    assert len(batch.distinct) == 3
    for number, hidden in enumerate(batch.distinct):
        expected = seen[number].reshape(19, -1)[torch.from_numpy(rendered.content_mask)]
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)


def test_the_last_block_is_read_before_the_final_norm(tiny_model_dir: Path) -> None:
    [rendered] = samples_of([9])
    resolved = resolve_model(tiny_model_dir)
    model = load_activation_model(resolved, Hookpoint("resid", 3), device="cpu")
    whole = transformers.AutoModel.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    seen: list[torch.Tensor] = []
    whole.layers[3].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        whole(input_ids=torch.tensor(rendered.tokens.astype(np.int64))[None])
    torch.testing.assert_close(model.hidden([rendered.tokens]), seen[0], rtol=1e-5, atol=1e-5)


def test_only_blocks_up_to_the_hookpoint_are_built(saved_model: Path) -> None:
    resolved = resolve_model(saved_model)
    shallow = load_activation_model(resolved, Hookpoint("resid", 0), device="cpu")
    deep = load_activation_model(resolved, Hookpoint("resid", 3), device="cpu")
    sizes = [sum(w.numel() for w in model.module.parameters()) for model in (shallow, deep)]
    assert sizes[0] < sizes[1]


def test_settings_per_block_are_cut_with_the_blocks(tmp_path: Path) -> None:
    config = CONFIGS["gemma2"]()
    config.save_pretrained(tmp_path)
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    cut = load_config(resolve_model(tmp_path), 3)
    assert cut.num_hidden_layers == 3
    assert cut.layer_types == config.layer_types[:3]


def test_the_stack_of_blocks_is_found_around_its_experts() -> None:
    block = torch.nn.Module()
    block.experts = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(3)])
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([block, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    assert find_blocks(model, 3) is model.layers
    with pytest.raises(InputError, match="no list of blocks"):
        find_blocks(model, 4)


def test_the_text_part_of_a_model_with_pictures_is_run(tmp_path: Path) -> None:
    config = transformers.Gemma3Config(
        text_config=GROUPED | {"sliding_window": 6},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=90,
        mm_tokens_per_image=4,
    )
    whole = transformers.Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    model = load_activation_model(resolve_model(tmp_path), Hookpoint("resid", 1), "cpu")
    tokens = np.arange(3, 20, dtype=np.uint32)
    with torch.no_grad():
        out = whole(
            input_ids=torch.tensor(tokens.astype(np.int64))[None], output_hidden_states=True
        )
    torch.testing.assert_close(model.hidden([tokens]), out.hidden_states[2])


@pytest.fixture(scope="module", params=["packed", "padded"])
def tiny_model(tiny_model_dir: Path, request: pytest.FixtureRequest) -> ActivationModel:
    return load_activation_model(
        resolve_model(tiny_model_dir), Hookpoint("resid", 2), device="cpu", packing=request.param
    )


def test_missing_weights_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    resolved = resolve_model(tiny_model_dir)
    weights = load_file(tiny_model_dir / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (tiny_model_dir / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    broken = resolve_model(tmp_path)
    load_activation_model(resolved, Hookpoint("resid", 1), "cpu")
    with pytest.raises(InputError, match=r"weights are missing.*up_proj"):
        load_activation_model(broken, Hookpoint("resid", 1), "cpu")
    load_activation_model(broken, Hookpoint("resid", 0), "cpu")  # That block is never read.


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dtype": "int8"}, "no such dtype"), ({"device": "cuda:99"}, "cannot be used here")],
)
def test_unusable_devices_and_dtypes_are_refused(
    tiny_model_dir: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 1), **settings)


def test_auto_dtype_on_a_cpu_is_float32(tiny_model: ActivationModel) -> None:
    assert tiny_model.dtype == "float32"


def cuda_model(folder: Path, dtype: str) -> ActivationModel:
    resolved: ResolvedModel = resolve_model(folder)
    return load_activation_model(resolved, Hookpoint("resid", 2), "cuda", dtype)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
def test_cuda_agrees_with_the_cpu(tiny_model: ActivationModel, tiny_model_dir: Path) -> None:
    samples = samples_of([12, 40, 7, 7, 33])
    expected = activations_by_sample(tiny_model, samples, 64)
    found = activations_by_sample(cuda_model(tiny_model_dir, "float32"), samples, 64)
    for row, hidden in expected.items():
        torch.testing.assert_close(found[row].cpu(), hidden, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@needs_cuda
def test_auto_dtype_on_cuda_is_bfloat16_and_close(
    tiny_model: ActivationModel, tiny_model_dir: Path
) -> None:
    samples = samples_of([12, 40, 7, 7, 33])
    model = cuda_model(tiny_model_dir, "auto")
    assert model.dtype == "bfloat16"
    expected = activations_by_sample(tiny_model, samples, 64)
    found = activations_by_sample(model, samples, 64)
    for row, hidden in expected.items():
        assert found[row].dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(found[row].cpu(), hidden)
        assert cosine.min() > 0.99


def test_a_package_that_does_not_load_is_named(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **named: object) -> object:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'LlamaConfig'.") from error

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", broken)
    with pytest.raises(InputError, match=r"does not load \(operator torchvision::nms") as raised:
        load_config(resolve_model(tiny_model_dir), 1)
    assert "Install the package again" in str(raised.value)
