"""Exact scoring of a pool against exemplars, beside FAISS and scipy, and the machine's limits.

    python -m benchmarks.ranking [--quick]
        [--pool pool.parquet --targets targets.jsonl --workspace DIR [--subpool ids.txt]]

The job of the first tables: stored rows in, the mean generalized Jaccard against 50 exemplars out.
Synthetic vectors have latents of different popularity (Zipf), topics, and lognormal values; DIR is
a workspace in which `saelect bench retrieval` has read the pool. Times are CPU time of one thread,
the least of several runs that take turns: a busy machine disturbs them little.

saelect  reads the rows as they are stored; its preparation is the exemplars' tables.
scipy    CSC columns of the exemplar's latents, minima, bincount; its preparation is `tocsc`.
faiss    IndexFlat with METRIC_Jaccard on the exemplar's latents and one column for everything else
         (the smallest dense form that is exact); its preparation is those columns, per exemplar.
memory   limit: reading the stored rows once at the rate of a plain sum over memory.
scatter  limit: one load, minimum, add, store for every entry that a row shares with an exemplar, at
         the rate that the first-level cache allows.

All know the norms. Baselines take one exemplar after the other and are timed on a few of the 50.
All scores are compared. More tables are those of `benchmarks.support.ranking_scale`.
The last line is one JSON object; its first ratios are of the nnz 200 setting: `speedup_over_X` is
of the whole job; `..._prepared` leaves out what the baseline prepares, while saelect reads
stored rows.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.support.ranking_baselines import (
    cpu_seconds,
    faiss_columns,
    read_rate,
    scatter_rate,
    scipy_scores,
)
from benchmarks.support.ranking_data import SETTINGS, synthetic_rows
from benchmarks.support.ranking_scale import all_targets, growth
from benchmarks.support.stored_pool import stored_pool
from selection.core.sparse import concatenate, document_frequency, take
from selection.records import SparseRows
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.queries import ExemplarReduction, exemplar_queries, score
from selection.similarity.scorer import Scorer

N_EXEMPLARS = 50
REPEATS = 4


def in_turn(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least CPU milliseconds of every job; the jobs take turns."""
    best = dict.fromkeys(jobs, np.inf)
    for _ in range(repeats):
        for name, job in jobs.items():
            best[name] = min(best[name], 1e3 * cpu_seconds(job, 1))
    return best


def time_saelect(
    rows: SparseRows, norms: NDArray[np.int64], exemplars: SparseRows
) -> dict[str, float]:
    """CPU milliseconds of preparing the exemplars and of scoring all rows."""
    weights = np.ones(rows.n_latents, np.int64)
    jobs: dict[str, Callable[[], object]] = {}
    reductions: dict[str, ExemplarReduction] = {"saelect": "mean", "saelect_prototype": "prototype"}
    for name, reduction in reductions.items():
        queries = exemplar_queries(exemplars, weights, reduction)
        jobs[name] = partial(score, rows, queries, norms=norms)
        jobs[name]()  # Compiles.
    jobs["prepare"] = lambda: Scorer(weights, [exemplar_queries(exemplars, weights, "mean").target])
    return in_turn(jobs, REPEATS)


def time_baselines(
    rows: SparseRows, norms: NDArray[np.int64], exemplars: SparseRows, n_timed: int
) -> dict[str, float]:
    """CPU milliseconds: tocsc once, and per exemplar scipy, FAISS, and FAISS's columns."""
    weights = np.ones(rows.n_latents, np.int64)
    stored = sp.csr_array((rows.values, rows.latents, rows.indptr), (len(rows), rows.n_latents))
    columns = stored.tocsc()
    times: list[dict[str, float]] = []
    for j in range(n_timed):
        alone = take(exemplars, np.array([j]))
        expected = score(rows, exemplar_queries(alone, weights, "max"), norms=norms)
        np.testing.assert_allclose(scipy_scores(columns, norms, exemplars, j), expected, rtol=1e-12)
        index, query = faiss_columns(columns, norms, exemplars, j)
        similarity, order = index.search(query, min(1_000, len(rows)))
        np.testing.assert_allclose(similarity[0], expected[order[0]], atol=2e-6)
        jobs: dict[str, Callable[[], object]] = {
            "scipy": partial(scipy_scores, columns, norms, exemplars, j),
            "faiss": partial(index.search, query, min(1_000, len(rows))),
        }
        columns_ms = 1e3 * cpu_seconds(partial(faiss_columns, columns, norms, exemplars, j), 1)
        times.append({**in_turn(jobs, 3), "faiss_columns": columns_ms})
    means = {name: float(np.mean([each[name] for each in times])) for name in times[0]}
    return {"tocsc": 1e3 * cpu_seconds(stored.tocsc, 2), **means}


