from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import take
from selection.picking.controls import length_matched
from selection.picking.pick import choose
from selection.picking.ranking import combine_targets, rank
from selection.picking.rules.diversity import Diversity
from selection.picking.rules.from_settings import Rules
from selection.picking.rules.near_duplicates import DuplicateFinder, KeptVectors
from selection.picking.rules.quotas import Bounds, ColumnLimits, Quota, check_quota, limits_of
from selection.records import Budget, Picks, Ranking, SparseRows
from tests.sparse_strategies import N_LATENTS, sparse_rows

ONES = np.ones(N_LATENTS, np.int64)
NAMES = ["code", "math", "talk"]
CODES = np.array([0, 0, 0, 0, 1, 1, 2, 2, -1, -1], np.int32)
RANKING = Ranking(np.arange(10), np.linspace(1, 0.1, 10))


def limits(quota: Quota, n: int) -> ColumnLimits:
    return limits_of(quota, NAMES, CODES, n)


def rows_of(picks: Picks) -> list[int]:
    return RANKING.rows[picks.positions].tolist()


def with_quota(n: int, values: dict[str, Bounds]) -> Picks:
    quota = Quota("kind", values)
    return choose(RANKING, Budget(examples=n), 10, Rules(limits=lambda n: [limits(quota, n)]))


def test_without_rules_the_selection_is_a_prefix() -> None:
    picks = choose(RANKING, Budget(examples=4), 10, Rules())
    assert rows_of(picks) == [0, 1, 2, 3]
    assert set(picks.reasons) == {"score"}
    assert not picks.passed_over


def test_a_cap_passes_over_and_a_floor_keeps_places() -> None:
    picks = with_quota(5, {"code": Bounds(cap=2), "talk": Bounds(floor=2)})
    assert rows_of(picks) == [0, 1, 4, 6, 7]
    assert picks.reasons == ["score", "score", "score", "floor", "floor"]
    assert [(p.position, p.reason) for p in picks.passed_over] == [
        (2, "quota"),
        (3, "quota"),
        (5, "quota"),
    ]
    assert "at its cap of 2" in picks.passed_over[0].detail
    assert "reserved for floors" in picks.passed_over[2].detail


def test_shares_hold_up_to_whole_examples() -> None:
    picks = with_quota(5, {"math": Bounds(share=0.3), "code": Bounds(share=0.2)})
    kinds = CODES[rows_of(picks)]
    assert (kinds == 0).sum() == 1
    assert (kinds == 1).sum() in (1, 2)


def test_quotas_give_the_best_scores_that_any_set_with_those_numbers_has() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        codes = rng.integers(-1, 3, 9).astype(np.int32)
        there = np.bincount(codes[codes >= 0], minlength=3)
        floor, cap = min(2, int(there[2])), max(1, int(there[0]) - 1)
        quota = Quota("kind", {"code": Bounds(cap=cap), "talk": Bounds(floor=floor)})
        ranking = Ranking(np.arange(9), np.sort(rng.random(9))[::-1])
        made = [limits_of(quota, NAMES, codes, 4)]
        picks = choose(ranking, Budget(examples=4), 9, Rules(limits=partial(_same, made)))
        totals = {
            frozenset(chosen): float(ranking.scores[list(chosen)].sum())
            for chosen in combinations(range(9), 4)
            if (codes[list(chosen)] == 0).sum() <= cap and (codes[list(chosen)] == 2).sum() >= floor
        }
        assert frozenset(picks.positions.tolist()) == max(totals, key=lambda c: totals[c])


def _same(made: list[ColumnLimits], _: int) -> list[ColumnLimits]:
    return made


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"math": Bounds(floor=3)}, "at least 3 picks are asked for, and 2 eligible"),
        ({"math": Bounds(floor=2, cap=1)}, "at least 2 and at most 1 of 5 picks"),
        ({"code": Bounds(floor=4), "math": Bounds(floor=2)}, "add up to 6, and the budget is 5"),
        ({"poems": Bounds(cap=1)}, "no example has this value"),
    ],
)
def test_quotas_that_clash_are_refused_with_the_numbers(
    values: dict[str, Bounds], says: str
) -> None:
    quota = Quota("kind", values)
    with pytest.raises(InputError, match=says):
        check_quota(quota, limits(quota, 5), np.ones(10, np.bool_), 5)


def test_caps_that_leave_too_little_room_are_refused_with_the_numbers() -> None:
    quota = Quota("kind", {}, Bounds(cap=1))
    with pytest.raises(InputError, match="room for 5 picks, and the budget is 6"):
        check_quota(quota, limits(quota, 6), np.ones(10, np.bool_), 6)
    check_quota(quota, limits(quota, 5), np.ones(10, np.bool_), 5)


