"""Ranking at scale: all target tasks of a real pool in one pass, and synthetic pools that grow.

python -m benchmarks.support.ranking_scale FOLDER    # scores files of `growth` in a process alone
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.support.ranking_data import SETTINGS, mapped_parts, synthetic_rows, write_parts
from selection.core.sparse import document_frequency, take
from selection.records import SparseRows
from selection.similarity.queries import ExemplarReduction, exemplar_queries, score
from selection.similarity.scorer import Scorer
from selection.similarity.weights import idf_weights

ALL_TARGETS: tuple[ExemplarReduction, ...] = ("mean", "max", "prototype")
N_GROWTH_EXEMPLARS = 100
PART_ROWS = 50_000


def all_targets(rows: SparseRows, targets: Sequence[SparseRows]) -> dict[str, object]:
    """Wall seconds of all target tasks in one pass over a pool, idf, mean, 2 threads."""
    weights = idf_weights(document_frequency(rows), int((np.diff(rows.indptr) > 0).sum()))
    figures: dict[str, object] = {
        "rows": len(rows),
        "mean_nnz": round(len(rows.values) / len(rows), 1),
        "targets": len(targets),
        "exemplars": sum(map(len, targets)),
    }
    print(
        f"\nall {len(targets)} targets, {figures['exemplars']} exemplars, idf, one pass over"
        f" {len(rows):,} rows, 2 threads, warm, norms included"
    )
    for reduction in ALL_TARGETS:
        queries = [exemplar_queries(target, weights, reduction) for target in targets]
        scorer = Scorer(weights, [each.target for each in queries])
        scorer.scores(take(rows, np.arange(512)))  # Compiles.
        scorer.scores(rows, threads=2)
        begun, cpu = time.perf_counter(), time.process_time()
        scorer.scores(rows, threads=2)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        figures[f"{reduction}_seconds"] = round(seconds, 2)
        figures[f"{reduction}_cpu_seconds"] = round(cpu, 2)
        print(f"{reduction:<12}{seconds:>8.2f} s wall {cpu:>8.2f} s CPU")
    return figures


def growth(sizes: list[int]) -> list[dict[str, float]]:
    """Seconds and peak memory by pool size, each in a process of its own."""
    table: list[dict[str, float]] = []
    print(
        f"\ngrowth: nnz 200 of 131,072, {N_GROWTH_EXEMPLARS} exemplars, mean, 2 threads, files"
        f" mapped in parts of {PART_ROWS:,} rows, norms included"
    )
    print(f"{'rows':>12}{'wall s':>9}{'CPU s':>9}{'on disk MB':>12}{'peak MB':>9}{'before MB':>11}")
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_parts(SETTINGS[0], n, PART_ROWS, Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            command = [sys.executable, "-m", "benchmarks.support.ranking_scale", folder]
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        row = {"rows": n, "disk_mb": round(size / 1e6), **json.loads(line)}
        table.append(row)
        print(
            f"{n:>12,}{row['seconds']:>9.2f}{row['cpu_seconds']:>9.2f}{row['disk_mb']:>12,}"
            f"{row['peak_mb']:>9,.0f}{row['before_mb']:>11,.0f}"
        )
    return table


def score_mapped(folder: Path) -> dict[str, float]:
    """Score files that are mapped; seconds, and resident memory before and at its peak."""
    n_latents = SETTINGS[0].n_latents
    exemplars = synthetic_rows(SETTINGS[0], N_GROWTH_EXEMPLARS, seed=2)
    weights = np.ones(n_latents, np.int64)
    block = exemplar_queries(exemplars, weights, "mean")
    few = take(next(mapped_parts(n_latents, folder)), np.arange(1_000))
    score(few, block)  # Compiles.
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
    before = _resident_mb("VmHWM")
    begun, cpu = time.perf_counter(), time.process_time()
    scores = [score(rows, block, threads=2) for rows in mapped_parts(n_latents, folder)]
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert np.concatenate(scores).max() <= 1
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "before_mb": round(before, 1),
        "peak_mb": round(_resident_mb("VmHWM"), 1),
    }


def _resident_mb(name: str) -> float:
    """A figure of this process's memory, mapped files included, from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


if __name__ == "__main__":
    print(json.dumps(score_mapped(Path(sys.argv[1]))))
