"""A made pool in which the truth is known: topics of their own latents over common ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import from_lists
from selection.records import SparseRows

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
