"""One decided selection of one method, and what controls of it look like."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import Cut, TokenCount
from selection.picking.controls import length_matched
from selection.picking.pick import choose, smallest_budgets
from selection.picking.ranking import JointRanking, combine_targets, rank, take_turns
from selection.picking.rules.from_settings import Rules
from selection.records import Budget, PickReason, Picks, Ranking

JOINT = "joint"
CURVE_POINTS = 200
NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Selection:
    """A ranking, and what the budget and the rules picked from it.

    target:     of the selection, or JOINT. targets: all targets of the run, in order.
    role:       "main" or "control".
    smallest:   (p,) number of the smallest budget of a sweep that holds each pick.
    n_eligible: examples that the budget was checked against.
    """

    selection_id: str
    name: str
    target: str
    method: str
    role: str
    n_eligible: int
    targets: tuple[str, ...]
    ranking: Ranking
    picks: Picks
    smallest: NDArray[np.int64]

    @property
    def cut(self) -> Cut:
        """Where the selection ends, and what it leaves of the budget."""
        picks = self.picks
        return Cut(len(picks.positions), picks.n_tokens, picks.unused_tokens, picks.shortfall)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(r,) positions in the ranking: picks, what could come next, what was passed over."""
        passed = np.array([each.position for each in self.picks.passed_over], np.int64)
        left = np.ones(len(self.ranking.rows), np.bool_)
        left[self.picks.positions] = False
        left[passed] = False
        return np.concatenate([self.picks.positions, np.flatnonzero(left), passed])

    @property
    def owner_names(self) -> tuple[str, ...]:
        """The targets that candidates of this ranking can be for."""
        return self.targets if isinstance(self.ranking, JointRanking) else (self.target,)

    @property
    def owners(self) -> NDArray[np.int32]:
        """(r,) number, in `owner_names`, of the target that each position of the ranking is for."""
        if isinstance(self.ranking, JointRanking):
            return self.ranking.targets
        return np.zeros(len(self.ranking.rows), np.int32)

    @property
    def curve(self) -> dict[str, list[float]]:
        """See `score_curve`."""
        return score_curve(self.ranking.scores)

    def of_target(self, target: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Pool rows that are ranked for a target, best score first, and which were picked.

        Replay was not picked for a target.
        """
        is_pick = np.zeros(len(self.ranking.rows), np.bool_)
        is_pick[self.picks.positions[~self.is_replay]] = True
        of_it = self.owners == self.owner_names.index(target)
        return self.ranking.rows[of_it], is_pick[of_it]

    @cached_property
    def is_replay(self) -> NDArray[np.bool_]:
        """(p,) whether each pick was drawn at random, not for its score."""
        return np.array([reason is PickReason.REPLAY for reason in self.picks.reasons], np.bool_)

    def least_scores(self) -> dict[str, float]:
        """Target -> the least score of a pick that its score brought in."""
        least: dict[str, float] = {}
        owners = self.owners
        pairs = zip(self.picks.positions.tolist(), self.picks.reasons, strict=True)
        for position, reason in pairs:
            if reason not in (PickReason.INCLUDED, PickReason.FLOOR, PickReason.REPLAY):
                target = self.owner_names[owners[position]]
                score = float(self.ranking.scores[position])
                least[target] = min(score, least.get(target, score))
        return least


def score_curve(scores: NDArray[np.float64]) -> dict[str, list[float]]:
    """Scores of a ranking at ranks that are dense at the top, where a budget cuts, for a plot."""
    if not len(scores):
        return {"ranks": [], "scores": []}
    ranks = np.unique(np.geomspace(1, len(scores), CURVE_POINTS).round().astype(int))
    return {"ranks": ranks.tolist(), "scores": scores[ranks - 1].tolist()}


def select(
    run: tuple[str, str],
    methods: Sequence[str],
    rankings_by: Callable[[str], Mapping[str, Ranking]],
    budget: Budget,
    n_eligible: int,
    eligible: NDArray[np.bool_],
    token_count: TokenCount,
    *,
    rules: Rules | None = None,
    joint: bool = False,
    target_weights: Mapping[str, int] | None = None,
    sweep: Sequence[Budget] = (),
) -> Iterator[Selection]:
    """The selections of a run: every target by its method, then by each control.

    run:          (run id, run name), of which ids and names of selections are made.
    methods:      the method, which the rules apply to, then the controls.
    rankings_by:  method -> target -> ranking.
    n_eligible:   examples that the budget is checked against.
    eligible:     (n,) bool, rows that may be drawn for the control "length_matched".
    joint:        all targets share one budget, with turns by `target_weights` (default 1); a budget
                  of tokens shares tokens.
    sweep:        smaller budgets, smallest first.
    """
    main: dict[str, Selection] = {}
    number, rules = 0, rules or Rules()
    for method in methods:
        is_main = method == methods[0]
        rankings = rankings_by(method)
        # A control differs in the ranking alone; random ones are drawn as a whole anyway.
        drawn = None if method in ("random", "length_matched") else rules.replay
        costs = token_count if budget.tokens is not None else None
        weights = target_weights or {}
        for target, ranking in combined(rankings, joint=joint, weights=weights, costs=costs):
            if method == "length_matched":
                ranking = equal_tokens(main[target], ranking, eligible, token_count)
            of_several = "" if joint or len(rankings) == 1 else target
            names = (run[1], of_several, "" if is_main else method)
            number += 1
            given = rules if is_main else Rules(replay=drawn)
            own = equal_budget(budget, main.get(target))
            picks = choose(ranking, own, n_eligible, given, token_count)
            tokens = token_count(ranking.rows[picks.positions]) if sweep else NOTHING
            selection = Selection(
                selection_id=f"{run[0]}-{number}",
                name="-".join(name for name in names if name),
                target=target,
                method=method,
                role="main" if is_main else "control",
                n_eligible=n_eligible,
                targets=tuple(rankings),
                ranking=ranking,
                picks=picks,
                smallest=smallest_budgets(picks, tokens, sweep, n_eligible, given.replay),
            )
            if is_main:
                main[target] = selection
            yield selection


def rankings_of(
    scores: Mapping[str, NDArray[np.float64]], eligible: NDArray[np.bool_]
) -> dict[str, Ranking]:
    """Target -> its order over the eligible rows; by turns where every exemplar has scores."""
    return {
        target: rank(values, eligible) if values.ndim == 1 else take_turns(values, eligible)
        for target, values in scores.items()
    }


def refuse_zeros(rankings: Mapping[str, Ranking]) -> None:
    """Refuse a ranking in which every score is 0: its order would be that of the ids.

    Raises InputError.
    """
    for target, ranking in rankings.items():
        if len(ranking.rows) and not ranking.scores.max() > 0:
            raise InputError(
                f"nothing that may be picked has anything in common with the exemplars of"
                f" `{target}`: every score is 0",
                field="ranking",
                remedy="Raise `ranking.max_document_frequency`, take another representation, or"
                " look whether these exemplars belong to this pool.",
            )


def combined(
    rankings: Mapping[str, Ranking],
    *,
    joint: bool,
    weights: Mapping[str, int],
    costs: TokenCount | None = None,
) -> Iterator[tuple[str, Ranking]]:
    """Each target by itself, or all of them in turn as one ranking.

    weights: target -> turns that it has for one of a target that is not named. costs: pool rows ->
             tokens, where the targets are to share tokens instead of turns.
    """
    if not joint or len(rankings) == 1:
        yield from rankings.items()
    else:
        turns = [weights.get(name, 1) for name in rankings]
        yield JOINT, combine_targets(list(rankings.values()), turns, costs)


def equal_budget(budget: Budget, main: Selection | None) -> Budget:
    """The budget; for a control of a selection that fell short, what that selection has."""
    if main is None or not main.picks.shortfall:
        return budget
    if budget.tokens is not None:
        return Budget(tokens=main.picks.n_tokens)
    return Budget(examples=len(main.picks.positions))


def equal_tokens(
    main: Selection,
    at_random: Ranking,
    eligible: NDArray[np.bool_],
    token_count: TokenCount,
) -> Ranking:
    """A random example of about the same tokens for every pick, in the order of the picks."""
    tokens, scores = np.zeros(len(eligible), np.int64), np.zeros(len(eligible))
    rows = np.flatnonzero(eligible)
    for first in range(0, len(rows), 65_536):
        part = rows[first : first + 65_536]
        tokens[part] = token_count(part)
    scores[at_random.rows] = at_random.scores
    picked = main.ranking.rows[main.picks.positions]
    drawn = length_matched(picked, tokens, scores, eligible)
    return Ranking(drawn, scores[drawn])
