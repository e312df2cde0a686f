"""How good a ranking is: nDCG of graded relevance, means over targets, paired intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_quality.labels import UNJUDGED

CUTOFF = 1000
KINDS = ("T1", "T2", "all")
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean over targets and the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


def ndcg(scores: NDArray[np.floating], grades: NDArray[np.integer], cutoff: int = CUTOFF) -> float:
    """Normalized DCG with gain 2^grade - 1 of judged rows; 0 where nothing gains.

    scores, grades: (n,), rows in order of id; equal scores are ranked in that order.
    The ideal ranking is over the same judged rows.
    """
    judged = grades != UNJUDGED
    gains = np.exp2(grades[judged].astype(np.float64)) - 1.0
    discounts = 1.0 / np.log2(np.arange(2, cutoff + 2))
    ranked = gains[np.argsort(-scores[judged], kind="stable")][:cutoff]
    ideal = np.sort(gains)[::-1][:cutoff]
    best = float(ideal @ discounts[: len(ideal)])
    return float(ranked @ discounts[: len(ranked)]) / best if best > 0 else 0.0


def of_kind(kinds: Sequence[str], kind: str) -> NDArray[np.bool_]:
    """Which targets are of a kind; "all" is every one."""
    return np.array([kind == "all" or own.startswith(kind) for own in kinds])


def mean_interval(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Mean of (n_targets,) values with a 95 % percentile bootstrap interval over targets."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))
