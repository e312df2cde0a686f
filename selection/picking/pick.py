"""From a ranking to a selection: what is always taken, what is passed over, and why.

The rules act in one order. Included candidates come first. Candidates below the least score are
out. Near-duplicates of a better candidate are out. Diversity puts the best few times the budget
into a new order. Quotas pass over candidates while that order is walked. The budget ends it: a
token budget at the first candidate that does not fit. Every pick and every candidate that was
passed over has a reason. Without rules the selection is a prefix of the ranking.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import TokenCount, cut, wanted_examples
from selection.picking.diversity import diverse_order
from selection.picking.near_duplicates import DuplicateFinder
from selection.picking.quotas import ColumnLimits, QuotaWalk
from selection.records import Budget, DropReason, Ranking, SparseRows

_CHUNK = 1024  # Candidates whose vectors, texts and tokens are fetched at once.
_QUOTA_ROUNDS = 12  # Sizes tried until quotas and a token budget agree.


class PickReason(StrEnum):
    """What brought a pick in. The names end up in people's data."""

    SCORE = "score"  # its rank alone
    INCLUDED = "included"  # on the list of examples always to take
    FLOOR = "floor"  # a place kept for a floor
    DIVERSITY = "diversity"  # unlike what was chosen before; its score alone would not do


@dataclass(frozen=True, slots=True)
class Diversity:
    """How alike picks may be.

    trade:    1 keeps the order of scores, 0 looks at differences alone.
    multiple: how many times the budget the candidates are that may change places.
    vectors:  (c,) int64 pool rows -> their vectors. weights: those of the ranking.
    """

    trade: float
    multiple: float
    vectors: Callable[[NDArray[np.int64]], SparseRows]
    weights: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides besides the score. Everything is off by default.

    include:    pool rows that are always taken.
    min_score:  least score of any other pick.
    limits:     number of picks -> the quotas of each column, in examples.
    duplicates: makes a finder that has kept nothing yet.
    """

    include: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    min_score: float | None = None
    limits: Callable[[int], Sequence[ColumnLimits]] | None = None
    duplicates: Callable[[], DuplicateFinder] | None = None
    diversity: Diversity | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A candidate that was not taken though its turn came.

    position: in the ranking. other: the pool row that it nearly repeats, or -1.
    """

    position: int
    reason: DropReason
    detail: str = ""
    other: int = -1


@dataclass(frozen=True, slots=True)
class Picks:
    """A selection.

    positions:     (p,) int64 positions in the ranking, in the order of the selection.
    reasons:       why each was taken; details: more of it, e.g. the floor.
    passed_over:   candidates that the rules took out, in order of their turn.
    n_below_min:   ranked candidates below the least score.
    n_tokens, unused_tokens, shortfall: as in `budget.Cut`.
    """

    positions: NDArray[np.int64]
    reasons: Sequence[PickReason]
    details: Sequence[str]
    passed_over: Sequence[PassedOver]
    n_below_min: int
    n_tokens: int | None
    unused_tokens: int | None
    shortfall: str


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
    included = _positions_of(rules.include, ranking.rows)
    good = np.ones(len(ranking.rows), np.bool_)
    if rules.min_score is not None:
        good = ranking.scores >= rules.min_score
    n_below = len(good) - int(good.sum())
    good[included] = False
    order = np.concatenate([included, np.flatnonzero(good)])
    request = _Request(ranking, order, len(included), budget, n_eligible, rules, token_count)
    if rules.limits is None and rules.duplicates is None and rules.diversity is None:
        picks = _prefix(request)
    else:
        picks = _walked(request)
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


@dataclass(frozen=True, slots=True)
class _Request:
    """What is picked from: positions of the ranking in `order`, the included ones first."""

    ranking: Ranking
    order: NDArray[np.int64]
    n_included: int
    budget: Budget
    n_eligible: int
    rules: Rules
    token_count: TokenCount | None


def _prefix(request: _Request) -> Picks:
    """No rule takes anything out: the longest prefix that the budget pays for."""
    order = request.order
    ordered = Ranking(request.ranking.rows[order], request.ranking.scores[order])
    end = cut(ordered, request.budget, request.n_eligible, request.token_count)
    n = end.n_selected
    reasons, details = [PickReason.SCORE] * n, [""] * n
    return Picks(order[:n], reasons, details, [], 0, end.n_tokens, end.unused_tokens, end.shortfall)


