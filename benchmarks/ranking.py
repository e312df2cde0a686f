"""Exact scoring of a pool against exemplars, beside FAISS and scipy, one thread each.

    python -m benchmarks.ranking [--quick]

The job: stored rows in, the mean generalized Jaccard against 50 exemplars out, on made-up vectors
whose latents differ in popularity (Zipf), come in topics, and have lognormal values. Times are CPU
time of one thread, the best of several runs, so that a busy machine disturbs them little.

saelect  reads the rows as they are stored; its preparation is the exemplars' tables.
scipy    CSC columns of the exemplar's latents, minima, bincount; its preparation is `tocsc`.
faiss    IndexFlat with METRIC_Jaccard on the exemplar's latents and one column for everything else
         (the smallest dense form that is exact); its preparation is those columns, per exemplar.
limit    reading the stored rows once at the rate of a plain sum over memory.

All know the norms. Peers take one exemplar after the other and are timed on a few of the 50. All
scores are compared. The last line is one JSON object; its ratios are of the nnz 200 setting:
`speedup_over_X` is of the whole job, `..._prepared` leaves all preparation out.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from selection.jaccard import Reduction, build_queries, score_matrix, score_rows
from selection.records import SparseRows
from selection.row_kernels import weighted_norms

N_EXEMPLARS = 50
N_TOPICS = 500
REPEATS = 3
SEED = 0


@dataclass(frozen=True)
class Setting:
    """One shape of data. `n_draws` with replacement give about `nnz` different latents."""

    name: str
    nnz: int
    n_latents: int
    n_draws: int
    popularity: float  # Zipf exponent
    n_rows: int
    n_rows_quick: int


SETTINGS = [
    Setting("nnz 200 of 131,072", 200, 131_072, 212, 1.0, 200_000, 20_000),
    Setting("nnz 700 of 2,048", 700, 2_048, 900, 0.3, 115_000, 10_000),
]


def made_up_rows(setting: Setting, n: int, seed: int) -> SparseRows:
    """Half of a row's latents are of the pool's popular ones, half of its topic's."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(SEED)
    popularity = (np.arange(setting.n_latents) + 10.0) ** -setting.popularity
    popular = np.cumsum(popularity / popularity.sum())
    size = max(2 * setting.nnz, setting.n_latents // 50)
    topics = shared.integers(0, setting.n_latents, (N_TOPICS, size))
    sizes = np.clip(rng.lognormal(0, 0.4, n) * setting.n_draws, 10, None).astype(np.int64)
    lengths, parts = np.zeros(n, np.int64), []
    for first in range(0, n, 10_000):
        owner = np.repeat(np.arange(first, min(first + 10_000, n)), sizes[first : first + 10_000])
        topic = rng.integers(0, N_TOPICS, n)[owner]
        of_topic = topics[topic, rng.integers(0, size, len(owner))]
        of_pool = np.minimum(
            np.searchsorted(popular, rng.random(len(owner))), setting.n_latents - 1
        )
        latents = np.where(rng.random(len(owner)) < 0.5, of_topic, of_pool)
        owner, latents = np.divmod(
            np.unique(owner * setting.n_latents + latents), setting.n_latents
        )
        lengths += np.bincount(owner, minlength=n)
        parts.append(latents.astype(np.int32))
    latents = np.concatenate(parts)
    values = np.clip(rng.lognormal(5.5, 1, len(latents)), 1, 65_535).astype(np.uint16)
    return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), latents, values, setting.n_latents)


def cpu_seconds(job: Callable[[], object], repeats: int) -> float:
    """Least CPU time of one run."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def read_rate() -> float:
    """Bytes per second of a sum over 256 MB, one thread."""
    memory = np.ones(1 << 25, np.int64)
    return memory.nbytes / cpu_seconds(memory.sum, 5)


def exemplar(rows: SparseRows, j: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Latents and values of one row."""
    entries = slice(rows.indptr[j], rows.indptr[j + 1])
    return rows.latents[entries], rows.values[entries]


def scipy_scores(
    columns: sp.csc_array, norms: NDArray[np.int64], exemplars: SparseRows, j: int
) -> NDArray[np.float64]:
    """Scores of all rows against exemplar j."""
    latents, limits = exemplar(exemplars, j)
    part = columns[:, latents]
    minima = np.minimum(part.data, np.repeat(limits, np.diff(part.indptr)))
    shared = np.bincount(part.indices, minima, len(norms))
    return shared / (norms + limits.sum(dtype=np.int64) - shared)


def faiss_columns(
    columns: sp.csc_array, norms: NDArray[np.int64], exemplars: SparseRows, j: int
) -> tuple[faiss.Index, NDArray[np.float32]]:
    """Index of all rows on the latents of exemplar j and the rest of each row's norm; the query."""
    latents, limits = exemplar(exemplars, j)
    dense = np.asarray(columns[:, latents].todense(), np.float32)
    rest = (norms - dense.sum(axis=1, dtype=np.float64)).astype(np.float32)
    index = faiss.IndexFlat(len(latents) + 1, faiss.METRIC_Jaccard)
    index.add(np.column_stack([dense, rest]))
    return index, np.append(limits, 0).astype(np.float32)[None, :]


def time_ours(
    rows: SparseRows, norms: NDArray[np.int64], exemplars: SparseRows, reduction: Reduction
) -> tuple[float, float]:
    """CPU milliseconds of preparing the exemplars and of scoring all rows."""
    weights = np.ones(rows.n_latents, np.int64)
    block = build_queries(exemplars, weights, reduction)
    score_rows(rows, block, norms=norms)  # Compiles.
    prepare = cpu_seconds(lambda: build_queries(exemplars, weights, reduction), REPEATS)
    return 1e3 * prepare, 1e3 * cpu_seconds(lambda: score_rows(rows, block, norms=norms), REPEATS)


