"""What the representation stage costs beside the bare forward pass, and beside the usual loops.

    python -m benchmarks.embedding [--quick] [--pool FILE] [--max-length N] [--clock cpu]
        [--threads N]

Stage: texts to a written shard. Bare: the truncated forward pass alone, packed by saelect or padded
by plain transformers, whichever is faster; same dtype, threads, samples and tokens per batch.
Loops: (a) pool order, batches of 8, padded, the whole model, dense latents of every position as
SAELens makes them; (b) the same, sorted by length and on the truncated model. Repeats alternate.
The stage runs what samples begin with in common once, so the texts are what it meets in one unit:
blocks of neighbors in the order of the pool's tokens, evenly spaced. How much is gained depends on
the texts, so a pool of your own can be given, and what decides it is printed: the share of tokens
that are another sample's beginning, here and in the whole pool; the positions that (b) runs for a
token, here and in the whole pool; `arithmetic`, how many times as many multiplications by weights
(a) does, attention left out; and the stage with every token run (`alone`).
Weights of the d=768 shape are random: only time, memory and agreement are measured, never quality.
The clock `cpu` counts the process's CPU seconds, for machines that do other work meanwhile.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.support.embedding_loops import DenseLoop
from benchmarks.support.embedding_parts import (
    DEMO,
    Drawn,
    arithmetic_of_loop,
    draw_blocks,
    keep_top_table,
    messages_of,
    peak_memory,
    sorted_padding,
    support_jaccard,
)
from selection.activations.batching import needed_lengths, plan_of, tokens_to_run
from selection.activations.model import ActivationModel, load_activation_model
from selection.models.hookpoints import hookpoint_of, parse_hookpoint
from selection.models.resolve import resolve_model
from selection.records import SparseRows
from selection.rendering.renderer import Renderer, load_renderer, render_key
from selection.representation.heads import Head
from selection.representation.represent import calibrate_head, represent_heads
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.formats.load import load_sae
from selection.sae.metadata import SaeInfo
from storage.pools.shards import write_shard

RATIOS = (
    "stage_over_forward",
    "speedup_over_padded_loop",
    "arithmetic",
    "speedup_over_sorted_loop",
    "speedup_by_sharing",
)
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Shape:
    """A model folder, where it is read, and its SAE."""

    name: str
    folder: Path
    block: int
    coder: SparseCoder


def demo_shape() -> Shape:
    """The packaged model at its SAE's hookpoint."""
    coder = load_sae(DEMO / "sae")
    hookpoint = hookpoint_of(coder.info.hookpoint)
    return Shape("demo", DEMO / "model", hookpoint.block if hookpoint else 0, coder)


def wide_shape(folder: Path) -> Shape:
    """d=768 x 12 blocks, read behind block 7, 8x width, k=32; random weights, demo tokenizer."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(transformers.AutoTokenizer.from_pretrained(DEMO / "model")),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=512,
    )
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(DEMO / "model").save_pretrained(folder)
    weights = torch.randn(8 * 768, 768) / 768**0.5
    info = SaeInfo("", "layers.7", 768, 8 * 768, 32)
    zeros = torch.zeros(768)
    coder = make_coder(weights, torch.zeros(8 * 768), weights, zeros, info=info)
    return Shape("d768", folder, 7, coder)


class Runs:
    """The six things that are timed for one shape and set of texts."""

    def __init__(
        self, shape: Shape, messages: Sequence[Any], folder: Path, max_length: int
    ) -> None:
        """Load the models; nothing is timed here."""
        resolved = resolve_model(shape.folder)
        self.hookpoint = parse_hookpoint(f"resid@{shape.block}", resolved.n_layers)
        self.model: ActivationModel = load_activation_model(resolved, self.hookpoint, "cpu")
        self.renderer: Renderer = load_renderer(shape.folder, max_length=max_length)
        self.shape, self.messages, self.folder = shape, messages, folder
        self.samples = self.renderer.render_batch(messages)
        head = Head(self.hookpoint, shape.coder, "mean")
        known = calibrate_head(self.samples[:8], self.model, head)
        self.head = Head(self.hookpoint, shape.coder, "mean", known.unit)
        self.whole = transformers.AutoModel.from_pretrained(shape.folder, dtype=torch.float32)
        self.cut = load_activation_model(resolved, self.hookpoint, "cpu", packing="padded")
        self.alone = load_activation_model(resolved, self.hookpoint, "cpu", share_prefixes=False)
        self.lengths = needed_lengths(self.samples, True)

    def stage(self) -> SparseRows:
        """Texts to a written shard."""
        return self._stage(self.model)

    def stage_alone(self) -> SparseRows:
        """The same with every token of every sample run."""
        return self._stage(self.alone)

    def _stage(self, model: ActivationModel) -> SparseRows:
        samples = self.renderer.render_batch(self.messages)
        keys = np.stack([np.frombuffer(render_key(sample), np.uint8) for sample in samples])
        [(rows, report)] = represent_heads(samples, model, [self.head])
        write_shard(self.folder, f"unit-{time.monotonic_ns()}", keys, rows, report)
        return rows

    def vectors(self, messages: Sequence[Any]) -> SparseRows:
        """Of any texts."""
        samples = self.renderer.render_batch(messages)
        return represent_heads(samples, self.model, [self.head])[0][0]

    def bare_packed(self) -> None:
        """The truncated forward pass as saelect runs it."""
        self._forward(self.model)

    def bare_padded(self) -> None:
        """The truncated forward pass of transformers, sorted by length and padded."""
        self._forward(self.cut)

    def _forward(self, model: ActivationModel) -> None:
        for rows in plan_of(model, self.samples):
            model._run([self.samples[row].tokens[: self.lengths[row]] for row in rows])

    def padded_loop(self) -> SparseRows:
        """(a)."""
        order = np.arange(len(self.messages))
        return self._loop(DenseLoop(self.whole, self.shape.block, self.head), order)

    def sorted_loop(self) -> SparseRows:
        """(b)."""
        order = np.argsort(-self.lengths, kind="stable")
        return self._loop(DenseLoop(self.cut.module, self.shape.block, self.head), order)

    def _loop(self, loop: DenseLoop, order: np.ndarray[Any, np.dtype[np.int64]]) -> SparseRows:
        samples = self.renderer.render_batch(self.messages)
        return loop.vectors(samples, order)


def measure(runs: Runs, repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each run, `repeats` times in turn, after one unmeasured forward pass."""
    runs.bare_packed()
    names = ("stage", "stage_alone", "bare_packed", "bare_padded", "padded_loop", "sorted_loop")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            started = clock()
            getattr(runs, name)()
            seconds[name].append(clock() - started)
    return seconds


