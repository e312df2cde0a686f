"""Selection with near-duplicates and diversity: time, memory, and recall of planted copies.

    python -m benchmarks.picking --pool pool.parquet --targets targets.jsonl --workspace DIR
    python -m benchmarks.picking --quick

DIR is a workspace in which `saelect bench retrieval` has read the pool. Without it, vectors and
texts are synthetic. Copies are planted: the vector's values moved at random, one word of the text
replaced. Those that are near by the definition (generalized Jaccard
and shared runs of words at least the limits) should be told from their originals; recall is the
share of them of which the selection holds one at most. 5 % of the pool are selected.

Below: how long one more candidate takes among all others, kept, by exact comparison and by FAISS
(flat index of sketches), with the recall of planted copies; and what `ranking.search: faiss` brings
up of the exact top 5 %. Times are CPU seconds of one thread, memory is the peak of each step
(VmHWM, reset before it). The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.planted_copies import (
    SEED,
    PlantedPool,
    planted,
    synthetic_texts,
    true_pairs,
)
from benchmarks.support.ranking_data import Setting, synthetic_rows
from benchmarks.support.stored_pool import stored_pool
from selection.core.sparse import concatenate, take
from selection.picking.pick import choose
from selection.picking.ranking import rank
from selection.picking.rules.diversity import Diversity
from selection.picking.rules.from_settings import Rules
from selection.picking.rules.near_duplicates import DuplicateFinder, KeptVectors
from selection.records import Budget, Picks, Ranking
from selection.similarity.queries import exemplar_queries, score
from selection.similarity.sketches import build_index, search, sketch

FRACTION, SIMILARITY, TEXT_OVERLAP, SHINGLE_WORDS = 0.05, 0.9, 0.7, 3
SYNTHETIC = Setting("nnz 700 of 2,048", 700, 2_048, 900, 0.3, 115_000, 10_000)
N_EXEMPLARS, CANDIDATES = 8, 2000


def ranking_of(data: PlantedPool) -> Ranking:
    """All rows by the exact score, shard after shard."""
    queries = exemplar_queries(data.exemplars, data.weights, "mean")
    scores = np.zeros(data.vectors.n_vectors)
    for numbers, rows in data.vectors.blocks():
        scores[numbers] = score(rows, queries)
    return rank(scores, np.ones(len(scores), np.bool_))


def rules_of(data: PlantedPool, *, duplicates: bool, diversity: bool) -> Rules:
    """The rules of a run."""

    def finder() -> DuplicateFinder:
        return DuplicateFinder(
            KeptVectors(data.weights, SIMILARITY),
            data.vectors.gather,
            lambda rows: [data.texts[row] for row in rows],
            text_overlap=TEXT_OVERLAP,
            shingle_words=SHINGLE_WORDS,
        )

    return Rules(
        duplicates=finder if duplicates else None,
        diversity=Diversity() if diversity else None,
        vectors=data.vectors.gather,
        weights=data.weights,
    )


def measured(job: Callable[[], Any]) -> tuple[Any, float, int]:
    """Result, CPU seconds and peak memory in MB of a step."""
    resettable = Path("/proc/self/clear_refs")
    if resettable.exists():
        resettable.write_text("5")
    start = time.process_time()
    result = job()
    seconds = time.process_time() - start
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peak = next((int(line.split()[1]) // 1000 for line in lines if line.startswith("VmHWM")), 0)
    return result, seconds, peak


def copies_together(
    picks: Picks, ranking: Ranking, data: PlantedPool, real: NDArray[np.bool_]
) -> float:
    """Share of the true pairs of which the selection does not hold both."""
    chosen = np.zeros(data.vectors.n_vectors, np.bool_)
    chosen[ranking.rows[picks.positions]] = True
    both = chosen[data.plants[real]] & chosen[data.originals[real]]
    return float(1 - both.mean())


def selections(
    data: PlantedPool, ranking: Ranking, real: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """One row for every combination of the two rules."""
    rows = []
    n = len(ranking.rows)
    for name, duplicates, diversity in (
        ("the best by score", False, False),
        ("near-duplicates", True, False),
        ("diversity", False, True),
        ("near-duplicates, diversity", True, True),
    ):
        rules = rules_of(data, duplicates=duplicates, diversity=diversity)
        picks, seconds, peak = measured(
            partial(choose, ranking, Budget(fraction=FRACTION), n, rules)
        )
        rows.append(
            {
                "step": name,
                "cpu_s": round(seconds, 2),
                "peak_mb": peak,
                "picks": len(picks.positions),
                "passed_over": len(picks.passed_over),
                "recall": round(copies_together(picks, ranking, data, real), 4),
            }
        )
    return rows


def among_all(data: PlantedPool, real: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Looking for the originals of all plants among all rows, kept: exactly, and by sketches."""
    kept, n = KeptVectors(data.weights, SIMILARITY), data.vectors.n_vectors
    kept_row: list[int] = []

    def keep_all() -> None:
        for numbers, rows in data.vectors.blocks():
            for i in np.flatnonzero(numbers < data.plants[0]):
                kept.close_to(rows, int(i))
                kept.keep(rows, int(i))
                kept_row.append(int(numbers[i]))

    _, filling, peak = measured(keep_all)
    copies = data.vectors.gather(data.plants)
    neighbors, asking, _ = measured(
        lambda: [set(kept.close_to(copies, i)[0].tolist()) for i in range(len(copies))]
    )
    number_of = {row: number for number, row in enumerate(kept_row)}
    hits = [
        number_of[int(row)] in near for row, near in zip(data.originals, neighbors, strict=True)
    ]
    exact = {
        "method": "exact",
        "fill_s": round(filling, 1),
        "ms_per_candidate": round(1e3 * asking / len(copies), 3),
        "peak_mb": peak,
        "recall": float(np.mean(np.array(hits)[real])),
    }

    def index_all() -> Any:
        sketches = np.zeros((n, 256), np.float32)
        for numbers, rows in data.vectors.blocks():
            sketches[numbers] = sketch(rows)
        return build_index(sketches[: data.plants[0]])

    index, filling, peak = measured(index_all)
    near, asking, _ = measured(lambda: search(index, sketch(copies), 20))
    hits = [int(row) in rows for row, rows in zip(data.originals, near.rows, strict=True)]
    faiss = {
        "method": "FAISS flat, 20 candidates",
        "fill_s": round(filling, 1),
        "ms_per_candidate": round(1e3 * asking / len(copies), 3),
        "peak_mb": peak,
        "recall": float(np.mean(np.array(hits)[real])),
    }
    queries = sketch(data.exemplars, weights=data.weights)
    brought = np.unique(search(index, queries, min(CANDIDATES, index.ntotal)).rows)
    return [exact, faiss, {"brought_up": brought}]