def _walked(request: _Request) -> Picks:
    """Walk by the rules; with quotas and a token budget, for as many picks as fit together."""
    wanted = wanted_examples(request.budget, request.n_eligible)
    n_likely = len(_prefix(request).positions)
    if request.rules.limits is None or wanted is not None:
        n = len(request.order) if wanted is None else wanted
        return _Walk(request, n, max(n_likely, 1)).result(wanted)
    n, best = n_likely, None
    for _ in range(_QUOTA_ROUNDS):
        walk = _Walk(request, n, n)
        best = walk.result(None)
        if len(best.positions) >= n or not walk.out_of_tokens:
            break
        n = max(min(len(best.positions), n - 1), 1)
    assert best is not None
    return best


class _Walk:
    """One walk over the candidates, and what it took and passed over."""

    def __init__(self, request: _Request, n: int, n_likely: int) -> None:
        """Walk. n: most picks; n_likely: about how many the budget pays for."""
        ranking, rules = request.ranking, request.rules
        self.rows, self.scores, self.rules = ranking.rows, ranking.scores, rules
        self.n, self.budget, self.n_likely = n, request.budget, n_likely
        self.n_eligible = request.n_eligible
        self.token_count, self.out_of_tokens = request.token_count, False
        self.finder = rules.duplicates() if rules.duplicates else None
        limits = rules.limits(n) if rules.limits else []
        self.quotas = QuotaWalk(limits, n) if limits else None
        self.taken: list[int] = []
        self.reasons: list[PickReason] = []
        self.details: list[str] = []
        self.passed_over: list[PassedOver] = []
        self.n_tokens = 0
        self.by_score_alone = np.zeros(0, np.int64)
        included, rest = np.split(request.order, [request.n_included])
        self._fill(included, rest)

    def _fill(self, included: NDArray[np.int64], rest: NDArray[np.int64]) -> None:
        for position in self._loaded(included):
            if not self._take(position, PickReason.INCLUDED):
                return
        if self.rules.diversity is None:
            self._walk(rest)
            return
        n_left = max(self.n_likely - len(included), 1)
        head, n_seen = self._distinct(rest, int(n_left * self.rules.diversity.multiple))
        self.by_score_alone = head[:n_left]
        self._walk(self._diverse(head, self.rules.diversity, n_left), distinct=True)
        chosen = {*self.taken, *(each.position for each in self.passed_over)}
        self.passed_over += [
            PassedOver(int(p), DropReason.DIVERSITY)
            for p in self.by_score_alone
            if int(p) not in chosen
        ]
        if self.quotas is not None and len(self.taken) < self.n and not self.out_of_tokens:
            self._walk(rest[n_seen:])

    def _distinct(self, rest: NDArray[np.int64], wanted: int) -> tuple[NDArray[np.int64], int]:
        """The first candidates that repeat none before them, and how many were looked at."""
        if self.finder is None:
            return rest[:wanted], min(wanted, len(rest))
        distinct: list[int] = []
        n_seen = 0
        for position in self._loaded(rest):
            if len(distinct) == wanted:
                break
            n_seen += 1
            if not self._repeats(position):
                self.finder.keep(int(self.rows[position]))
                distinct.append(position)
        return np.array(distinct, np.int64), n_seen

    def _diverse(
        self, head: NDArray[np.int64], diversity: Diversity, n_left: int
    ) -> NDArray[np.int64]:
        """The head in its new order; all of it where quotas may pass over some."""
        rows = self.rows[head]
        costs, budget = np.ones(len(head), np.int64), n_left
        if self.budget.tokens is not None and self.token_count is not None:
            parts = (rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK))
            costs = np.concatenate([np.zeros(0, np.int64), *map(self.token_count, parts)])
            budget = self.budget.tokens - self.n_tokens + 1  # One more than fits ends the walk.
        if self.quotas is not None:
            budget = int(costs.sum()) + 1
        picked = diverse_order(
            diversity.vectors(rows),
            self.scores[head],
            diversity.weights,
            trade=diversity.trade,
            costs=costs,
            budget=budget,
        )
        return head[picked]

    def _walk(self, positions: NDArray[np.int64], *, distinct: bool = False) -> None:
        """Take what the rules let through until the budget is spent."""
        by_score = set(self.by_score_alone.tolist())
        for position in self._loaded(positions, for_finder=not distinct):
            if len(self.taken) == self.n:
                return
            row = int(self.rows[position])
            refusal = self.quotas.refusal(row) if self.quotas else ""
            if refusal:
                self.passed_over.append(PassedOver(position, DropReason.QUOTA, refusal))
                continue
            if not distinct and self.finder is not None:
                if self._repeats(position):
                    continue
                self.finder.keep(row)
            moved = len(by_score) and position not in by_score
            if not self._take(position, PickReason.DIVERSITY if moved else PickReason.SCORE):
                return

    def _repeats(self, position: int) -> bool:
        """Whether a candidate repeats a kept one; says so where it does."""
        assert self.finder is not None
        duplicate = self.finder.duplicate_of(int(self.rows[position]))
        if duplicate is None:
            return False
        other, score = duplicate
        detail = f"generalized Jaccard {score:.4f}"
        self.passed_over.append(PassedOver(position, DropReason.NEAR_DUPLICATE, detail, other))
        return True

    def _take(self, position: int, reason: PickReason) -> bool:
        """Take a candidate, unless its tokens do not fit."""
        row = int(self.rows[position])
        if self.token_count is not None:
            cost = self._cost[position]
            if self.budget.tokens is not None and self.n_tokens + cost > self.budget.tokens:
                self.out_of_tokens = True
                return False
            self.n_tokens += cost
        floor = self.quotas.take(row) if self.quotas else ""
        self.taken.append(position)
        self.reasons.append(PickReason.FLOOR if floor else reason)
        self.details.append(floor)
        if reason is PickReason.INCLUDED and self.finder is not None:
            self.finder.keep(row)
        return True

    def _loaded(self, positions: NDArray[np.int64], *, for_finder: bool = True) -> Iterator[int]:
        """Positions one by one; vectors, texts and tokens are fetched a chunk ahead."""
        for first in range(0, len(positions), _CHUNK):
            chunk = positions[first : first + _CHUNK]
            if self.finder is not None and for_finder:
                self.finder.load(self.rows[chunk])
            if self.token_count is not None:
                costs = self.token_count(self.rows[chunk]).tolist()
                self._cost: dict[int, int] = dict(zip(chunk.tolist(), costs, strict=True))
            yield from chunk.tolist()

    def result(self, wanted: int | None) -> Picks:
        """The record; the shortfall where the candidates ended before the budget."""
        shortfall, tokens = "", self.budget.tokens
        if not self.taken and self.out_of_tokens:
            raise InputError(
                "the best candidate alone has more tokens",
                field="budget.tokens",
                value=tokens,
                remedy="Raise the budget, or lower the training max_length.",
            )
        n = len(self.taken)
        if (wanted is not None and n < wanted) or (wanted is None and not self.out_of_tokens):
            request = f"{wanted} examples" if wanted is not None else f"{tokens} tokens"
            counts = {reason: 0 for reason in (DropReason.NEAR_DUPLICATE, DropReason.QUOTA)}
            for each in self.passed_over:
                counts[each.reason] = counts.get(each.reason, 0) + 1
            passed = ", ".join(f"{number:,} {reason}" for reason, number in counts.items())
            shortfall = (
                f"{request} were asked for. {len(self.rows)} of {self.n_eligible} eligible examples"
                f" could be ranked; passed over: {passed}."
            )
            if wanted is None and tokens == self.n_tokens:
                shortfall = ""
        if self.quotas is not None and self.quotas.shortfall():
            shortfall = f"{shortfall} {self.quotas.shortfall()}".strip()
        return Picks(
            np.array(self.taken, np.int64),
            self.reasons,
            self.details,
            self.passed_over,
            0,
            self.n_tokens if self.token_count is not None else None,
            None if tokens is None else tokens - self.n_tokens,
            shortfall,
        )