def test_included_come_first_and_low_scores_stay_out() -> None:
    rules = Rules(include=np.array([9, 7]), min_score=0.75)
    picks = choose(RANKING, Budget(examples=6), 10, rules)
    assert rows_of(picks) == [7, 9, 0, 1, 2]
    assert picks.reasons[:2] == ["included", "included"]
    assert picks.n_below_min == 7
    assert "7 of them scored below `min_score`" in picks.shortfall
    with pytest.raises(InputError, match="room for 1 of 2 included"):
        choose(RANKING, Budget(examples=1), 10, rules)
    with pytest.raises(InputError, match="dropped before ranking"):
        choose(RANKING, Budget(examples=1), 10, Rules(include=np.array([55])))


def diverse(diversity: Diversity, rows: SparseRows) -> Rules:
    return Rules(diversity=diversity, vectors=lambda wanted: take(rows, wanted), weights=ONES)


def finder_of(rows: SparseRows, texts: Sequence[str]) -> DuplicateFinder:
    return DuplicateFinder(
        KeptVectors(ONES, 0.9),
        lambda wanted: take(rows, wanted),
        lambda wanted: [texts[i] for i in wanted],
        text_overlap=0.6,
        shingle_words=2,
    )


def test_near_duplicates_give_their_places_to_the_next() -> None:
    rows = sparse_rows([{i // 2: 5, 20: 1} for i in range(10)])
    texts = [f"question number {i // 2} of all" for i in range(10)]
    rules = Rules(duplicates=lambda: finder_of(rows, texts))
    picks = choose(RANKING, Budget(examples=4), 10, rules)
    assert rows_of(picks) == [0, 2, 4, 6]
    assert [(p.position, p.other, p.reason) for p in picks.passed_over] == [
        (1, 0, "near_duplicate"),
        (3, 2, "near_duplicate"),
        (5, 4, "near_duplicate"),
    ]
    short = choose(RANKING, Budget(examples=9), 10, rules)
    assert rows_of(short) == [0, 2, 4, 6, 8]
    assert "5 near_duplicate" in short.shortfall


def test_diversity_changes_the_order_and_says_for_whom() -> None:
    rows = sparse_rows([{0: 9}, {0: 9}, {0: 9}, {1: 9}] + [{2: 9}] * 6)
    rules = diverse(Diversity(0.5), rows)
    picks = choose(RANKING, Budget(examples=2), 10, rules)
    assert rows_of(picks) == [0, 3]
    assert picks.reasons == ["score", "diversity"]
    assert [(p.position, p.reason) for p in picks.passed_over] == [(1, "diversity")]


def test_a_token_budget_ends_at_the_first_that_does_not_fit_whatever_the_rules() -> None:
    costs = np.array([3, 3, 9, 1, 1, 1, 1, 1, 1, 1])

    def tokens(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return costs[rows]

    rows = sparse_rows([{i: 5} for i in range(10)])
    texts = [f"{i} {i + 1}" for i in range(10)]
    for rules in (
        Rules(),
        Rules(duplicates=lambda: finder_of(rows, texts)),
        diverse(Diversity(0.9), rows),
    ):
        picks = choose(RANKING, Budget(tokens=10), 10, rules, tokens)
        assert rows_of(picks) == [0, 1]
        assert (picks.n_tokens, picks.unused_tokens) == (6, 4)
    quota = Quota("kind", {"code": Bounds(cap=0.5)})
    rules = Rules(limits=lambda n: [limits(quota, n)])
    picks = choose(RANKING, Budget(tokens=9), 10, rules, tokens)
    kinds = CODES[rows_of(picks)]
    assert picks.n_tokens is not None
    assert picks.n_tokens <= 9
    assert (kinds == 0).sum() <= len(kinds) / 2


def test_targets_take_turns_by_weight_and_no_candidate_counts_twice() -> None:
    n = 12
    first = rank(np.linspace(1, 0, n), np.ones(n, np.bool_))
    second = rank(np.linspace(1, 0, n), np.ones(n, np.bool_))
    joint = combine_targets([first, second], [2, 1])
    assert sorted(joint.rows.tolist()) == list(range(n))
    assert (joint.targets[:9] == 0).sum() == 6
    equal = combine_targets([first, second])
    assert equal.targets[:6].tolist() == [0, 1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="weight"):
        combine_targets([first, second], [1, 0])


def test_a_length_matched_control_has_the_lengths_of_the_picks() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 30, 500)
    eligible = rng.random(500) < 0.9
    picked = np.flatnonzero(eligible & (lengths > 20))[:60]
    drawn = length_matched(picked, lengths, rng.random(500), eligible)
    assert len(set(drawn.tolist())) == 60
    assert eligible[drawn].all()
    assert sorted(lengths[drawn]) == sorted(lengths[picked])
    assert set(drawn.tolist()) != set(picked.tolist())
    few = length_matched(picked, lengths, rng.random(500), np.isin(np.arange(500), [3, 4]))
    assert sorted(few.tolist()) == [3, 4]
