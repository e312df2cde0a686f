"""`mlp@` and `attn@` are what is added to the stream, in kinds that add it in their own way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selection.activations.loading import find_blocks
from selection.activations.model import load_activation_model
from selection.activations.run_plan import check_samples
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model

N_BLOCKS, BLOCK = 3, 1
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 256, "n_layer": N_BLOCKS,
    "n_head": 4, "n_layers": N_BLOCKS, "n_heads": 4, "d_model": 32, "kv_lora_rank": 16,
    "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bloom": {}, "mpt": {}, "bert": {}, "minicpm3": {"scale_depth": 1.4},
    "granite": {"residual_multiplier": 0.22},
    "gemma4_text": {
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "global_head_dim": 8, "enable_moe_block": False,
    },
    "gemma3n_text": {
        "vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "sliding_window": 16, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 3,
        "num_kv_shared_layers": 0, "intermediate_size": [48] * 3,
    },
}  # fmt: skip
Seen = dict[str, torch.Tensor]
TRUTH: dict[str, dict[str, Callable[[Seen], torch.Tensor]]] = {
    # Bloom and MPT give the stream to the part that adds to it.
    "bloom": {"mlp": lambda s: s["mlp.out"] - s["mlp.1"],
              "attn": lambda s: s["self_attention.out"] - s["self_attention.1"]},
    "mpt": {"mlp": lambda s: s["ffn.out"] - s["ffn.1"], "attn": lambda s: s["norm_2.0"] - s[".0"]},
    "bert": {"mlp": lambda s: s["output.LayerNorm.0"] - s["output.1"],
             "attn": lambda s: s["attention.output.LayerNorm.0"] - s[".0"]},
    **{kind: {"mlp": lambda s: s[".out"] - s["post_attention_layernorm.0"],
              "attn": lambda s: s["post_attention_layernorm.0"] - s[".0"]}
       for kind in ("minicpm3", "granite")},
    "gemma4_text": {"mlp": lambda s: s[".out"] / 0.5 - s["pre_feedforward_layernorm.0"],
                    "attn": lambda s: s["pre_feedforward_layernorm.0"] - s[".0"]},
}  # fmt: skip
"""From everything that goes into and out of a block's parts: positional inputs, first output."""


def saved(kind: str, folder: Path) -> Path:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **KINDS[kind]})
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
        for name, value in model.named_buffers():
            if name.endswith("layer_scalar"):  # by which Gemma 4 multiplies its whole stream
                value.fill_(0.5)
    model.save_pretrained(folder)
    return folder


def everything_inside(folder: Path, tokens: torch.Tensor) -> Seen:
    from transformers import AutoModel

    module, seen = AutoModel.from_pretrained(folder).eval(), {}
    for name, part in find_blocks(module, N_BLOCKS)[BLOCK].named_modules():

        def keep(_: object, inputs: Any, out: Any, name: str = name) -> None:
            for number, each in enumerate(inputs):
                if isinstance(each, torch.Tensor):
                    seen[f"{name}.{number}"] = each[0].clone()
            seen[f"{name}.out"] = (out if isinstance(out, torch.Tensor) else out[0])[0].clone()

        if isinstance(part, torch.nn.ModuleList):
            continue
        part.register_forward_hook(keep)
    with torch.no_grad():
        module(input_ids=tokens[None])
    return seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(TRUTH))
def test_what_is_added_is_read(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "model")
    places = [Hookpoint(site, BLOCK) for site in TRUTH[kind]]
    model = load_activation_model(resolve_model(folder), places, checks=tmp_path / "checks")
    tokens = check_samples(model.n_vocab, None, None)[2]
    seen = everything_inside(folder, torch.from_numpy(tokens.astype(np.int64)))
    [found] = model.read_samples([tokens])
    for place, ours in zip(places, found, strict=True):
        expected = TRUTH[kind][place.site](seen)
        assert expected.norm() > 0.1
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_what_a_block_changes_before_it_adds_it_is_refused(tmp_path: Path) -> None:
    """Gemma 3n mixes attention's output with a shortcut, and scales both."""
    resolved = resolve_model(saved("gemma3n_text", tmp_path / "model"))
    with pytest.raises(InputError, match=r"not what is added.*'attn@1'.*attn_module@1"):
        load_activation_model(resolved, Hookpoint("attn", 1), checks=tmp_path)
    model = load_activation_model(resolved, Hookpoint("attn_module", 1), checks=tmp_path)
    assert model.plan.reason == ""


@pytest.mark.parametrize("kind", ["minicpm3", "granite", "gemma4_text"])
@pytest.mark.filterwarnings("ignore")
def test_the_stream_before_the_mlp_is_proven_too(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve_model(saved(kind, tmp_path / "model"))
    places = [Hookpoint("resid_mid", BLOCK), Hookpoint("mlp_norm", BLOCK)]
    assert load_activation_model(resolved, places, checks=tmp_path / "a").plan.reason == ""
    monkeypatch.setattr("selection.activations.capture._MLP_NORMS", ("input_layernorm",))
    for place in places:
        with pytest.raises(InputError, match="something else than the MLP is given"):
            load_activation_model(resolved, place, checks=tmp_path / "b")
