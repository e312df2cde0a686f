"""What `benchmarks.ranking` ranks: made-up vectors, and those that a model made of a real pool."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from selection.records import SparseRows
from selection.sparse import concatenate, indptr_of, take

N_TOPICS = 500
SEED = 0
N_DISTINCT_PARTS = 5


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
    Setting("nnz 1,000 of 131,072", 1_000, 131_072, 1_100, 1.0, 50_000, 4_000),
    Setting("nnz 5,000 of 131,072", 5_000, 131_072, 6_200, 1.0, 10_000, 1_000),
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


def real_rows(folder: Path, n_most: int | None = None) -> SparseRows:
    """Vectors (mean over tokens) of a pass of `benchmarks.demo_model`, unit after unit."""
    from benchmarks.demo_quality.reading import load_rows  # Needs torch, which fills memory.

    parts: list[SparseRows] = []
    for file in sorted(folder.glob("unit-*.npz")):
        parts.append(load_rows(file, "mean"))
        if n_most is not None and sum(map(len, parts)) >= n_most:
            break
    rows = concatenate(parts)
    return rows if n_most is None else take(rows, np.arange(min(n_most, len(rows))))


def real_targets(folder: Path, targets: Path) -> list[SparseRows]:
    """The exemplars' vectors of every target task of a targets file, in its order."""
    from benchmarks.demo_quality.reading import load_rows

    exemplars = load_rows(folder / "exemplars.npz", "mean")
    lines = targets.read_text(encoding="utf-8").splitlines()
    counts = [len(json.loads(line)["exemplars"]) for line in lines]
    edges = indptr_of(counts)
    if edges[-1] != len(exemplars):
        raise SystemExit(f"{targets} has {edges[-1]} exemplars, {folder} has {len(exemplars)}")
    return [take(exemplars, np.arange(first, last)) for first, last in pairwise(edges)]


def enlarged(rows: SparseRows, n: int) -> SparseRows:
    """Rows drawn again and again, the values within each row in another order; seeded."""
    rng = np.random.default_rng(SEED)
    drawn = take(rows, rng.integers(0, len(rows), n))
    owner = np.repeat(np.arange(n), np.diff(drawn.indptr))
    order = np.argsort(owner + rng.random(len(owner)), kind="stable")  # Stays within the row.
    return SparseRows(drawn.indptr, drawn.latents, drawn.values[order], drawn.n_latents)


def write_parts(setting: Setting, n: int, rows_per_part: int, folder: Path) -> None:
    """Made-up rows as files that can be mapped, `rows_per_part` each.

    From the sixth on they are copies of the first five: making them up takes longer than scoring.
    """
    for number, first in enumerate(range(0, n, rows_per_part)):
        n_rows = min(rows_per_part, n - first)
        if number < N_DISTINCT_PARTS or n_rows < rows_per_part:
            rows = made_up_rows(setting, n_rows, seed=100 + number)
        for name in ("indptr", "latents", "values"):
            file = folder / f"{number:04d}-{name}.npy"
            if number < N_DISTINCT_PARTS or n_rows < rows_per_part:
                np.save(file, getattr(rows, name))
            else:
                shutil.copyfile(folder / f"{number % N_DISTINCT_PARTS:04d}-{name}.npy", file)


def mapped_parts(n_latents: int, folder: Path) -> Iterator[SparseRows]:
    """What `write_parts` wrote, part after part, mapped."""
    for file in sorted(folder.glob("*-indptr.npy")):
        indptr, latents, values = (
            np.load(file.with_name(file.name.replace("indptr", name)), mmap_mode="r")
            for name in ("indptr", "latents", "values")
        )
        yield SparseRows(indptr, latents, values, n_latents)
