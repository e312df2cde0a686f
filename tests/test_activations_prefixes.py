"""Common beginnings, their places in the row that is run, and the batches, against slow loops."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from selection.activations.prefixes import (
    MIN_SHARED,
    MOST_READ,
    positions_in_row,
    prefix_plan,
    shared_with_previous,
    sorted_by_tokens,
)

Tokens = NDArray[np.uint32]


def tokens_of(lists: Sequence[Sequence[int]]) -> list[Tokens]:
    return [np.array(each, np.uint32) for each in lists]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n if n >= MIN_SHARED else 0


# Few different tokens and a fixed start: long common beginnings are frequent, equal lists too.
START = [7] * (MIN_SHARED - 2)
LISTS = st.lists(st.lists(st.integers(0, 1), max_size=12).map(lambda tail: START + tail))
ANY_LISTS = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=4))


@given(LISTS | ANY_LISTS)
def test_lists_are_sorted_as_python_sorts_them(lists: list[list[int]]) -> None:
    found = [lists[row] for row in sorted_by_tokens(tokens_of(lists))]
    assert found == sorted(lists)


def test_equal_lists_stay_as_they_came() -> None:
    lists = [[5, 1], [4, 9], [5, 1], [4, 9], [5, 1]]
    assert sorted_by_tokens(tokens_of(lists)).tolist() == [1, 3, 0, 2, 4]


@given(LISTS)
def test_what_is_shared_is_what_a_loop_counts(lists: list[list[int]]) -> None:
    expected = [0, *(common(a, b) for a, b in pairwise(lists))][: len(lists)]
    assert shared_with_previous(tokens_of(lists)).tolist() == expected


@given(LISTS)
def test_every_token_is_found_in_the_row(lists: list[list[int]]) -> None:
    shared = shared_with_previous(tokens_of(lists))
    row = [t for each, n in zip(lists, shared.tolist(), strict=True) for t in each[n:]]
    places = positions_in_row([len(each) for each in lists], shared)
    for each, place in zip(lists, places, strict=True):
        assert [row[at] for at in place.tolist()] == each
    assert sorted({at for place in places for at in place.tolist()}) == list(range(len(row)))


@given(LISTS, st.integers(1, 60))
def test_a_plan_has_every_list_once_and_keeps_its_limit(lists: list[list[int]], limit: int) -> None:
    tokens = tokens_of([*lists, []])
    plan = prefix_plan(tokens, limit)
    rows = [row for batch in plan for row in batch.tolist()]
    assert sorted(rows) == [row for row, each in enumerate(tokens) if len(each)]
    ordered = [tokens[row].tolist() for row in rows]
    assert ordered == sorted(ordered)
    before: list[int] = []
    for batch in plan:
        n_new = 0
        for row in batch.tolist():
            n_new += len(tokens[row]) - common(before, tokens[row].tolist())
            before = tokens[row].tolist()
        n_read = sum(len(tokens[row]) for row in batch.tolist())
        assert len(batch) == 1 or (n_new <= limit and n_read <= MOST_READ * limit)


def test_a_plan_does_not_depend_on_the_order_of_the_lists() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 2, rng.integers(1, 30)).tolist() for _ in range(60)]
    tokens = tokens_of([list(each) for each in dict.fromkeys(map(tuple, lists))])
    plan = [[tokens[row].tolist() for row in batch] for batch in prefix_plan(tokens, 90)]
    order = rng.permutation(len(tokens))
    mixed = [tokens[row] for row in order]
    assert [[mixed[row].tolist() for row in batch] for batch in prefix_plan(mixed, 90)] == plan
    assert len(plan) > 3


def test_what_is_made_of_a_batch_is_bounded_where_nearly_everything_is_shared() -> None:
    same = [np.arange(500, dtype=np.uint32)] * 300
    plan = prefix_plan(same, 1000)
    assert [len(batch) for batch in plan] == [16] * 18 + [12]


@pytest.mark.parametrize("tokens", [[], [np.zeros(0, np.uint32)]])
def test_nothing_has_no_batches(tokens: list[Tokens]) -> None:
    assert prefix_plan(tokens, 10) == []
    assert len(positions_in_row([len(t) for t in tokens], shared_with_previous(tokens))) == len(
        tokens
    )
