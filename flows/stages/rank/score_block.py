"""Scores of blocks of vectors against every target, wherever they are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.records import SparseRows
from selection.similarity.queries import Queries, score_each
from selection.similarity.scorer import Scorer
from selection.similarity.spaces import Joint

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scoring:
    """What the vectors are scored against; it can travel to another process.

    joints, queries: of every target.
    in_turn:         scores for each exemplar, (n, m), for those that take turns.
    together:        targets that weigh columns alike: a block is joined, and read, once for them.
    """

    joints: Mapping[str, Joint]
    queries: Mapping[str, Queries]
    in_turn: bool
    together: tuple[tuple[str, ...], ...]
    threads: int


class BlockScorer:
    """A `Scoring` made ready: it keeps what it learns of the first blocks for the others."""

    def __init__(self, scoring: Scoring) -> None:
        """No vectors are needed yet."""
        self._scoring = scoring
        self._scorers = [
            Scorer(scoring.joints[names[0]].weights, [scoring.queries[n].target for n in names])
            for names in scoring.together
        ]

    def scores(self, parts: Sequence[SparseRows]) -> Scores:
        """Target -> (n,) scores of n vectors, given in every space; (n, m) in turn."""
        found: Scores = {}
        given, threads = self._scoring, self._scoring.threads
        for names, scorer in zip(given.together, self._scorers, strict=True):
            rows = given.joints[names[0]].rows(parts)
            if given.in_turn:
                for name in names:
                    found[name] = score_each(rows, given.queries[name], threads=threads)
            else:
                found |= dict(zip(names, scorer.scores(rows, threads=threads), strict=True))
        return found
