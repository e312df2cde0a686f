"""The rules of a selection, made of plain settings; the same for `saelect run` and Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selection.picking.rules.diversity import Diversity
from selection.picking.rules.near_duplicates import DuplicateFinder, KeptVectors
from selection.picking.rules.quotas import ColumnLimits, ColumnValues, Quota, limits_of
from selection.picking.rules.replay import Replay
from selection.records import SparseRows

Rows = NDArray[np.int64]
"""(r,) rows of the pool."""

Weights = NDArray[np.int64]
"""(n_latents,) weights of the ranking."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """When a sample repeats a better one: near in vector, and in runs of words."""

    similarity: float = 0.9
    text_overlap: float = 0.7
    shingle_words: int = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides besides the score. Everything is off by default.

    include:    pool rows that are always taken.
    min_score:  least score of any other pick.
    limits:     number of picks -> the quotas of each column, in examples.
    duplicates: makes a finder that has kept nothing yet.
    diversity:  how alike picks may be; needs `vectors`, pool rows -> their vectors, and the
                `weights` of the ranking.
    replay:     what part of the budget is drawn at random instead.
    """

    include: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    min_score: float | None = None
    limits: Callable[[int], Sequence[ColumnLimits]] | None = None
    duplicates: Callable[[], DuplicateFinder] | None = None
    diversity: Diversity | None = None
    vectors: Callable[[Rows], SparseRows] | None = None
    weights: Weights | None = None
    replay: Replay | None = None


def picking_rules(
    *,
    include: Rows,
    min_score: float | None,
    quotas: Sequence[Quota],
    columns: Sequence[ColumnValues],
    near_duplicates: NearDuplicates | None,
    diversity: Diversity | None,
    vectors: Callable[[Rows], SparseRows],
    texts: Callable[[Rows], Sequence[str]],
    weights: Weights,
    replay: Replay | None = None,
) -> Rules:
    """Everything that decides besides the score.

    columns: values of each quota's column. vectors, texts: of rows of the pool, in their order.
    """

    def limits(n: int) -> list[ColumnLimits]:
        pairs = zip(quotas, columns, strict=True)
        return [limits_of(quota, *column, n) for quota, column in pairs]

    def finder() -> DuplicateFinder:
        rule = near_duplicates or NearDuplicates()
        return DuplicateFinder(
            KeptVectors(weights, rule.similarity),
            vectors,
            texts,
            text_overlap=rule.text_overlap,
            shingle_words=rule.shingle_words,
        )

    return Rules(
        include=include,
        min_score=min_score,
        limits=limits if quotas else None,
        duplicates=finder if near_duplicates else None,
        diversity=diversity,
        vectors=vectors,
        weights=weights,
        replay=replay,
    )
