import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.picking.budget import Cut, cut, wanted_examples
from selection.picking.ranking import rank
from selection.records import Budget, Ranking


def first(n: int) -> Ranking:
    """Rows 0..n - 1 in that order."""
    return rank(-np.arange(n) / max(n, 1), np.ones(n, bool))


def counting(n_tokens: list[int]) -> "Counter":
    return Counter(np.array(n_tokens, np.int64))


class Counter:
    """Counts tokens, and remembers how many rows it was asked about."""

    def __init__(self, n_tokens: NDArray[np.int64]) -> None:
        self.n_tokens, self.n_asked = n_tokens, 0

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        self.n_asked += len(rows)
        return self.n_tokens[rows]


def test_examples_are_counted_from_the_top() -> None:
    assert cut(first(10), Budget(examples=4), 10) == Cut(4, None, None, "")
    tokens = counting(list(range(1, 11)))
    assert cut(first(10), Budget(examples=4), 10, tokens) == Cut(4, 10, None, "")


@pytest.mark.parametrize(
    ("fraction", "n", "wanted"),
    [(0.29, 100, 29), (0.1, 30, 3), (0.05, 115_087, 5_754), (1.0, 7, 7), (0.999, 10, 9)],
)
def test_a_fraction_is_floored_as_the_decimal_number_it_is_written_as(
    fraction: float, n: int, wanted: int
) -> None:
    assert wanted_examples(Budget(fraction=fraction), n) == wanted


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 400))
def test_tokens_pay_for_the_longest_prefix_that_fits(n_tokens: list[int], budget: int) -> None:
    n_tokens = [1, *n_tokens]  # The first one always fits.
    found = cut(first(len(n_tokens)), Budget(tokens=budget), len(n_tokens), counting(n_tokens))
    fits = [k for k in range(len(n_tokens) + 1) if sum(n_tokens[:k]) <= budget]
    assert found.n_selected == max(fits)
    assert found.n_tokens == sum(n_tokens[: max(fits)])
    assert found.unused_tokens == budget - found.n_tokens
    assert bool(found.shortfall) == (max(fits) == len(n_tokens) and found.unused_tokens > 0)


def test_a_long_candidate_ends_the_selection_though_later_ones_would_fit() -> None:
    found = cut(first(4), Budget(tokens=10), 4, counting([4, 7, 1, 1]))
    assert found == Cut(1, 4, 6, "")


def test_only_as_many_candidates_are_tokenized_as_the_budget_reaches() -> None:
    tokens = counting([1] * 20_000)
    assert cut(first(20_000), Budget(tokens=4_096), 20_000, tokens).n_selected == 4_096
    assert tokens.n_asked <= 8_192


def test_a_larger_token_budget_contains_the_smaller_one() -> None:
    n_tokens = np.random.default_rng(0).integers(1, 50, 9_000)
    sizes = [
        cut(first(9_000), Budget(tokens=t), 9_000, Counter(n_tokens)).n_selected
        for t in range(100, 200_000, 9_999)
    ]
    assert sizes == sorted(sizes)


def test_a_ranking_shorter_than_the_eligible_is_a_shortfall_with_its_reason() -> None:
    found = cut(first(6), Budget(examples=8), 10)
    assert found.n_selected == 6
    assert found.shortfall.startswith("8 examples were asked for. 6 of 10 eligible")
    assert "4 were dropped" in found.shortfall
    found = cut(first(3), Budget(tokens=100), 5, counting([10, 10, 10]))
    assert (found.n_selected, found.n_tokens, found.unused_tokens) == (3, 30, 70)
    assert "100 tokens were asked for" in found.shortfall


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(), "the budget is missing"),
        (Budget(examples=3, tokens=5), "more than one budget"),
        (Budget(examples=0), "a positive number"),
        (Budget(examples=-2), "found: -2"),
        (Budget(tokens=0), "a positive number"),
        (Budget(fraction=0.0), "above 0 and at most 1"),
        (Budget(fraction=1.5), "at most 1"),
        (Budget(fraction=float("nan")), "at most 1"),
        (Budget(fraction=0.01), "less than one example"),
        (Budget(examples=11), "larger than the 10 eligible"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused_before_ranking(
    budget: Budget, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        wanted_examples(budget, 10)
    assert (caught.value.field or "").startswith("budget")


def test_a_token_budget_below_the_best_candidate_is_refused() -> None:
    with pytest.raises(InputError, match="the best candidate alone has 9 tokens"):
        cut(first(2), Budget(tokens=8), 2, counting([9, 1]))
    with pytest.raises(ValueError, match="token_count"):
        cut(first(2), Budget(tokens=8), 2)