def printed(rows: Sequence[dict[str, Any]]) -> None:
    """A table with the keys as its head."""
    names = list(rows[0])
    width = max(len(str(row[names[0]])) for row in rows) + 2
    print("".join(f"{n:<{width}}" if n == names[0] else f"{n:>18}" for n in names))
    for row in rows:
        cells = (f"{v:<{width}}" if n == names[0] else f"{v:>18,}" for n, v in row.items())
        print("".join(cells))


def main() -> None:
    """Print tables, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path)
    parser.add_argument("--targets", type=Path, help="whose exemplars rank")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    labelled = [arguments.pool, arguments.targets, arguments.workspace]
    if any(labelled) and not all(labelled):
        parser.error("--pool, --targets and --workspace belong together")
    if all(labelled):
        stored = stored_pool(arguments.pool, arguments.targets, arguments.workspace)
        rows, texts, exemplars = stored.rows, list(stored.texts), concatenate(stored.targets)
        every = np.linspace(0, len(exemplars) - 1, N_EXEMPLARS).astype(np.int64)
        exemplars = take(exemplars, every)
    else:
        n = SYNTHETIC.n_rows_quick if arguments.quick else SYNTHETIC.n_rows
        rows, exemplars = (
            synthetic_rows(SYNTHETIC, n, SEED),
            synthetic_rows(SYNTHETIC, N_EXEMPLARS, 1),
        )
        texts = synthetic_texts(n)
    if arguments.quick and len(rows) > 10_000:
        rows, texts = take(rows, np.arange(10_000)), texts[:10_000]
    with tempfile.TemporaryDirectory() as folder:
        data = planted(rows, exemplars, texts, len(rows) // 100, Path(folder) / "shards")
        nnz = len(rows.values) / len(rows)
        del rows
        real = true_pairs(data, SIMILARITY, TEXT_OVERLAP, SHINGLE_WORDS)
        print(f"{data.vectors.n_vectors:,} vectors of {nnz:.0f} latents, {len(real):,} planted,")
        print(f"{int(real.sum()):,} of them near-duplicates of their originals\n")
        ranking_of(data)  # Compiles.
        ranking, seconds, peak = measured(lambda: ranking_of(data))
        print(f"ranking against {N_EXEMPLARS} exemplars: {seconds:.1f} s, peak {peak:,} MB\n")
        table = selections(data, ranking, real)
        printed(table)
        print()
        exact, faiss, others = among_all(data, real)
        printed([exact, faiss])
    best = ranking.rows[: int(FRACTION * len(ranking.rows))]
    best = best[best < data.plants[0]]
    share = float(np.isin(best, others["brought_up"]).mean())
    n_up = len(others["brought_up"])
    print(f"\nsketches of {N_EXEMPLARS} exemplars bring up {n_up:,}: {share:.3f} of the top 5 %")
    print(
        json.dumps(
            {
                "vectors": data.vectors.n_vectors,
                "latents_per_vector": round(nnz, 1),
                "planted_near": int(real.sum()),
                "ranking_cpu_s": round(seconds, 2),
                "ranking_peak_mb": peak,
                "selections": table,
                "among_all": [exact, faiss],
                "search_recall_of_top": round(share, 4),
                "search_candidates": n_up,
            }
        )
    )


if __name__ == "__main__":
    main()
