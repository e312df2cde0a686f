"""What `benchmarks.ranking` ranks: synthetic vectors, and those of a real pool."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.core.sparse import entries_of, indptr_of
from selection.records import SparseRows

N_TOPICS = 500
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
    Setting("nnz 1,000 of 131,072", 1_000, 131_072, 1_100, 1.0, 20_000, 4_000),
    Setting("nnz 5,000 of 131,072", 5_000, 131_072, 6_200, 1.0, 4_000, 1_000),
]


def synthetic_rows(setting: Setting, n: int, seed: int) -> SparseRows:
    """Half of a row's latents are of the pool's popular ones, half of its topic's."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(SEED)
    popularity = (np.arange(setting.n_latents) + 10.0) ** -setting.popularity
    size = max(2 * setting.nnz, setting.n_latents // 50)
    topics = shared.integers(0, setting.n_latents, (N_TOPICS, size))
    n_draws = np.clip(rng.lognormal(0, 0.4, n) * setting.n_draws, 10, None).astype(np.int64)
    edges = indptr_of(n_draws)
    drawn, lengths = np.empty(edges[-1], np.int32), np.empty(n, np.int64)
    popular = np.cumsum(popularity / popularity.sum())
    popular[-1] = 1.0
    _draw(popular, topics, edges, seed, drawn, lengths)
    latents = drawn[entries_of(edges[:-1], indptr_of(lengths))]
    values = np.clip(rng.lognormal(5.5, 1, len(latents)), 1, 65_535).astype(np.uint16)
    return SparseRows(indptr_of(lengths), latents, values, setting.n_latents)


@njit(cache=True)
def _draw(
    popular: NDArray[np.float64],
    topics: NDArray[np.int64],
    edges: NDArray[np.int64],
    seed: int,
    drawn: NDArray[np.int32],
    lengths: NDArray[np.int64],
) -> None:
    """Draw every row's latents to where its edge is, ascending and each once; write how many."""
    np.random.seed(seed)  # noqa: NPY002 - numba knows no other generator
    for i in range(len(lengths)):
        first, last = edges[i], edges[i + 1]
        topic = topics[np.random.randint(len(topics))]  # noqa: NPY002 - numba's
        for p in range(first, last):
            if np.random.random() < 0.5:  # noqa: NPY002 - numba's
                drawn[p] = topic[np.random.randint(len(topic))]  # noqa: NPY002 - numba's
            else:
                drawn[p] = np.searchsorted(popular, np.random.random())  # noqa: NPY002 - numba's
        drawn[first:last].sort()
        n = first
        for p in range(first, last):
            if p == first or drawn[p] != drawn[n - 1]:
                drawn[n] = drawn[p]
                n += 1
        lengths[i] = n - first


def write_parts(setting: Setting, n: int, rows_per_part: int, folder: Path) -> None:
    """Synthetic rows as files that can be mapped, `rows_per_part` each."""
    for number, first in enumerate(range(0, n, rows_per_part)):
        rows = synthetic_rows(setting, min(rows_per_part, n - first), seed=100 + number)
        for name in ("indptr", "latents", "values"):
            np.save(folder / f"{number:04d}-{name}.npy", getattr(rows, name))


def mapped_parts(n_latents: int, folder: Path) -> Iterator[SparseRows]:
    """What `write_parts` wrote, part after part, mapped."""
    for file in sorted(folder.glob("*-indptr.npy")):
        indptr, latents, values = (
            np.load(file.with_name(file.name.replace("indptr", name)), mmap_mode="r")
            for name in ("indptr", "latents", "values")
        )
        yield SparseRows(indptr, latents, values, n_latents)
