"""Texts, agreement, memory and stored size for the benchmark of the representation stage."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedModel

from benchmarks.support.embedding_loops import BATCH
from selection.activations.loading import find_blocks
from selection.activations.prefixes import shared_with_previous, sorted_by_tokens
from selection.core.sparse import to_dense
from selection.data.read import read_pool
from selection.records import PoolSource, Rendered, SparseRows
from selection.rendering.renderer import Renderer, render_key
from selection.representation.heads import Head

DEMO = Path(str(files("flows"))) / "demo"
KEEP = (16, 32, 64, 128, 256)
BLOCK = 8  # neighbors; the first one of a block shares nothing, so the pool shares more

Message = tuple[list[dict[str, str]], None]
_CHILD = """
import sys, torch
from pathlib import Path
from benchmarks.support.embedding_parts import DEMO, messages_of
from selection.activations.model import load_activation_model
from selection.models.hookpoints import parse_hookpoint
from selection.models.resolve import resolve_model
from selection.rendering.renderer import load_renderer
from selection.representation.heads import Head
from selection.representation.represent import represent_heads
from selection.sae.coder import make_coder
from selection.sae.metadata import SaeInfo
n, width = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
resolved = resolve_model(DEMO / "model")
place, d_model = parse_hookpoint("resid@0.7", resolved.n_layers), resolved.d_model
model = load_activation_model(resolved, place, "cpu")
weights = torch.randn(width, d_model)
info = SaeInfo("", f"layers.{place.block}", d_model, width, 32)
coder = make_coder(weights, torch.zeros(width), weights, torch.zeros(d_model), info=info)
renderer = load_renderer(DEMO / "model", max_length=256)
messages = messages_of()[:128]
head = Head(place, coder, "mean", 0.01)
def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
represent_heads(renderer.render_batch(messages[:1]), model, [head])  # code that is loaded late
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kilobytes("VmRSS")
for _ in range(n // 128):
    represent_heads(renderer.render_batch(messages), model, [head])
print(kilobytes("VmHWM") - before)
"""


@dataclass(frozen=True)
class Drawn:
    """Some of a pool's texts, and what decides how fast they are.

    messages: as the renderer takes them, in the order of the pool.
    shared, shared_in_pool: share of tokens that the sample before, in the order of their tokens,
              begins with too: of these texts, and of all the pool's.
    sorted_padding_of_pool: see `sorted_padding`.
    """

    messages: list[Message]
    shared: float
    shared_in_pool: float
    sorted_padding_of_pool: float


def messages_of(pool: Path | None = None) -> list[Message]:
    """All samples of the packaged pool, or of one of your own."""
    if pool is None:
        lines = (DEMO / "pool.jsonl").read_text(encoding="utf-8").splitlines()
        return [(json.loads(line)["messages"], None) for line in lines]
    batches = read_pool(PoolSource(str(pool)))
    found = pa.concat_arrays([batch.rows["messages"] for batch in batches])
    return [(json.loads(text), None) for text in found.to_pylist()]


def draw_blocks(messages: Sequence[Message], n: int, renderer: Renderer) -> Drawn:
    """About n texts: blocks of neighbors in the order of the pool's tokens, evenly spaced.

    Equal texts are there once, as in a run. A run sorts a pool of more than 8.4 M tokens stretch by
    stretch, so it shares a little less than `shared_in_pool`. Exits where the pool is too small.
    """
    samples = renderer.render_batch(list(messages))
    _, first = np.unique([render_key(sample) for sample in samples], return_index=True)
    samples, rows = [samples[row] for row in first], first
    order = sorted_by_tokens([sample.tokens for sample in samples])
    if len(order) < 2 * n:
        sys.exit(f"the pool has {len(order)} different texts, {2 * n} are needed")
    starts = np.linspace(0, len(order) - BLOCK, n // BLOCK).astype(np.int64)
    chosen = (starts[:, None] + np.arange(BLOCK)).ravel()
    in_order = [samples[row] for row in order]
    return Drawn(
        [messages[row] for row in np.sort(rows[order[chosen]])],
        _shared([in_order[position] for position in chosen]),
        _shared(in_order),
        sorted_padding(samples),
    )


def _shared(samples: Sequence[Rendered]) -> float:
    tokens = [sample.tokens for sample in samples]
    return float(shared_with_previous(tokens).sum()) / sum(map(len, tokens))


def sorted_padding(samples: Sequence[Rendered]) -> float:
    """Positions that loop (b) runs for each token: batches of samples sorted by length."""
    lengths = -np.sort([-len(sample.tokens) for sample in samples])
    batches = np.split(lengths, np.arange(BATCH, len(lengths), BATCH))
    return sum(len(batch) * int(batch.max()) for batch in batches) / int(lengths.sum())


def arithmetic_of_loop(
    full: NDArray[np.int64], n_run: int, whole: PreTrainedModel, head: Head
) -> float:
    """Multiplications by weights in loop (a) over those of the stage: the ratio.

    full: (n,) tokens of the samples. n_run: tokens that the stage runs. whole: the model with all
    its blocks. Attention itself, which multiplies by no weights, is left out.
    """
    blocks = find_blocks(whole, int(whole.config.num_hidden_layers))
    costs = [sum(w.numel() for w in block.parameters() if w.ndim == 2) for block in blocks]
    encoder = head.coder.encoder_weight.numel()
    batches = np.split(full, np.arange(BATCH, len(full), BATCH))
    n_padded = sum(len(batch) * int(batch.max()) for batch in batches)
    needs = n_run * (sum(costs[: head.hookpoint.block + 1]) + encoder)
    return n_padded * (sum(costs) + encoder) / needs


def support_jaccard(a: SparseRows, b: SparseRows) -> float:
    """Mean over rows of shared over all latents."""
    x, y = to_dense(a) > 0, to_dense(b) > 0
    return float(((x & y).sum(1) / np.maximum((x | y).sum(1), 1)).mean())


def keep_top_table(rows: SparseRows, n_exemplars: int = 8) -> list[dict[str, Any]]:
    """Bytes per sample, and how the ranking by Jaccard with the first rows agrees with the whole.

    spearman: of ranks; top: share of the top tenth that stays.
    """
    dense = to_dense(rows).astype(np.float64)
    whole, table = _scores(dense, n_exemplars), []
    for keep in (*KEEP, dense.shape[1]):
        cut = dense.copy()
        if keep < dense.shape[1]:
            smallest = np.argsort(-dense, axis=1, kind="stable")[:, keep:]
            np.put_along_axis(cut, smallest, 0, axis=1)
        found, n = _scores(cut, n_exemplars), max(1, len(whole) // 10)
        ranks = [np.argsort(np.argsort(-scores, kind="stable")) for scores in (whole, found)]
        shared = set(np.argsort(-whole)[:n]) & set(np.argsort(-found)[:n])
        row = {
            "keep_top": keep if keep < dense.shape[1] else None,
            "bytes_per_sample": round(6 * float((cut > 0).sum(1).mean()) + 24, 1),
            "spearman": round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 4),
            "top": round(len(shared) / n, 3),
        }
        table.append(row)
        sys.stdout.write(f"  {row}\n")
    return table


def _scores(dense: Any, n_exemplars: int) -> Any:
    """(n - m,) mean generalized Jaccard of the later rows with the first m."""
    scores = np.zeros(len(dense) - n_exemplars)
    for exemplar in dense[:n_exemplars]:
        smaller = np.minimum(dense[n_exemplars:], exemplar).sum(1)
        scores += smaller / np.maximum(dense[n_exemplars:], exemplar).sum(1)
    return scores / n_exemplars


def peak_memory() -> list[dict[str, int]]:
    """Peak memory above model and SAE (kB), by samples and latents; each in a process (Linux)."""
    table = []
    for n, width in ((128, 4096), (1024, 4096), (128, 32768)):
        command = [sys.executable, "-c", _CHILD, str(n), str(width)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        table.append({"samples": n, "latents": width, "kB": int(out.split()[-1])})
        sys.stdout.write(f"  {table[-1]}\n")
    return table
