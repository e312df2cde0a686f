"""Candidates by approximate search: only what FAISS retrieves is scored, exactly.

The scores are those of the exact search; what is approximate is who has one. That is measured: in
a sample of the vectors everything is scored, and of what scores at least as much as the last pick
the share is kept that had been retrieved.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import concatenate
from selection.records import SparseRows
from selection.similarity.queries import ExemplarReduction
from selection.similarity.ranking_input import RankingInput
from selection.similarity.sketches import Index, IndexSettings, search, sketch
from selection.similarity.sources import ignore


@dataclass(frozen=True)
class Retrieved:
    """What the search retrieved, for all targets together.

    vectors: (n_vectors,) bool. rows: (n,) bool, pool rows that have one of these vectors.
    """

    vectors: NDArray[np.bool_]
    rows: NDArray[np.bool_]


def retrieve(
    ranking: RankingInput,
    index: Index,
    settings: IndexSettings,
    k: int,
    *,
    threads: int = 1,
    advance: Callable[[int], object] = ignore,
) -> Retrieved:
    """The k nearest vectors of every exemplar, and of the sum of each target's exemplars.

    index: of the own space's vectors; queries are weighted as the ranking weights them.
    """
    source = ranking.vectors.parts[ranking.own]
    retrieved = np.zeros(source.n_vectors, np.bool_)
    for target, parts in ranking.parts.items():
        exemplars, weights = parts[ranking.own], ranking.of(target).own_weights
        queries = concatenate([exemplars, _sum_of(exemplars)])
        near = search(
            index,
            sketch(queries, settings.n_dims, settings.seed, weights),
            min(k, source.n_vectors),
            n_probes=settings.n_probes,
            threads=threads,
            gpu=settings.gpu,
        )
        retrieved[near.rows[near.rows >= 0]] = True
        advance(1)
    return Retrieved(retrieved, source.spread(retrieved, fill=False))


def _sum_of(rows: SparseRows) -> SparseRows:
    """One row: the sum of all, scaled down where it does not fit."""
    sums = np.bincount(rows.latents, rows.values.astype(np.float64), rows.n_latents)
    sums = np.ceil(sums * min(1.0, np.iinfo(np.uint16).max / max(sums.max(initial=0), 1)))
    latents = np.flatnonzero(sums)
    return SparseRows(
        np.array([0, len(latents)], np.int64),
        latents.astype(np.int32),
        sums[latents].astype(rows.values.dtype),
        rows.n_latents,
    )


def measure_recall(
    ranking: RankingInput,
    reduction: ExemplarReduction,
    eligible: NDArray[np.bool_],
    retrieved: Retrieved,
    cuts: Mapping[str, float],
    *,
    n_vectors: int = 100_000,
    threads: int = 1,
) -> dict[str, object]:
    """Target -> share of the examples that score at least its cut that were retrieved.

    cuts: target -> score of its last pick. Scored is every s-th block of vectors, all of them where
    the pool has at most `n_vectors`; "sampled" says how many examples these are.
    """
    source = ranking.vectors.parts[ranking.own]
    every = max(1, source.n_vectors // n_vectors)
    sampled = np.zeros(source.n_vectors, np.bool_)
    for numbers, _ in source.blocks(share=(0, every)):
        sampled[numbers] = True
    considered = source.spread(sampled, fill=False) & eligible
    scored = ranking.scorer(reduction, threads).scores(ranking.vectors, only=sampled)
    recall: dict[str, object] = {"sampled": int(considered.sum())}
    for name, cut in cuts.items():
        scores = scored[name] if scored[name].ndim == 1 else scored[name].max(axis=1)
        good = considered & (scores >= cut)
        n_good = int(good.sum())
        share = float((good & retrieved.rows).sum() / n_good) if n_good else None
        recall[name] = {"recall": share, "of": n_good}
    return recall
