"""Adapters are merged as their definition says, and GGUF files read as their tensors are."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selection.activations.model import load_activation_model
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model

RANK, ALPHA = 3, 12.0
SAMPLES = [np.arange(7, 27, dtype=np.uint32), np.arange(40, 47, dtype=np.uint32)]


def activations(
    folder: Path, tmp_path: Path, block: int = 1, samples: Any = SAMPLES, **more: Any
) -> list[torch.Tensor]:
    resolved = resolve_model(folder, **more)
    model = load_activation_model(resolved, Hookpoint("resid", block), "cpu", checks=tmp_path / "c")
    return [part for [part] in model.read_samples(samples)]


def write_adapter(folder: Path, model: Path, targets: list[str], **config: Any) -> Path:
    """A random LoRA of the modules whose names end so, in the names of peft."""
    folder.mkdir()
    weights, g = load_file(model / "model.safetensors"), torch.Generator().manual_seed(3)
    tensors = {}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if weight.ndim != 2 or not module.endswith(tuple(targets)):
            continue
        for kind, shape in (("A", (RANK, weight.shape[1])), ("B", (weight.shape[0], RANK))):
            key = f"base_model.model.{module}.lora_{kind}.weight"
            tensors[key] = 0.2 * torch.randn(shape, generator=g)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none",
                "target_modules": targets, "base_model_name_or_path": "org/base"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


def merged_by_hand(model: Path, adapter: Path, to: Path, scale: Callable[[str], float]) -> Path:
    shutil.copytree(model, to)
    weights, matrices = (
        load_file(model / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
    )
    for name in weights:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in matrices:
            a, b = (matrices[f"{module}.lora_{kind}.weight"] for kind in "AB")
            weights[name] = weights[name].float() + scale(name) * b @ a
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, lambda _: ALPHA / RANK),
        ({"use_rslora": True}, lambda _: ALPHA / RANK**0.5),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 6}},
         lambda name: (6.0 if "layers.0.self_attn.q_proj" in name else ALPHA) / RANK),
    ],
)  # fmt: skip
def test_an_adapter_is_merged_as_its_definition_says(
    config: dict[str, Any], scale: Callable[[str], float], tiny_model_dir: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora", tiny_model_dir, ["q_proj", "down_proj"], **config)
    expected = merged_by_hand(tiny_model_dir, adapter, tmp_path / "by-hand", scale)
    found = activations(tiny_model_dir, tmp_path, adapter=str(adapter))
    for ours, theirs in zip(found, activations(expected, tmp_path), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    plain = activations(tiny_model_dir, tmp_path)
    assert max(float((a - b).abs().max()) for a, b in zip(found, plain, strict=True)) > 1e-2


@pytest.mark.filterwarnings("ignore")  # of what peft calls in transformers
@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
def test_an_adapter_is_merged_as_peft_merges_it(tiny_model_dir: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=9, use_rslora=True, init_lora_weights=False,
                        target_modules=["q_proj", "up_proj", "embed_tokens"],
                        modules_to_save=["lm_head"],
                        rank_pattern={"layers.1.self_attn.q_proj": 5})  # fmt: skip
    get_peft_model(model, config).save_pretrained(tmp_path / "lora")
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(tmp_path / "lora")).merge_and_unload()
    shutil.copytree(tiny_model_dir, tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")
    found = activations(tiny_model_dir, tmp_path, block=2, adapter=str(tmp_path / "lora"))
    expected = activations(tmp_path / "merged", tmp_path, block=2)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_another_adapter_is_another_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    base = resolve_model(tiny_model_dir).weights_sha256
    one = write_adapter(tmp_path / "one", tiny_model_dir, ["q_proj"])
    two = write_adapter(tmp_path / "two", tiny_model_dir, ["q_proj"], lora_alpha=5)
    hashes = [resolve_model(tiny_model_dir, adapter=str(a)).weights_sha256 for a in (one, two, one)]
    assert len({base, *hashes}) == 3
    assert hashes[0] == hashes[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "only LoRA adapters.*'IA3'"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trains biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model too"),
        ({"r": 0}, "numbers above 0"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    config: dict[str, Any], message: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora", tiny_model_dir, ["q_proj"], **config)
    with pytest.raises(InputError, match=message) as error:
        resolve_model(tiny_model_dir, adapter=str(adapter))
    assert "merge_and_unload" in (error.value.remedy or "")


def test_an_adapter_that_does_not_fit_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", tiny_model_dir, ["q_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors)).replace("lora_B", "lora_A")

    def refused(changed: dict[str, torch.Tensor], message: str) -> None:
        save_file(changed, file)
        with pytest.raises(InputError, match=message):
            activations(tiny_model_dir, tmp_path, adapter=str(adapter))

    refused({**tensors, name: torch.ones(RANK, 5)}, "has the shape|cannot be multiplied")
    refused({k.replace("q_proj", "z_proj"): t for k, t in tensors.items()}, "no such module")
    refused({k: t for k, t in tensors.items() if "lora_A" in k}, "one of the two matrices")
    refused({"x": torch.ones(2)}, "tensor is not known")
    file.unlink()
    with pytest.raises(InputError, match="weights are missing"):
        resolve_model(tiny_model_dir, adapter=str(adapter))
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        resolve_model(tiny_model_dir, adapter=str(tiny_model_dir))
    with pytest.raises(InputError, match=r"config\.json.*give its base model as `name`"):
        resolve_model(adapter)


def test_a_gguf_file_that_is_none_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    with pytest.raises(InputError, match="there is no such file"):
        resolve_model(folder, gguf_file="q4.gguf")
    (folder / "q4.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="pointer of Git LFS"):
        resolve_model(folder, gguf_file="q4.gguf")
    (folder / "q4.gguf").write_bytes(b"GGUF" + b"\0" * 20)
    message = "cannot read this GGUF" if find_spec("gguf") else "package gguf.*pip install gguf"
    with pytest.raises(InputError, match=message):
        resolve_model(folder, gguf_file="q4.gguf")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed")
def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path: Path) -> None:
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5,
                         max_position_embeddings=128, tie_word_embeddings=False)  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "plain")
    folder = tmp_path / "gguf"
    folder.mkdir()
    writer = gguf.GGUFWriter(str(folder / "m.gguf"), "llama")
    writer.add_block_count(3)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(64)
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    for name, tensor in model.state_dict().items():
        parts, array = name.split("."), tensor.float().numpy()
        if parts[-2] in ("q_proj", "k_proj"):  # llama.cpp turns pairs of a head's rows
            array = array.reshape(4, 2, 4, 32).swapaxes(1, 2).reshape(32, 32)
        short = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
        target = short.get(parts[-2]) or f"blk.{parts[2]}.{names[parts[-2]]}"
        writer.add_tensor(f"{target}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = activations(folder, tmp_path, gguf_file="m.gguf")
    for ours, theirs in zip(found, activations(tmp_path / "plain", tmp_path), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
