"""What representing samples costs on one GPU: tokens/s, MFU, peak memory, agreement with the CPU.

    python -m benchmarks.gpu [--device cuda] [--quick] [--peak-tflops 989] [--minutes 7]

A random Llama and a random TopK SAE at its middle are timed on samples of mixed lengths, after a
warm-up: padded, packed by flex attention, and with tf32 and bfloat16 inputs of the encoder's
product. Agreement is measured on the packaged model and SAE. A way that fails is named, and what
does not begin within the minutes is left out. `--quick --device cpu` tries it where there is no
GPU; such speeds mean nothing. The lines before the last are rows for README's table; the last is
one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selection.activations.batching import iter_activations, needed_lengths
from selection.activations.model import ActivationModel, Packing, load_activation_model
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered
from selection.representation.heads import Head
from selection.representation.represent import represent_heads
from selection.sae.coder import INPUTS, SparseCoder, make_coder
from selection.sae.encode import encode
from selection.sae.formats.load import load_sae
from selection.sae.metadata import SaeInfo

DEMO = Path(str(files("flows") / "demo"))
SIZES = {"full": (16, 2048, 65_536, 64, 4_000), "quick": (2, 64, 512, 8, 40)}
"""Blocks, width, latents, active latents and samples."""
WAYS: dict[str, tuple[Packing, str]] = {
    "padded": ("padded", "float32"),
    "flex": ("flex", "float32"),
    "tf32": ("padded", "tf32"),
    "bfloat16": ("padded", "bfloat16"),
}
"""Name -> packing and the encoder's inputs."""


def samples_of(n: int, n_vocab: int, longest: int) -> list[Rendered]:
    """Random tokens; lengths as in instruction data, four fifths of each counted."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.3, 0.8, n), 16, longest).astype(int)
    made = []
    for length in lengths.tolist():
        tokens = rng.integers(3, n_vocab, length).astype(np.uint32)
        made.append(Rendered(tokens, np.arange(length) >= length // 5, length, False, False))
    return made


def write_model(folder: Path, blocks: int, width: int) -> None:
    """A random Llama in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=1024,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def random_sae(width: int, n_latents: int, k: int) -> SparseCoder:
    """Tied random unit rows."""
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(n_latents, width, generator=g), dim=1)
    info = SaeInfo("", None, width, n_latents, k)
    return make_coder(rows, torch.zeros(n_latents), rows, torch.zeros(width), info=info)


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """Wall time of a run, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def timed(
    arguments: argparse.Namespace, resolved: ResolvedModel, way: str, checks: Path
) -> dict[str, Any]:
    """Speed and memory of the whole stage, and of the forward pass alone."""
    _, width, n_latents, k, n = sizes(arguments)
    packing, inputs = WAYS[way]
    hookpoint = Hookpoint("resid", resolved.n_layers // 2)
    model = load_activation_model(
        resolved, hookpoint, arguments.device, packing=packing, checks=checks
    )
    device = model.device
    coder = random_sae(width, n_latents, k).rounded(inputs).to(device)
    head = Head(hookpoint, coder, "mean", 1e-4)
    samples = samples_of(n, 4096, 1024)
    represent_heads(samples[: len(samples) // 10], model, [head])  # warm-up, and compiling
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    whole = seconds(device, lambda: represent_heads(samples, model, [head]))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    forward = seconds(device, lambda: [None for _ in iter_activations(model, samples, None)])
    n_tokens = int(needed_lengths(samples, model.is_causal).sum())
    n_encoded = sum(int(sample.content_mask.sum()) for sample in samples)
    weights = sum(w.numel() for block in model.blocks for w in block.parameters())
    work = 2.0 * weights * n_tokens + 2.0 * width * n_latents * n_encoded
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "batching": f"{model.plan.depth}/{model.plan.batching}",
        "reason": model.plan.reason,
        "dtype": model.dtype,
        "tokens_per_batch": model.tokens_per_batch(None),
        "tokens_per_s": round(n_tokens / whole),
        "forward_tokens_per_s": round(n_tokens / forward),
        "mfu": round(work / whole / (arguments.peak_tflops * 1e12), 4),
        "peak_gb": round(peak / 1e9, 2),
        "plan_reduced": model.plan_reduced,
    }


def sizes(arguments: argparse.Namespace) -> tuple[int, int, int, int, int]:
    """See SIZES."""
    return SIZES["quick" if arguments.quick else "full"]


def all_timed(arguments: argparse.Namespace, started: float) -> dict[str, dict[str, Any]]:
    """Every way that begins in time; one that fails says why."""
    blocks, width, *_ = sizes(arguments)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temp:
        write_model(Path(temp), blocks, width)
        resolved = resolve_model(temp)
        for way in WAYS:
            if time.perf_counter() - started > 60 * arguments.minutes:
                found[way] = {"failed": f"not begun within {arguments.minutes} minutes"}
                continue
            try:
                found[way] = timed(arguments, resolved, way, Path(temp) / "checks")
            except Exception as error:  # noqa: BLE001 - the other ways are measured nevertheless
                found[way] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
            print(way, json.dumps(found[way]), flush=True)
    return found


def support_jaccard(ours: Tensor, theirs: Tensor) -> float:
    """Mean over tokens of shared active latents over all active ones; dense latents (n, M)."""
    both, either = ((ours > 0) & (theirs > 0)).sum(1), ((ours > 0) | (theirs > 0)).sum(1)
    return float((both / either.clamp_min(1)).mean())


def dense_latents(coder: SparseCoder, x: Tensor) -> Tensor:
    """(n, M) on the CPU."""
    found = encode(coder, x)
    dense = torch.zeros(len(x), coder.info.num_latents, device=x.device)
    return dense.scatter_add_(1, found.top_indices, found.top_acts).cpu()


def demo_activations(model: ActivationModel, samples: Sequence[Rendered]) -> Tensor:
    """Of all counted tokens, sample by sample, on the model's device."""
    parts: dict[int, Tensor] = {}
    for batch in iter_activations(model, samples, None):
        for number, row in enumerate(batch.rows.tolist()):
            mask = torch.from_numpy(batch.sample_of_token == number).to(batch.hidden.device)
            parts[row] = batch.hidden[mask]
    return torch.cat([parts[row] for row in sorted(parts)])


