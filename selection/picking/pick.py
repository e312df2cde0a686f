"""From a ranking to a selection: what is always taken, what is passed over, and why.

The rules act in one order. Included candidates come first. Candidates below the least score are
out. Near-duplicates of a better candidate are out. Diversity puts the best few times the budget
into a new order. Quotas pass over candidates while that order is walked. The budget ends it: a
token budget at the first candidate that does not fit. Every pick and every candidate that was
passed over has a reason. Without rules the selection is a prefix of the ranking. Replay has a part
of the budget of its own, and follows the others.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import TokenCount, cut, wanted_examples
from selection.picking.rules.from_settings import Rules
from selection.picking.rules.replay import Replay, add_replay, split_budget
from selection.picking.walk import Walk
from selection.records import Budget, PickReason, Picks, Ranking

_QUOTA_ROUNDS = 12  # Sizes tried until quotas and a token budget agree.


def choose(
    ranking: Ranking,
    budget: Budget,
    n_eligible: int,
    rules: Rules,
    token_count: TokenCount | None = None,
) -> Picks:
    """Take candidates by the rules until the budget is spent.

    n_eligible, token_count: as in `budget.cut`.
    Raises InputError as `budget.cut` does, for an included row that is not ranked, and for more
    included rows than the budget has room for.
    """
    replay = rules.replay
    if replay is None:
        return _by_score(ranking, budget, n_eligible, rules, token_count)
    own, drawn = split_budget(budget, replay.share, replay.tokens, n_eligible)
    picks = _by_score(ranking, own, n_eligible, rules, token_count)
    return add_replay(picks, ranking, replay, drawn, rules.min_score, token_count)


def _by_score(
    ranking: Ranking,
    budget: Budget,
    n_eligible: int,
    rules: Rules,
    token_count: TokenCount | None,
) -> Picks:
    """What a budget takes without replay."""
    included = _positions_of(rules.include, ranking.rows)
    good = np.ones(len(ranking.rows), np.bool_)
    if rules.min_score is not None:
        good = ranking.scores >= rules.min_score
    n_below = len(good) - int(good.sum())
    good[included] = False
    rest = np.flatnonzero(good)
    picks = _prefix(ranking, np.concatenate([included, rest]), budget, n_eligible, token_count)
    if rules.limits or rules.duplicates or rules.diversity:
        n_likely = len(picks.positions)
        picks = _walked(ranking, included, rest, n_likely, budget, n_eligible, rules, token_count)
    if n_below and not len(picks.positions):
        raise InputError(
            f"no candidate scores that much (the best: {ranking.scores.max():.6g})",
            field="min_score",
            value=rules.min_score,
            remedy="Lower it; `saelect sql` shows all scores of earlier runs.",
        )
    if len(picks.positions) < len(included):
        raise InputError(
            f"the budget has room for {len(picks.positions)} of {len(included)} included examples",
            field="include",
            remedy="Raise the budget, or include fewer examples.",
        )
    reasons = list(picks.reasons)
    reasons[: len(included)] = [PickReason.INCLUDED] * len(included)
    below = f" {n_below:,} of them scored below `min_score`." if n_below and picks.shortfall else ""
    return replace(picks, reasons=reasons, n_below_min=n_below, shortfall=picks.shortfall + below)


def smallest_budgets(
    picks: Picks,
    tokens: NDArray[np.int64],
    budgets: Sequence[Budget],
    n_eligible: int,
    replay: Replay | None = None,
) -> NDArray[np.int64]:
    """(p,) number of the smallest budget that holds each pick; len(budgets) where none does.

    tokens:  (p,) of the picks, as the budget counts them. budgets: smallest first.
    A budget holds the first picks that it pays for, and of the replay likewise; so each holds all
    of a smaller one. Raises InputError for a budget that pays for no pick.
    """
    drawn = np.array([reason is PickReason.REPLAY for reason in picks.reasons], np.bool_)
    smallest = np.full(len(drawn), len(budgets), np.int64)
    for number in reversed(range(len(budgets))):
        parts = [budgets[number]]
        if replay is not None:
            parts = [*split_budget(budgets[number], replay.share, replay.tokens, n_eligible)]
        for part, own in zip(parts, (np.flatnonzero(~drawn), np.flatnonzero(drawn)), strict=False):
            n = wanted_examples(part, n_eligible)
            if n is None:
                n = int(np.searchsorted(np.cumsum(tokens[own]), part.tokens or 0, side="right"))
            smallest[own[:n]] = number
        if not (smallest[~drawn] == number).any():
            raise InputError(
                "the best candidate alone has more tokens",
                field="budget.sweep",
                value=budgets[number].tokens,
                remedy="Leave this budget out, or lower the training max_length.",
            )
    return smallest


def _positions_of(rows: NDArray[np.int64], ranked: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the rows stand in the ranking, best first."""
    missing = np.setdiff1d(rows, ranked)
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(rows)} included examples were dropped before ranking"
            f" (first: pool row {missing[0]})",
            field="include",
            remedy="Take them off the list, or loosen what drops them.",
        )
    return np.flatnonzero(np.isin(ranked, rows)).astype(np.int64)


def _prefix(
    ranking: Ranking,
    order: NDArray[np.int64],
    budget: Budget,
    n_eligible: int,
    token_count: TokenCount | None,
) -> Picks:
    """No rule takes anything out: the longest prefix of `order` that the budget pays for."""
    ordered = Ranking(ranking.rows[order], ranking.scores[order])
    end = cut(ordered, budget, n_eligible, token_count)
    n = end.n_selected
    reasons, details = [PickReason.SCORE] * n, [""] * n
    return Picks(order[:n], reasons, details, [], 0, end.n_tokens, end.unused_tokens, end.shortfall)


def _walked(
    ranking: Ranking,
    included: NDArray[np.int64],
    rest: NDArray[np.int64],
    n_likely: int,
    budget: Budget,
    n_eligible: int,
    rules: Rules,
    token_count: TokenCount | None,
) -> Picks:
    """Walk by the rules; with quotas and a token budget, for as many picks as fit together.

    n_likely: how many candidates the budget pays for without the rules.
    """
    wanted = wanted_examples(budget, n_eligible)

    def walked(n: int, n_likely: int) -> Walk:
        walk = Walk(ranking, budget, rules, token_count, n)
        walk.take_all(included, rest, n_likely)
        return walk

    if rules.limits is None or wanted is not None:
        n = len(included) + len(rest) if wanted is None else wanted
        return walked(n, max(n_likely, 1)).picks(wanted, n_eligible)
    n = n_likely
    for _ in range(_QUOTA_ROUNDS):
        walk = walked(n, n)
        picks = walk.picks(None, n_eligible)
        if len(picks.positions) >= n or not walk.out_of_tokens:
            break
        n = max(min(len(picks.positions), n - 1), 1)
    return picks
