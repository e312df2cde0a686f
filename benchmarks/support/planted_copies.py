"""Pools with planted near-duplicates, for `benchmarks.picking`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import overlap, shingles
from selection.core.sparse import document_frequency, take
from selection.picking.ranking import rank
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from selection.similarity.queries import exemplar_queries, score, score_pairs
from selection.similarity.weights import idf_weights
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors

UNIT_ROWS, SEED = 2048, 0
REPORT = UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")


@dataclass(frozen=True)
class PlantedPool:
    """n vectors with their texts, the exemplars, and which rows are planted copies of which.

    plants, originals: (p,) rows.
    """

    vectors: PoolVectors
    weights: NDArray[np.int64]
    frequency: NDArray[np.int64]
    exemplars: SparseRows
    texts: Sequence[str]
    plants: NDArray[np.int64]
    originals: NDArray[np.int64]


def synthetic_texts(n: int) -> list[str]:
    """Forty words a text."""
    words = np.random.default_rng(SEED).integers(0, 5000, (n, 40))
    return [" ".join(f"w{word}" for word in row) for row in words.tolist()]


def changed(rows: SparseRows, rng: np.random.Generator) -> SparseRows:
    """Copies whose values moved, each vector's by another share of up to a fifth."""
    shares = np.repeat(rng.uniform(0.01, 0.2, len(rows)), np.diff(rows.indptr))
    moved = rows.values * (1 + shares * rng.uniform(-1, 1, len(shares)))
    values = np.clip(np.rint(moved), 1, 65_535).astype(np.uint16)
    return SparseRows(rows.indptr, rows.latents, values, rows.n_latents)


def with_another_word(text: str, rng: np.random.Generator) -> str:
    """One word replaced."""
    words = text.split(" ")
    words[int(rng.integers(len(words)))] = "another"
    return " ".join(words)


def planted(
    rows: SparseRows, exemplars: SparseRows, texts: list[str], n_plants: int, folder: Path
) -> PlantedPool:
    """Plant copies of rows near the exemplars, and write all of it as shards."""
    n, rng = len(rows), np.random.default_rng(SEED)
    frequency = document_frequency(rows)
    weights = idf_weights(frequency, n)
    best = rank(
        score(rows, exemplar_queries(exemplars, weights, "mean")), np.ones(n, np.bool_)
    ).rows
    originals = np.sort(rng.choice(best[: n // 10], n_plants, replace=False))
    copies = changed(take(rows, originals), rng)
    texts = texts + [with_another_word(texts[row], rng) for row in originals]
    keys = np.zeros((n + n_plants, 16), np.uint8)
    keys[:, 8:] = np.arange(n + n_plants, dtype=">u8").view(np.uint8).reshape(-1, 8)
    for first in range(0, n, UNIT_ROWS):
        numbers = np.arange(first, min(first + UNIT_ROWS, n))
        write_shard(folder, f"u{first:08}", keys[numbers], take(rows, numbers), REPORT)
    write_shard(folder, "v", keys[n:], copies, REPORT)
    vectors = PoolVectors(open_shards(folder), keys, np.ones(len(keys), np.bool_))
    return PlantedPool(
        vectors, weights, frequency, exemplars, texts, np.arange(n, n + n_plants), originals
    )


def true_pairs(
    data: PlantedPool, similarity: float, text_overlap: float, shingle_words: int
) -> NDArray[np.bool_]:
    """(p,) which plants are near-duplicates by the definition."""
    copies, own = (data.vectors.gather(rows) for rows in (data.plants, data.originals))
    numbers = np.arange(len(data.plants))
    near = score_pairs(copies, own, numbers, numbers, data.weights) >= similarity
    shared = [
        overlap(*(shingles(data.texts[row], shingle_words) for row in pair)) >= text_overlap
        for pair in zip(data.plants, data.originals, strict=True)
    ]
    return near & np.array(shared)