def summary(runs: Runs, seconds: dict[str, list[float]]) -> dict[str, float]:
    """Ratios of medians, and the support Jaccard of stage and loop (a)."""
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    bare = min(middle["bare_packed"], middle["bare_padded"])
    return {
        "stage_over_forward": middle["stage"] / bare,
        "speedup_over_padded_loop": middle["padded_loop"] / middle["stage"],
        "arithmetic": arithmetic_of_loop(
            np.array([len(sample.tokens) for sample in runs.samples]),
            tokens_to_run(runs.model, runs.samples),
            runs.whole,
            runs.head,
        ),
        "speedup_over_sorted_loop": middle["sorted_loop"] / middle["stage"],
        "speedup_by_sharing": middle["stage_alone"] / middle["stage"],
        "positions_of_sorted_loop": sorted_padding(runs.samples),
        "support_jaccard": support_jaccard(runs.stage(), runs.padded_loop()),
        "tokens_per_second": float(runs.lengths.sum()) / middle["stage"],  # shared ones as well
        "run_share": tokens_to_run(runs.model, runs.samples) / float(runs.lengths.sum()),
    }


def evenly(messages: Sequence[Any], n: int) -> list[Any]:
    """N of them, evenly spaced."""
    return [messages[row] for row in np.linspace(0, len(messages) - 1, n).astype(np.int64)]


def facts_of(drawn: Drawn) -> dict[str, float]:
    """What the texts are like, beside the pool that they stand for."""
    return {
        "shared": drawn.shared,
        "shared_in_pool": drawn.shared_in_pool,
        "positions_of_sorted_loop_in_pool": drawn.sorted_padding_of_pool,
    }


def main() -> None:
    """Print a table per shape, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples: within two minutes")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0, help="default: 3, quick 2")
    parser.add_argument("--pool", type=Path, help="texts of a pool of yours, spaced evenly")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text at most")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    repeats = given.repeats or (2 if given.quick else 3)
    sizes = {"demo": 48, "d768": 16} if given.quick else {"demo": 512, "d768": 192}
    messages = messages_of(given.pool)
    result: dict[str, object] = {"clock": given.clock, "threads": given.threads}
    with tempfile.TemporaryDirectory() as name:
        for shape in (demo_shape(), wide_shape(Path(name) / "model")):
            drawn = draw_blocks(
                messages,
                sizes[shape.name],
                load_renderer(shape.folder, max_length=given.max_length),
            )
            runs = Runs(shape, drawn.messages, Path(name) / shape.name, given.max_length)
            seconds = measure(runs, repeats, CLOCKS[given.clock])
            figures = summary(runs, seconds) | facts_of(drawn)
            _print(shape.name, runs, seconds, figures)
            result[shape.name] = {key: round(value, 4) for key, value in figures.items()}
            if shape.name == "d768":
                result |= {key: round(figures[key], 4) for key in RATIOS}
            elif not given.quick:
                result["keep_top"] = keep_top_table(runs.vectors(evenly(messages, 400)))
    if not given.quick:
        result["peak_memory"] = peak_memory()
    sys.stdout.write(json.dumps(result) + "\n")


def _print(
    name: str, runs: Runs, seconds: dict[str, list[float]], figures: dict[str, float]
) -> None:
    lines = [f"{name}: {len(runs.samples)} samples, {int(runs.lengths.sum()):,} tokens"]
    for key, values in seconds.items():
        middle, spread = statistics.median(values), max(values) - min(values)
        lines.append(f"  {key:12} {middle:8.2f} s   spread {spread:.2f} s")
    lines += [f"  {key:25} {value:10.3f}" for key, value in figures.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
