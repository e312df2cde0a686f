"""How far activations are from the plain model's, for every causal architecture of transformers.

    python -m benchmarks.architectures [--quick] [--only NAME ...]

Builds a tiny random model of each architecture that can be built on a CPU, reads it at three depths
as a run would (fewest blocks, batches, shared prefixes), and compares every token with the whole
model of transformers, one sample at a time. An architecture is refused where reading it ends in an
InputError. The last line is one JSON object.
"""

import argparse
import json
import logging
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.models.activations import load_activation_model
from selection.models.hookpoints import Hookpoint
from selection.models.loading import find_blocks
from selection.models.resolve import resolve_model
from selection.models.run_plan import check_samples

N_BLOCKS, LIMIT = 4, 1e-4
QUICK = ("llama", "gemma2", "gemma3_text", "qwen3", "gpt2", "gpt_neox", "minicpm3", "mamba",
         "phi3", "opt")  # fmt: skip
SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 256, "n_embd": 32,
    "n_layer": N_BLOCKS, "n_head": 4, "d_model": 32, "n_layers": N_BLOCKS, "n_heads": 4,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 8, "ffn_dim": 48, "sliding_window": 16,
    "shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "decoder_layers": N_BLOCKS,
    "state_size": 8, "ssm_state_size": 8, "mamba_d_state": 8, "is_decoder": True,
}  # fmt: skip


def build(kind: str, folder: Path) -> str | None:
    """Write a tiny random model; returns why it cannot be built, else None."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        base = AutoConfig.for_model(kind)
        text = base.get_text_config()
        known = {name: value for name, value in SIZES.items() if hasattr(text, name)}
        for key in ("layer_types", "layers_block_type"):
            kinds = getattr(text, key, None)
            if isinstance(kinds, list) and kinds:
                known[key] = [kinds[i * len(kinds) // N_BLOCKS] for i in range(N_BLOCKS)]
        nested = {"text_config": {**text.to_dict(), **known}} if text is not base else known
        config = AutoConfig.for_model(kind, **nested)
        with torch.device("meta"):
            shape = AutoModelForCausalLM.from_config(config)
        if sum(weight.numel() for weight in shape.parameters()) > 20_000_000:
            return "too large"
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        model.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - whatever transformers raises: it cannot be built
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:90]
    return None


def plain(folder: Path, block: int, samples: list[NDArray[np.uint32]]) -> list[torch.Tensor]:
    """What a block of the whole model gives for each sample, one at a time."""
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: list[torch.Tensor] = []

    def keep(_: object, __: object, out: Any) -> None:
        states = out if isinstance(out, torch.Tensor) else out[0]
        seen.append(states[0] if states.ndim == 4 else states)

    find_blocks(module, resolve_model(folder).n_layers)[block].register_forward_hook(keep)
    with torch.no_grad():
        for sample in samples:
            module(input_ids=torch.from_numpy(sample.astype(np.int64))[None])
    return [states[0] for states in seen]


def difference(folder: Path) -> tuple[float, str]:
    """The largest over depths and tokens, relative to the token's norm; and how it was run."""
    resolved, worst, plans = resolve_model(folder), 0.0, set()
    for block in sorted({0, resolved.n_layers // 2, resolved.n_layers - 1}):
        hookpoint = Hookpoint("resid", block)
        model = load_activation_model(resolved, hookpoint, "cpu", checks=folder / "checks")
        samples = check_samples(model.n_vocab, None, resolved.max_positions)
        plans.add(f"{model.plan.depth}/{model.plan.batching}")
        for [ours], theirs in zip(
            model.read_samples(samples), plain(folder, block, samples), strict=True
        ):
            relative = (ours - theirs).norm(dim=1) / theirs.norm(dim=1).clamp_min(1e-6)
            worst = max(worst, float(relative.nan_to_num(float("inf")).max()))
    return worst, ", ".join(sorted(plans))


def main() -> None:
    """Print a line for each architecture, and the counts."""
    from transformers.models.auto import modeling_auto
    from transformers.utils import logging as hf_logging

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    kinds = list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    kinds = arguments.only or (list(QUICK) if arguments.quick else kinds)
    counts: Counter[str] = Counter()
    for kind in kinds:
        folder = Path(tempfile.mkdtemp(prefix="saelect-architecture-"))
        unbuilt = build(kind, folder)
        if unbuilt is not None:
            counts["not_built"] += 1
            print(f"{kind:<24} not built    {unbuilt}", flush=True)
        else:
            counts["tried"] += 1
            outcome, text = judged(folder)
            counts[outcome] += 1
            print(f"{kind:<24} {outcome:<12} {text}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    names = ("tried", "silently_wrong", "refused", "failed", "not_built")
    print(json.dumps({name: counts[name] for name in names}))


def judged(folder: Path) -> tuple[str, str]:
    """equal, refused, silently_wrong or failed; and what was found."""
    try:
        worst, plans = difference(folder)
    except InputError as error:
        return "refused", str(error.problem)[:110]
    except Exception as error:  # noqa: BLE001 - a traceback is what the benchmark looks for
        return "failed", f"{type(error).__name__}: {str(error)[:90]}"
    return ("equal" if worst <= LIMIT else "silently_wrong"), f"{worst:.0e}  {plans}"


if __name__ == "__main__":
    main()
