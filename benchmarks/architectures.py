"""How far activations are from the plain model's, for every causal architecture of transformers.

    python -m benchmarks.architectures [--quick] [--only NAME ...] [--results FILE]

Builds a tiny random model of each architecture that can be built on a CPU, reads it at three depths
as a run would (fewest blocks, mixed lengths, shared prefixes, packed and padded), and compares
every token with the whole model of transformers, one sample at a time; where what follows the last
counted token is left out, the beginnings of samples too. An architecture is refused
where reading it ends in an InputError. Each is judged by a process of its own; with `--results` the
lines are kept in a file, and what stands there is not judged again. The last line is one JSON
object.
"""

import argparse
import json
import logging
import multiprocessing
import shutil
import tempfile
import warnings
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.loading import find_blocks
from selection.activations.model import Packing, load_activation_model
from selection.activations.run_plan import check_samples
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model

N_BLOCKS, LIMIT, LONGEST_S = 4, 1e-4, 240
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
    "num_layers": N_BLOCKS,
    "rotary_dim": 8,
    "attention_types": [[["global", "local"], 2]],
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 96,
    "hidden_size_per_layer_input": 8,
    "global_head_dim": 8,
    "state_size": 8, "ssm_state_size": 8, "mamba_d_state": 8, "is_decoder": True,
}  # fmt: skip

_OTHER_PARTS: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "depth": 1, "embed_dim": 32, "num_heads": 4, "mlp_dim": 48,
}  # fmt: skip

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"num_key_value_heads": 4},
    {"head_dim": None},
    {"layer_types": None, "layers_block_type": None},
    {"layer_types": None, "layers_block_type": None, "num_key_value_heads": 4, "head_dim": None},
)
"""Changes of SIZES, tried one after the other: None leaves a size as the architecture has it."""


def build(kind: str, folder: Path) -> str | None:
    """Write a tiny random model that runs; returns why it cannot be built, else None."""
    problem = None
    for variant in VARIANTS:
        try:
            return _build(kind, folder, {**SIZES, **variant})
        except Exception as error:  # noqa: BLE001 - whatever transformers raises: not buildable
            first = str(error).splitlines()[0] if str(error) else ""
            problem = problem or f"{type(error).__name__}: {first}"[:90]
    return problem


def _build(kind: str, folder: Path, sizes: dict[str, Any]) -> str | None:
    from transformers import AutoConfig, AutoModelForCausalLM

    base = AutoConfig.for_model(kind)
    text = base.get_text_config()
    known = {n: size for n, size in sizes.items() if size is not None and hasattr(text, n)}
    for key in ("layer_types", "layers_block_type"):
        kinds = getattr(text, key, None)
        if isinstance(kinds, list) and kinds and key not in sizes:
            known[key] = list(islice(cycle(dict.fromkeys(kinds)), N_BLOCKS))
    nested: dict[str, Any] = known
    if text is not base:  # what reads pictures is not run: as small as can be
        nested = {"text_config": {**text.to_dict(), **known}}
        for name in base.sub_configs:
            part = getattr(base, name, None)
            if part is not None and part is not text and name not in nested:
                small = {n: size for n, size in _OTHER_PARTS.items() if hasattr(part, n)}
                nested[name] = {**part.to_dict(), **small}
    config = AutoConfig.for_model(kind, **nested)
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(config)
    if sum(weight.numel() for weight in shape.parameters()) > 20_000_000:
        return "too large"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and not weight.any():  # as no trained model has it
                weight.normal_(std=0.02)
        model(input_ids=torch.arange(3, 40)[None])
    model.save_pretrained(folder)
    return None


def plain(
    folder: Path, blocks: list[int], samples: list[NDArray[np.uint32]]
) -> dict[int, list[torch.Tensor]]:
    """What blocks of the whole model give for each sample, one at a time."""
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[int, list[torch.Tensor]] = {block: [] for block in blocks}
    stack = find_blocks(module, resolve_model(folder).n_layers)
    for block in blocks:

        def keep(_: object, __: object, out: Any, at: int = block) -> None:
            states = out if isinstance(out, torch.Tensor) else out[0]
            seen[at].append((states[0] if states.ndim == 4 else states)[0])

        stack[block].register_forward_hook(keep)
    with torch.no_grad():
        for sample in samples:
            module(input_ids=torch.from_numpy(sample.astype(np.int64))[None])
    return seen


