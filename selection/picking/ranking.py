"""Scores in, one order over the candidates out; and several orders in, one out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import TokenCount
from selection.records import Ranking
from selection.similarity.queries import ROUND_ROBIN_LIMIT


@dataclass(frozen=True, slots=True)
class JointRanking(Ranking):
    """Candidates of several target tasks in one order, each candidate once.

    rows:    (r,) int64 row of the candidate in the prepared pool.
    scores:  (r,) float64, the score for the target task that brought the candidate in; not
             monotone, since scores of different target tasks take turns.
    targets: (r,) int32, number of that target task, in the order the rankings were given.
    """

    targets: NDArray[np.int32]


def rank(scores: NDArray[np.float64], eligible: NDArray[np.bool_]) -> Ranking:
    """Order the eligible candidates: higher score first, equal scores by smaller example id.

    scores, eligible: (n,), one per row of the prepared pool. Pool rows are in order of example id,
    so the smaller row is the smaller id.
    Raises ValueError if an eligible candidate's score is NaN.
    """
    if scores.shape != eligible.shape:
        raise ValueError(f"{scores.shape} scores for {eligible.shape} candidates")
    rows = np.flatnonzero(eligible)
    kept = scores[rows].astype(np.float64)
    if np.isnan(kept).any():
        raise ValueError(f"row {rows[np.isnan(kept)][0]} has no score (NaN)")
    order = np.argsort(-kept, kind="stable")
    return Ranking(rows=rows[order].astype(np.int64), scores=kept[order])


def combine_targets(
    rankings: Sequence[Ranking],
    weights: Sequence[int] | None = None,
    token_count: TokenCount | None = None,
) -> JointRanking:
    """One order for several target tasks that share a budget; no candidate counts twice.

    Target tasks take turns, in the order given, each taking its best candidate that is not taken
    yet; one that has none left is passed over.
    weights: positive integers: a target task of weight 2 has two turns where one of weight 1 has
             one. The turn goes to the smallest (turns + 1) / weight, then the earlier.
    token_count: where given, tokens take the place of turns: of all prefixes, targets have tokens
             by their weights, up to one candidate.
    """
    if not rankings:
        raise ValueError("there are no rankings to combine")
    starts = np.zeros(len(rankings) + 1, np.int64)
    np.cumsum([len(ranking.rows) for ranking in rankings], out=starts[1:])
    rows = np.concatenate([ranking.rows for ranking in rankings])
    scores = np.concatenate([ranking.scores for ranking in rankings])
    targets = np.repeat(np.arange(len(rankings), dtype=np.int32), np.diff(starts))
    shares = np.array([1] * len(rankings) if weights is None else weights, np.int64)
    if len(shares) != len(rankings) or shares.min() < 1:
        raise ValueError(f"{len(rankings)} targets need a positive weight each: {weights}")
    taken = np.zeros(int(rows.max(initial=-1)) + 1, np.bool_)
    costs = np.ones(len(rows), np.int64)
    if token_count is not None:
        for first in range(0, len(rows), 65_536):
            costs[first : first + 65_536] = token_count(rows[first : first + 65_536])
    picked = _take_turns(rows, starts, shares, costs, taken)
    return JointRanking(rows=rows[picked], scores=scores[picked], targets=targets[picked])


@njit(nogil=True, cache=True)
def _take_turns(
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    weights: NDArray[np.int64],
    costs: NDArray[np.int64],
    taken: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Positions in `rows` of the candidates in the order in which they are taken.

    costs: (len(rows),) of each candidate in what the targets share; 1 for turns.
    """
    picked = np.empty(len(rows), np.int64)
    heads, spent, n_picked = starts[:-1].copy(), np.zeros(len(weights), np.int64), 0
    while n_picked < len(rows):
        turn = -1
        for target in range(len(heads)):
            while heads[target] < starts[target + 1] and taken[rows[heads[target]]]:
                heads[target] += 1
            if heads[target] == starts[target + 1]:
                continue
            # (spent + cost) / weight of both, without a division.
            next_turn = (spent[target] + costs[heads[target]]) * weights[turn]
            if turn < 0 or next_turn < (spent[turn] + costs[heads[turn]]) * weights[target]:
                turn = target
        if turn < 0:
            break
        taken[rows[heads[turn]]] = True
        picked[n_picked] = heads[turn]
        n_picked += 1
        spent[turn] += costs[heads[turn]]
    return picked[:n_picked]


def take_turns(scores: NDArray[np.float64], eligible: NDArray[np.bool_]) -> Ranking:
    """Round robin over exemplars: (n, m) scores to one order in which no candidate is twice.

    Returns all eligible candidates; `scores` are the similarities to the exemplar whose turn it
    was, so they are not monotone. Raises InputError where candidates x exemplars are too many.
    """
    if scores.size > ROUND_ROBIN_LIMIT:
        raise InputError(
            f"{scores.shape[0]:,} candidates times {scores.shape[1]:,} exemplars are too many",
            field="ranking.exemplar_reduction",
            value="round_robin",
            remedy="Use `max` or `mean`, or fewer exemplars.",
        )
    joint = combine_targets([rank(column, eligible) for column in scores.T])
    return Ranking(rows=joint.rows, scores=joint.scores)