def measure(
    rows: SparseRows, exemplars: SparseRows, n_timed: int, rates: tuple[float, float]
) -> dict[str, float]:
    """CPU milliseconds of the whole job by each method, the limits, and the ratios."""
    m = len(exemplars)
    norms = weighted_norms(rows, np.ones(rows.n_latents, np.int64))
    saelect = time_saelect(rows, norms, exemplars)
    baselines = time_baselines(rows, norms, exemplars, n_timed)
    scipy_job, faiss_job = m * baselines["scipy"], m * baselines["faiss"]
    faiss_prepare = m * baselines["faiss_columns"]
    n_bytes = rows.indptr.nbytes + rows.latents.nbytes + rows.values.nbytes
    shared = float(document_frequency(rows) @ document_frequency(exemplars))
    whole = saelect["prepare"] + saelect["saelect"]
    figures = {
        "rows": len(rows),
        "mean_nnz": len(rows.values) / len(rows),
        "exemplars": m,
        "saelect_prepare_ms": saelect["prepare"],
        **{f"{name}_ms": saelect[name] for name in saelect if name != "prepare"},
        "scipy_prepare_ms": baselines["tocsc"],
        "scipy_ms": scipy_job,
        "faiss_prepare_ms": faiss_prepare,
        "faiss_ms": faiss_job,
        "memory_ms": 1e3 * n_bytes / rates[0],
        "scatter_ms": 1e3 * shared / rates[1],
        "shared_entries_per_pair": shared / len(rows) / m,
        "speedup_over_scipy": (baselines["tocsc"] + scipy_job) / whole,
        "speedup_over_scipy_prepared": scipy_job / saelect["saelect"],
        "speedup_over_faiss_jaccard": (faiss_prepare + faiss_job) / whole,
        "speedup_over_faiss_jaccard_prepared": faiss_job / saelect["saelect"],
    }
    return {name: round(value, 3) for name, value in figures.items()}


def print_table(name: str, figures: dict[str, float]) -> None:
    """One setting for people: CPU milliseconds of the job, and as multiples of saelect's."""
    whole = figures["saelect_prepare_ms"] + figures["saelect_ms"]
    print(
        f"\n{name}: {figures['rows']:,.0f} rows, mean nnz {figures['mean_nnz']:.0f},"
        f" {figures['shared_entries_per_pair']:.0f} shared with an exemplar"
    )
    print(
        f"{'50 exemplars, CPU ms of one thread':<44}{'prepare':>10}{'score':>10}{'x saelect':>11}"
    )
    for label, key in [
        ("saelect, mean", "saelect"),
        ("saelect, prototype", "saelect_prototype"),
        ("scipy CSC and bincount", "scipy"),
        ("FAISS METRIC_Jaccard, restricted columns", "faiss"),
        ("limit: reading the rows once", "memory"),
        ("limit: scattering every shared entry", "scatter"),
    ]:
        prepare, score = figures.get(f"{key}_prepare_ms", 0.0), figures[f"{key}_ms"]
        print(f"{label:<44}{prepare:>10.1f}{score:>10.1f}{(prepare + score) / whole:>11.2f}")


def main() -> None:
    """Run all settings, print their tables, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller pools, under two minutes")
    parser.add_argument("--pool", type=Path, help="labelled pool, Parquet")
    parser.add_argument("--targets", type=Path, help="target tasks, JSON lines")
    parser.add_argument("--workspace", type=Path, help="keeps the pool's vectors")
    parser.add_argument("--subpool", type=Path, help="ids of the rows to rank")
    arguments = parser.parse_args()
    given = [arguments.pool, arguments.targets, arguments.workspace]
    if any(given) and not all(given):
        parser.error("--pool, --targets and --workspace belong together")
    quick = arguments.quick
    faiss.omp_set_num_threads(1)
    rates = read_rate(), scatter_rate()
    print(f"one thread reads {rates[0] / 1e9:.1f} GB/s, scatters {rates[1] / 1e9:.2f} G postings/s")
    results, n_timed = {}, 2 if quick else 5
    for setting in SETTINGS:
        rows = synthetic_rows(setting, setting.n_rows_quick if quick else setting.n_rows, seed=1)
        exemplars = synthetic_rows(setting, N_EXEMPLARS, seed=2)
        results[setting.name] = measure(rows, exemplars, n_timed, rates)
        print_table(setting.name, results[setting.name])
    whole: dict[str, object] = {}
    if all(given):
        stored = stored_pool(
            arguments.pool, arguments.targets, arguments.workspace, arguments.subpool
        )
        few = np.linspace(0, len(stored.rows) - 1, 2_000 if quick else 12_000).astype(np.int64)
        rows = take(stored.rows, np.unique(few))
        pool = concatenate(stored.targets)
        exemplars = take(pool, np.linspace(0, len(pool) - 1, N_EXEMPLARS).astype(np.int64))
        results["demo model, real rows"] = measure(rows, exemplars, n_timed, rates)
        print_table("demo model, real rows", results["demo model, real rows"])
        whole["all_targets"] = all_targets(stored.rows, stored.targets)
    whole["growth"] = growth([20_000] if quick else [100_000, 1_000_000])
    first = results[SETTINGS[0].name]
    ratios = {key: value for key, value in first.items() if key.startswith("speedup")}
    about = {"quick": quick, "read_gb_per_s": round(rates[0] / 1e9, 1)}
    about["scatter_g_per_s"] = round(rates[1] / 1e9, 2)
    print(json.dumps({**ratios, **about, "settings": results, **whole}))


if __name__ == "__main__":
    main()
