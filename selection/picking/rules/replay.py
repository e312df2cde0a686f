"""Replay: general samples inside the budget, so that training on a target forgets less.

Drawn at random, whatever they score, from rows that may be picked. The budget's other part is for
picks; no row is both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import TokenCount, fitting, total_tokens, wanted_examples
from selection.picking.controls import random_scores, seed_of
from selection.records import Budget, PickReason, Picks, Ranking


@dataclass(frozen=True, slots=True)
class Replay:
    """How much of a budget is replay, and what it is drawn from.

    share:  of the budget, floored. tokens: instead, of a budget of tokens. One of both is set.
    rows:   (r,) int64 pool rows in the order in which they are drawn.
    """

    share: float | None
    tokens: int | None
    rows: NDArray[np.int64]


def split_budget(
    budget: Budget, share: float | None, tokens: int | None, n_eligible: int
) -> tuple[Budget, Budget]:
    """The budget of the picks and that of the replay.

    n_eligible: as in `wanted_examples`, which refuses what is wrong with the whole budget. Raises
    InputError where the replay is nothing or everything.
    """
    n = wanted_examples(budget, n_eligible)
    whole = budget.tokens or 0 if n is None else n
    field, value = ("replay.share", share) if tokens is None else ("replay.tokens", tokens)
    part = int(Fraction(repr(share)) * whole) if tokens is None else tokens
    unit = "tokens" if n is None else "examples"
    if tokens is not None and n is not None:
        raise InputError(
            "the budget counts no tokens",
            field=field,
            value=value,
            remedy="Give `replay.share`, or a budget in tokens.",
        )
    if not 0 < part < whole:
        raise InputError(
            f"of a budget of {whole:,} {unit} this is {part:,} for replay and {whole - part:,} for"
            " picks; both must be more than 0",
            field=field,
            value=value,
            remedy="Take another share, or a larger budget.",
        )
    if n is None:
        return Budget(tokens=whole - part), Budget(tokens=part)
    return Budget(examples=n - part), Budget(examples=part)


def draw_order(
    rows: NDArray[np.int64], ids: NDArray[np.character], exemplar_ids: Sequence[str], seed: int
) -> NDArray[np.int64]:
    """The rows in the order in which replay draws them: a pure function of id and seed.

    ids: (r,) of the rows. exemplar_ids: never drawn. seed: of the run.
    """
    is_free = ~np.isin(ids, np.array(exemplar_ids, ids.dtype))
    rows, ids = rows[is_free], ids[is_free]
    scores = random_scores(ids.astype(str).tolist(), seed_of(seed, "replay"))
    return rows[np.argsort(-scores, kind="stable")]


def add_replay(
    picks: Picks,
    ranking: Ranking,
    replay: Replay,
    budget: Budget,
    min_score: float | None,
    token_count: TokenCount | None,
) -> Picks:
    """The picks, then rows of the replay until its budget is spent.

    Rows that are picked, that a rule passed over, or that are not ranked are not drawn. Rows below
    `min_score` are: general samples score low; they no longer count as left out.
    """
    n_rows = int(max(ranking.rows.max(initial=-1), replay.rows.max(initial=-1))) + 1
    position = np.full(n_rows, -1, np.int64)
    position[ranking.rows] = np.arange(len(ranking.rows))
    barred = [*picks.positions.tolist(), *(each.position for each in picks.passed_over)]
    position[ranking.rows[np.array(barred, np.int64)]] = -1
    free = replay.rows[position[replay.rows] >= 0]
    added: int | None = None
    if budget.tokens is None:
        drawn = free[: budget.examples]
    elif token_count is None:
        raise ValueError("a token budget needs `token_count`")
    else:
        n, added = fitting(free, budget.tokens, token_count)
        drawn = free[:n]
    positions = position[drawn]
    shortfall = picks.shortfall
    is_short = len(drawn) < budget.examples if budget.examples else len(drawn) in (0, len(free))
    if is_short:
        wanted = f"{budget.examples} examples" if budget.examples else f"{budget.tokens} tokens"
        shortfall += (
            f" {wanted} of replay were asked for, and {len(drawn)} of {len(free)} rows fit."
        )
    n_tokens, unused = picks.n_tokens, picks.unused_tokens
    if token_count is not None and n_tokens is not None:
        added = total_tokens(drawn, token_count) if added is None else added
        n_tokens += added
        unused = None if unused is None else unused + (budget.tokens or 0) - added
    low = 0 if min_score is None else int((ranking.scores[positions] < min_score).sum())
    return replace(
        picks,
        positions=np.concatenate([picks.positions, positions]),
        reasons=[*picks.reasons, *[PickReason.REPLAY] * len(drawn)],
        details=[*picks.details, *[""] * len(drawn)],
        n_below_min=picks.n_below_min - low,
        n_tokens=n_tokens,
        unused_tokens=unused,
        shortfall=shortfall.strip(),
    )
