"""Scores of blocks of vectors against every target, wherever they are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.queries import ExemplarQueries, score_each
from selection.similarity.scorer import Scorer
from selection.similarity.spaces import Joint

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scoring:
    """What the vectors are scored against; it can travel to another process.

    joint:   spaces and weights. queries: of every target.
    in_turn: scores for each exemplar, (n, m), for those that take turns.
    """

    joint: Joint
    queries: Mapping[str, ExemplarQueries]
    in_turn: bool
    threads: int


class BlockScorer:
    """A `Scoring` made ready: it keeps what it learns of the first blocks for the others."""

    def __init__(self, scoring: Scoring) -> None:
        """No vectors are needed yet."""
        self._scoring = scoring
        self._scorer = Scorer(
            scoring.joint.weights, [queries.target for queries in scoring.queries.values()]
        )

    def scores(self, parts: Sequence[SparseRows]) -> Scores:
        """Target -> (n,) scores of n vectors, given in every space; (n, m) in turn."""
        given, threads = self._scoring, self._scoring.threads
        rows = given.joint.rows(parts)
        if given.in_turn:
            return {
                name: score_each(rows, queries, threads=threads)[0]
                for name, queries in given.queries.items()
            }
        return dict(zip(given.queries, self._scorer.scores(rows, threads=threads), strict=True))
