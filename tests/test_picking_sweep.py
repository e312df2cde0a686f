"""Several budgets of one selection: each is what it would pick alone, and holds smaller ones."""

from collections.abc import Sequence

import numpy as np
import pytest

from selection.core.errors import InputError
from selection.picking.pick import choose, smallest_budgets
from selection.picking.ranking import rank
from selection.picking.rules.from_settings import Rules
from selection.picking.rules.replay import Replay
from selection.picking.selections import select
from selection.records import Budget

N = 60
TOKENS = np.random.default_rng(9).integers(1, 40, N)
RULES = [Rules(), Rules(min_score=0.3), Rules(include=np.array([3, 51]))]
SWEEPS = [
    [Budget(examples=n) for n in (4, 9, 20)],
    [Budget(fraction=f) for f in (0.05, 0.1, 0.29)],
    [Budget(tokens=n) for n in (150, 151, 400)],
]


def count(rows: np.ndarray) -> np.ndarray:
    return TOKENS[rows]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("budgets", SWEEPS)
def test_each_budget_holds_what_it_would_pick_alone(rules: Rules, budgets: list[Budget]) -> None:
    ranking = rank(np.random.default_rng(4).random(N), np.arange(N) % 7 != 1)
    picks = choose(ranking, budgets[-1], N, rules, count)
    tokens = count(ranking.rows[picks.positions])
    smallest = smallest_budgets(picks, tokens, budgets[:-1], N)
    for number, budget in enumerate(budgets):
        alone = choose(ranking, budget, N, rules, count)
        assert picks.positions[smallest <= number].tolist() == alone.positions.tolist()


@pytest.mark.parametrize("budgets", SWEEPS)
def test_each_budget_has_its_share_of_replay(budgets: list[Budget]) -> None:
    rng = np.random.default_rng(5)
    ranking = rank(rng.random(N), np.ones(N, np.bool_))
    replay = Replay(0.4, None, rng.permutation(N))
    picks = choose(ranking, budgets[-1], N, Rules(replay=replay), count)
    drawn = np.array([reason == "replay" for reason in picks.reasons])
    tokens = count(ranking.rows[picks.positions])
    smallest = smallest_budgets(picks, tokens, budgets[:-1], N, replay)
    for number, budget in enumerate(budgets):
        alone = choose(ranking, budget, N, Rules(replay=replay), count)
        n_own = sum(reason != "replay" for reason in alone.reasons)
        inside = smallest <= number
        assert picks.positions[inside & ~drawn].tolist() == alone.positions[:n_own].tolist()
        if budget.tokens is None:
            assert (inside & drawn).sum() == len(alone.positions) - n_own
        else:
            assert (
                int(budget.tokens * 0.4) - 40 < tokens[inside & drawn].sum() <= budget.tokens * 0.4
            )


def test_controls_have_the_same_budgets() -> None:
    def made(sweep: Sequence[Budget]) -> list[list[int]]:
        rng, runs = np.random.default_rng(1), ("jaccard", "random", "length_matched")
        rankings = {name: {"t": rank(rng.random(N), np.ones(N, np.bool_))} for name in runs}
        found = select(("id", "run"), runs, rankings.__getitem__, Budget(examples=9), N,
                       np.ones(N, np.bool_), count, sweep=sweep)  # fmt: skip
        return [each.smallest.tolist() for each in found]

    assert made([Budget(examples=2), Budget(examples=5)]) == [[0] * 2 + [1] * 3 + [2] * 4] * 3
    assert made([]) == [[0] * 9] * 3


def test_a_budget_that_pays_for_no_pick_is_refused() -> None:
    ranking = rank(np.linspace(1, 0.1, N), np.ones(N, np.bool_))
    picks = choose(ranking, Budget(tokens=300), N, Rules(), count)
    tokens = count(ranking.rows[picks.positions])
    with pytest.raises(InputError, match=r"alone has more tokens") as error:
        smallest_budgets(picks, tokens, [Budget(tokens=int(tokens[0]) - 1)], N)
    assert error.value.field == "budget.sweep"
