"""How much of a ranking is selected: a prefix, so a larger budget contains a smaller one.

Here where no rule acts; with quotas, near-duplicates or diversity `walk` counts as it goes.

A prefix that stops at the first candidate that does not fit, never skip-and-fill, which would
favor short samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.records import Budget, Ranking

TokenCount = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Pool rows -> trainee tokens of each, after the training max_length."""

TOKEN_EDGES = [0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 1 << 20]
"""Bounds of the bins of `token_histogram`."""

_KINDS = "Set one of `examples`, `fraction` and `tokens`; there is no default."


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a ranking ends.

    n_selected:    candidates before the cut.
    n_tokens:      their trainee tokens; None if nothing counts tokens.
    unused_tokens: what a token budget leaves; None for other budgets.
    shortfall:     why the budget could not be filled, as a sentence; empty if it was.
    """

    n_selected: int
    n_tokens: int | None
    unused_tokens: int | None
    shortfall: str


def wanted_examples(budget: Budget, n_eligible: int) -> int | None:
    """Number of examples that a budget asks for; None for a token budget.

    n_eligible: unique examples that survive reading and `where`. A fraction is of these, floored,
    and means the decimal number as written: 0.29 of 100 is 29.
    Raises InputError for a budget that is missing, doubled, zero, or larger than `n_eligible`.
    """
    named = {kind: getattr(budget, kind) for kind in ("examples", "fraction", "tokens")}
    given = {kind: value for kind, value in named.items() if value is not None}
    if len(given) != 1:
        problem = "more than one budget is set" if given else "the budget is missing"
        raise InputError(problem, remedy=_KINDS, field="budget", value=given or None)
    kind, value = next(iter(given.items()))
    field = f"budget.{kind}"
    if value <= 0 or (kind == "fraction" and not value <= 1):
        bounds = "above 0 and at most 1" if kind == "fraction" else "a positive number"
        raise InputError(
            f"the budget must be {bounds}", remedy="Ask for more than 0.", field=field, value=value
        )
    if kind == "tokens":
        return None
    wanted = int(value) if kind == "examples" else int(Fraction(repr(value)) * n_eligible)
    if wanted > n_eligible:
        raise InputError(
            f"the budget is larger than the {n_eligible} eligible unique examples",
            remedy="Lower it, widen `where`, or add to the pool.",
            field=field,
            value=value,
        )
    if wanted == 0:
        raise InputError(
            f"this fraction of {n_eligible} eligible unique examples is less than one example",
            remedy="Raise it, widen `where`, or add to the pool.",
            field=field,
            value=value,
        )
    return wanted


def cut(
    ranking: Ranking,
    budget: Budget,
    n_eligible: int,
    token_count: TokenCount | None = None,
) -> Cut:
    """The longest prefix of the ranking that the budget pays for.

    n_eligible:  as in `wanted_examples`; the ranking may be shorter, which gives a shortfall.
    token_count: needed for a token budget; for others it fills `n_tokens`.
    Raises InputError as `wanted_examples`, or if not even the first candidate fits.
    """
    wanted = wanted_examples(budget, n_eligible)
    if wanted is None:
        return _cut_tokens(ranking.rows, budget.tokens or 0, n_eligible, token_count)
    rows = ranking.rows[:wanted]
    shortfall = ""
    if len(rows) < wanted:
        shortfall = f"{wanted} examples were asked for. {_ranked(len(rows), n_eligible)}"
    n_tokens = None
    if token_count is not None:
        n_tokens = total_tokens(rows, token_count)
    return Cut(len(rows), n_tokens, None, shortfall)


def _cut_tokens(
    rows: NDArray[np.int64], budget: int, n_eligible: int, token_count: TokenCount | None
) -> Cut:
    """Count tokens from the top, and only as far as the budget reaches."""
    if token_count is None:
        raise ValueError("a token budget needs `token_count`")
    n_selected, n_tokens = fitting(rows, budget, token_count)
    if n_selected == 0 and len(rows):
        raise InputError(
            f"the best candidate alone has {int(token_count(rows[:1])[0])} tokens",
            remedy="Raise the budget, or lower the training max_length.",
            field="budget.tokens",
            value=budget,
        )
    if n_selected < len(rows):
        return Cut(n_selected, n_tokens, budget - n_tokens, "")
    unused = budget - n_tokens
    wanted = f"{budget} tokens were asked for. {_ranked(len(rows), n_eligible)}"
    return Cut(
        n_selected, n_tokens, unused, f"{wanted} They have {n_tokens} tokens." if unused else ""
    )


def fitting(rows: NDArray[np.int64], budget: int, token_count: TokenCount) -> tuple[int, int]:
    """How many of the first rows fit in a budget of tokens, and their tokens."""
    n, n_tokens = 0, 0
    for part in _parts(rows):
        totals = n_tokens + np.cumsum(token_count(part), dtype=np.int64)
        fits = int(np.searchsorted(totals, budget, side="right"))
        if fits:
            n, n_tokens = n + fits, int(totals[fits - 1])
        if fits < len(part):
            break
    return n, n_tokens


def total_tokens(rows: NDArray[np.int64], token_count: TokenCount) -> int:
    """Trainee tokens of all these rows."""
    return sum(int(token_count(part).sum()) for part in _parts(rows))


def token_histogram(rows: NDArray[np.int64], token_count: TokenCount) -> NDArray[np.int64]:
    """(10,) how many of the rows have how many trainee tokens, between TOKEN_EDGES."""
    counts = np.zeros(len(TOKEN_EDGES) - 1, np.int64)
    for part in _parts(rows):
        counts += np.histogram(token_count(part), TOKEN_EDGES)[0]
    return counts


def used_histogram(pool: NDArray[np.int64], picked: NDArray[np.int64]) -> dict[str, list[int]]:
    """Two histograms between TOKEN_EDGES as plain numbers, without the empty bins at the end."""
    used = np.flatnonzero(pool + picked)
    last = int(used[-1]) + 1 if len(used) else 1
    return {
        "edges": TOKEN_EDGES[: last + 1],
        "pool": pool[:last].tolist(),
        "selected": picked[:last].tolist(),
    }


def _ranked(n_ranked: int, n_eligible: int) -> str:
    """What stands between the eligible and the ranked."""
    return (
        f"{n_ranked} of {n_eligible} eligible examples could be ranked; "
        f"{n_eligible - n_ranked} were dropped, see the drop reasons."
    )


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows in pieces that a tokenizer can take at once."""
    return [rows[first : first + 4096] for first in range(0, len(rows), 4096)]
