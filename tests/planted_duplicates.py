"""A made pool in which the truth is known: topics of their own latents over common ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import from_lists
from selection.records import SparseRows
from selection.similarity.ranking_input import RankingInput, ranking_input
from selection.similarity.sources import MemoryVectors, PoolSpaces
from selection.similarity.spaces import SpaceRule, join_spaces
from selection.similarity.weights import document_frequencies

N_TOPICS, PER_TOPIC, N_COMMON = 40, 30, 200
N_LATENTS = N_COMMON + N_TOPICS * PER_TOPIC


@dataclass(frozen=True)
class Planted:
    """A pool, exemplars of topic 0, and which samples of the pool are of topic 0."""

    pool: SparseRows
    exemplars: SparseRows
    is_relevant: NDArray[np.bool_]


def planted(n: int, n_relevant: int, m: int, *, seed: int = 0, longer: float = 1.0) -> Planted:
    """A pool of n samples with n_relevant of topic 0, the others of 39 topics.

    longer: how many times as long the exemplars and their kin are as other samples.
    """
    rng = np.random.default_rng(seed)
    topics = np.concatenate(
        [np.zeros(n_relevant + m, np.int64), rng.integers(1, N_TOPICS, n - n_relevant)]
    )
    rows = [_sample(int(topic), longer if topic == 0 else 1.0, rng) for topic in topics]
    order = rng.permutation(np.arange(m, len(rows)))
    return Planted(
        from_lists([rows[i] for i in order], N_LATENTS),
        from_lists(rows[:m], N_LATENTS),
        topics[order] == 0,
    )


def _sample(topic: int, factor: float, rng: np.random.Generator) -> dict[int, int]:
    """Common latents and some of the topic's; lengths differ by an order of magnitude."""
    n_common = int(factor * rng.lognormal(3.2, 0.5)) + 5
    common = rng.choice(N_COMMON, min(n_common, N_COMMON), replace=False)
    own = rng.choice(PER_TOPIC, rng.integers(8, 20), replace=False)
    latents = np.concatenate([common, N_COMMON + topic * PER_TOPIC + own])
    amounts = np.clip(rng.lognormal(5.0, 0.6, len(latents)), 1, 65_535).astype(int)
    return dict(zip(latents.tolist(), amounts.tolist(), strict=True))


def planted_input(made: Planted) -> RankingInput:
    """What a ranking of a planted pool is made of: one space, idf, not normalized."""
    vectors = PoolSpaces(("made",), (MemoryVectors(made.pool),))
    counts, _ = document_frequencies(vectors)
    spaces = join_spaces([SpaceRule("made")], counts)
    ids = np.array([f"exemplar-{i}" for i in range(len(made.exemplars))])
    return ranking_input(vectors, spaces, counts, {"t": ids}, {"t": [made.exemplars]})