def time_peers(
    rows: SparseRows, norms: NDArray[np.int64], exemplars: SparseRows, n_timed: int
) -> dict[str, float]:
    """CPU milliseconds: tocsc once, and per exemplar scipy, FAISS, and FAISS's columns."""
    block = build_queries(exemplars, np.ones(rows.n_latents, np.int64), "max")
    expected, _ = score_matrix(rows, block)
    stored = sp.csr_array((rows.values, rows.latents, rows.indptr), (len(rows), rows.n_latents))
    columns = stored.tocsc()
    times: dict[str, list[float]] = {"scipy": [], "faiss": [], "faiss_columns": []}
    for j in range(n_timed):
        np.testing.assert_allclose(
            scipy_scores(columns, norms, exemplars, j), expected[:, j], rtol=1e-12
        )
        times["scipy"].append(
            cpu_seconds(partial(scipy_scores, columns, norms, exemplars, j), REPEATS)
        )
        times["faiss_columns"].append(
            cpu_seconds(partial(faiss_columns, columns, norms, exemplars, j), 1)
        )
        index, query = faiss_columns(columns, norms, exemplars, j)
        similarity, order = index.search(query, 1_000)
        np.testing.assert_allclose(similarity[0], expected[order[0], j], atol=2e-6)
        times["faiss"].append(cpu_seconds(partial(index.search, query, 1_000), REPEATS))
    found = {name: 1e3 * float(np.mean(seconds)) for name, seconds in times.items()}
    return {"tocsc": 1e3 * cpu_seconds(stored.tocsc, 2), **found}


def measure(setting: Setting, quick: bool, rate: float) -> dict[str, float]:
    """CPU milliseconds of the whole job by each method, and the ratios."""
    n = setting.n_rows_quick if quick else setting.n_rows
    rows = made_up_rows(setting, n, seed=1)
    exemplars = made_up_rows(setting, N_EXEMPLARS, seed=2)
    norms = weighted_norms(rows, np.ones(setting.n_latents, np.int64))
    prepare, ours = time_ours(rows, norms, exemplars, "mean")
    _, prototype = time_ours(rows, norms, exemplars, "prototype")
    peers = time_peers(rows, norms, exemplars, 5 if quick else 10)
    scipy_job, faiss_job = N_EXEMPLARS * peers["scipy"], N_EXEMPLARS * peers["faiss"]
    n_bytes = rows.indptr.nbytes + rows.latents.nbytes + rows.values.nbytes
    limit = 1e3 * n_bytes / rate
    found = {
        "rows": n,
        "mean_nnz": len(rows.values) / n,
        "exemplars": N_EXEMPLARS,
        "saelect_prepare_ms": prepare,
        "saelect_ms": ours,
        "saelect_prototype_ms": prototype,
        "scipy_prepare_ms": peers["tocsc"],
        "scipy_ms": scipy_job,
        "faiss_prepare_ms": N_EXEMPLARS * peers["faiss_columns"],
        "faiss_ms": faiss_job,
        "limit_ms": limit,
        "times_limit": ours / limit,
        "speedup_over_scipy": (peers["tocsc"] + scipy_job) / (prepare + ours),
        "speedup_over_scipy_prepared": scipy_job / ours,
        "speedup_over_faiss_jaccard": (N_EXEMPLARS * peers["faiss_columns"] + faiss_job)
        / (prepare + ours),
        "speedup_over_faiss_jaccard_prepared": faiss_job / ours,
    }
    return {name: round(value, 3) for name, value in found.items()}


def print_table(setting: Setting, found: dict[str, float]) -> None:
    """One setting for people: CPU milliseconds of the job, and what they are of ours."""
    whole = found["saelect_prepare_ms"] + found["saelect_ms"]
    print(f"\n{setting.name}: {found['rows']:,.0f} rows, mean nnz {found['mean_nnz']:.0f}")
    print(f"{'50 exemplars, CPU ms of one thread':<42}{'prepare':>10}{'score':>10}{'x ours':>9}")
    for label, key in [
        ("saelect, mean", "saelect"),
        ("saelect, prototype", "saelect_prototype"),
        ("scipy CSC and bincount", "scipy"),
        ("FAISS METRIC_Jaccard, restricted columns", "faiss"),
        ("limit: reading the rows once", "limit"),
    ]:
        prepare, score = found.get(f"{key}_prepare_ms", 0.0), found[f"{key}_ms"]
        print(f"{label:<42}{prepare:>10.1f}{score:>10.1f}{(prepare + score) / whole:>9.2f}")


def main() -> None:
    """Run all settings, print their tables, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller pools, under a minute")
    quick = parser.parse_args().quick
    faiss.omp_set_num_threads(1)
    rate = read_rate()
    print(f"reading memory: {rate / 1e9:.1f} GB/s, one thread")
    results = {}
    for setting in SETTINGS:
        results[setting.name] = measure(setting, quick, rate)
        print_table(setting, results[setting.name])
    first = results[SETTINGS[0].name]
    ratios = {key: value for key, value in first.items() if key.startswith("speedup")}
    about = {"quick": quick, "read_gb_per_s": round(rate / 1e9, 1)}
    print(json.dumps({**ratios, **about, "settings": results}))


if __name__ == "__main__":
    main()