def agreement(arguments: argparse.Namespace) -> dict[str, float]:
    """Active latents of the packaged model and SAE, beside float32 on the CPU."""
    resolved, coder = resolve_model(DEMO / "model"), load_sae(DEMO / "sae")
    samples, hookpoint = samples_of(24, 4096, 256), Hookpoint("resid", 2)
    plain = load_activation_model(resolved, hookpoint, "cpu", "float32", packing="padded")
    x = demo_activations(plain, samples)
    expected = dense_latents(coder, x)

    found = {
        f"{inputs}_encoder_inputs": support_jaccard(
            dense_latents(coder.rounded(inputs), x), expected
        )
        for inputs in INPUTS[1:]  # on the CPU: rounded inputs, sums in float32
    }
    for dtype in ("float32", "bfloat16"):
        model = load_activation_model(resolved, hookpoint, arguments.device, dtype)
        ours = dense_latents(coder.to(model.device), demo_activations(model, samples))
        found[f"{dtype}_on_device"] = support_jaccard(ours, expected)
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measure, and print a table, the README row and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of dense bfloat16")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no way begins")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    speeds = all_timed(arguments, started)
    jaccard = agreement(arguments)
    for name, value in jaccard.items():
        print(f"{name:<24} {value}")
    for way, speed in speeds.items():
        if "failed" not in speed:
            print(
                f"| {speed['device']}, {speed['dtype']}, {way} | {speed['tokens_per_s']:,} tokens/s"
                f" | {speed['mfu']:.2f} | {speed['peak_gb']} GB"
                f" | {jaccard['bfloat16_on_device']:.3f} |"
            )
    minutes = round((time.perf_counter() - started) / 60, 1)
    print(json.dumps({"ways": speeds, "support_jaccard": jaccard, "minutes": minutes}))


if __name__ == "__main__":
    main()
