"""One walk along a ranking: what is taken and what is passed over, rule by rule."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import TokenCount
from selection.picking.rules.diversity import Diversity, diverse_order
from selection.picking.rules.from_settings import Rules
from selection.picking.rules.quotas import QuotaWalk
from selection.records import Budget, DropReason, PassedOver, PickReason, Picks, Ranking

Positions = NDArray[np.int64]
"""Positions in the ranking."""

_CHUNK = 1024  # Candidates whose vectors, texts and tokens are fetched at once.


class Walk:
    """One walk over the candidates, and what it took and passed over."""

    def __init__(
        self,
        ranking: Ranking,
        budget: Budget,
        rules: Rules,
        token_count: TokenCount | None,
        n: int,
    ) -> None:
        """Start with nothing taken. n: most picks."""
        self.rows, self.scores, self.rules = ranking.rows, ranking.scores, rules
        self.n, self.budget = n, budget
        self.token_count, self.out_of_tokens = token_count, False
        self.finder = rules.duplicates() if rules.duplicates else None
        limits = rules.limits(n) if rules.limits else []
        self.quotas = QuotaWalk(limits, n) if limits else None
        self.taken: list[int] = []
        self.reasons: list[PickReason] = []
        self.details: list[str] = []
        self.passed_over: list[PassedOver] = []
        self.n_tokens = 0
        self.by_score_alone = np.zeros(0, np.int64)

    def take_all(self, included: Positions, rest: Positions, n_likely: int) -> None:
        """Take the included candidates, then of the rest what the rules let through.

        n_likely: about how many candidates the budget pays for.
        """
        for position in self._loaded(included):
            if not self._take(position, PickReason.INCLUDED):
                return
        if self.rules.diversity is None:
            self._walk(rest)
            return
        n_left = max(n_likely - len(included), 1)
        head, n_seen = self._distinct(rest, int(n_left * self.rules.diversity.multiple))
        self.by_score_alone = head[:n_left]
        self._walk(self._diverse(head, self.rules.diversity, n_left), distinct=True)
        decided = {*self.taken, *(each.position for each in self.passed_over)}
        self.passed_over += [
            PassedOver(int(p), DropReason.DIVERSITY)
            for p in self.by_score_alone
            if int(p) not in decided
        ]
        if self.quotas is not None and len(self.taken) < self.n and not self.out_of_tokens:
            self._walk(rest[n_seen:])

    def _distinct(self, rest: Positions, wanted: int) -> tuple[Positions, int]:
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

    def _diverse(self, head: Positions, diversity: Diversity, n_left: int) -> Positions:
        """The head in its new order; all of it where quotas may pass over some."""
        rows, vectors, weights = self.rows[head], self.rules.vectors, self.rules.weights
        if vectors is None or weights is None:
            raise ValueError("diversity needs vectors and their weights")
        costs, budget = np.ones(len(head), np.int64), n_left
        if self.budget.tokens is not None and self.token_count is not None:
            parts = (rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK))
            costs = np.concatenate([np.zeros(0, np.int64), *map(self.token_count, parts)])
            budget = self.budget.tokens - self.n_tokens + 1  # One more than fits ends the walk.
        if self.quotas is not None:
            budget = int(costs.sum()) + 1
        picked = diverse_order(
            vectors(rows),
            self.scores[head],
            weights,
            trade=diversity.trade,
            costs=costs,
            budget=budget,
        )
        return head[picked]

    def _walk(self, positions: Positions, *, distinct: bool = False) -> None:
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

    def _loaded(self, positions: Positions, *, for_finder: bool = True) -> Iterator[int]:
        """Positions one by one; vectors, texts and tokens are fetched a chunk ahead."""
        for first in range(0, len(positions), _CHUNK):
            chunk = positions[first : first + _CHUNK]
            if self.finder is not None and for_finder:
                self.finder.load(self.rows[chunk])
            if self.token_count is not None:
                costs = self.token_count(self.rows[chunk]).tolist()
                self._cost: dict[int, int] = dict(zip(chunk.tolist(), costs, strict=True))
            yield from chunk.tolist()

    def picks(self, wanted: int | None, n_eligible: int) -> Picks:
        """The record; the shortfall where the candidates ended before the budget.

        wanted: number of examples; None for a token budget.
        """
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
                f"{request} were asked for. {len(self.rows)} of {n_eligible} eligible examples"
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
