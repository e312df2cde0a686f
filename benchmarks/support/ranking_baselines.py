"""The baselines of `benchmarks.ranking`, and the limits of the machine it runs on."""

import time
from collections.abc import Callable

import faiss
import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from selection.records import SparseRows


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


def scatter_rate() -> float:
    """Postings per second that one thread adds to sums in its first-level cache."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2048, 1 << 16).astype(np.uint16)
    amounts, sums = np.ones(len(rows), np.uint32), np.zeros(2048, np.int64)
    _scatter(rows, amounts, sums)  # Compiles.
    return len(rows) / cpu_seconds(lambda: _scatter(rows, amounts, sums), 50)


@njit(nogil=True, cache=True)
def _scatter(
    rows: NDArray[np.uint16], amounts: NDArray[np.uint32], sums: NDArray[np.int64]
) -> None:
    for p in range(len(rows)):
        sums[rows[p]] += np.int64(min(amounts[p], np.uint32(1000)))