def difference(folder: Path) -> tuple[float, str]:
    """The largest over depths and tokens, relative to the token's norm; and how it was run."""
    resolved, worst, plans = resolve_model(folder), 0.0, set()
    blocks = sorted({0, resolved.n_layers // 2, resolved.n_layers - 1})
    expected: dict[int, list[torch.Tensor]] = {}
    begun: dict[int, list[torch.Tensor]] = {}
    ways: tuple[Packing, ...] = ("auto", "padded")
    for packing in ways:
        for block in blocks:
            model = load_activation_model(
                resolved,
                Hookpoint("resid", block),
                "cpu",
                packing=packing,
                checks=folder / "checks",
            )
            samples = check_samples(model.n_vocab, None, resolved.max_positions)
            expected = expected or plain(folder, blocks, samples)
            begun = begun or plain(folder, blocks, [each[: len(each) // 2] for each in samples])
            if model.is_causal:  # then what follows the last counted token is not run
                worst = max(worst, _largest([[part] for part in begun[block]], expected[block]))
            plans.add(f"{model.plan.depth}/{model.plan.batching}")
            worst = max(worst, _largest(model.read_samples(samples), expected[block]))
        if not any("packed" in plan or "shared" in plan for plan in plans):
            break  # it was padded already
    return worst, ", ".join(sorted(plans))


def _largest(computed: list[list[torch.Tensor]], expected: list[torch.Tensor]) -> float:
    worst = 0.0
    for [ours], theirs in zip(computed, expected, strict=True):
        theirs = theirs[: len(ours)]
        relative = (ours - theirs).norm(dim=1) / theirs.norm(dim=1).clamp_min(1e-6)
        worst = max(worst, float(relative.nan_to_num(float("inf")).max()))
    return worst


def judged(kind: str) -> tuple[str, str]:
    """not_built, equal, refused, silently_wrong or failed; and the difference or the reason."""
    folder = Path(tempfile.mkdtemp(prefix="saelect-architecture-"))
    try:
        unbuilt = build(kind, folder)
        if unbuilt is not None:
            return "not_built", unbuilt
        worst, plans = difference(folder)
    except InputError as error:
        return "refused", str(error.problem)[:110]
    except Exception as error:  # noqa: BLE001 - a traceback is what the benchmark looks for
        return "failed", f"{type(error).__name__}: {str(error)[:90]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ("equal" if worst <= LIMIT else "silently_wrong"), f"{worst:.0e}  {plans}"


def judged_apart(kind: str) -> tuple[str, str]:
    """The same from a process of its own, which may crash or hang."""
    fork = multiprocessing.get_context("fork")  # torch and transformers are imported once
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: theirs.send(judged(kind)))
    process.start()
    theirs.close()
    try:
        if not ours.poll(LONGEST_S):
            return "failed", f"no end within {LONGEST_S} s"
        outcome, text = ours.recv()
    except EOFError:
        process.join()
        return "failed", f"exit {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return outcome, text


def kept_results(file: Path | None) -> dict[str, tuple[str, str]]:
    """Architecture -> outcome and text, from the file of an earlier call."""
    if file is None or not file.is_file():
        return {}
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["kind"]: (row["outcome"], row["text"]) for row in rows}


def main() -> None:
    """Print a line for each architecture, and the counts."""
    from transformers.models.auto import modeling_auto
    from transformers.utils import logging as hf_logging

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--results", type=Path, help="JSON lines; those that are there are kept")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    kinds = list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    kinds = arguments.only or (list(QUICK) if arguments.quick else kinds)
    results = kept_results(arguments.results)
    counts: Counter[str] = Counter()
    for kind in kinds:
        if kind not in results:
            results[kind] = judged_apart(kind)
            if arguments.results is not None:
                row = dict(zip(("kind", "outcome", "text"), (kind, *results[kind]), strict=True))
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        outcome, text = results[kind]
        counts[outcome] += 1
        counts["tried"] += outcome != "not_built"
        print(f"{kind:<24} {outcome:<14} {text}", flush=True)
    names = ("tried", "silently_wrong", "refused", "failed", "not_built")
    print(json.dumps({name: counts[name] for name in names}))


if __name__ == "__main__":
    main()
