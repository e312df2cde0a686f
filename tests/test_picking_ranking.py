import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.picking.ranking import combine_targets, rank
from selection.records import Ranking

few_scores = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # Few values, so that ties are common.


def everyone(scores: list[float]) -> Ranking:
    return rank(np.array(scores), np.ones(len(scores), bool))


@given(st.lists(st.tuples(few_scores, st.booleans())))
def test_ranking_is_by_score_then_smaller_row(candidates: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in candidates])
    eligible = np.array([eligible for _, eligible in candidates], bool)
    found = rank(scores, eligible)
    expected = sorted(np.flatnonzero(eligible).tolist(), key=lambda row: (-scores[row], row))
    assert found.rows.tolist() == expected
    assert found.scores.tolist() == [scores[row] for row in expected]


def test_a_missing_score_is_refused_only_for_the_eligible() -> None:
    scores = np.array([0.5, np.nan, 0.1])
    assert rank(scores, np.array([True, False, True])).rows.tolist() == [0, 2]
    with pytest.raises(ValueError, match="row 1 has no score"):
        rank(scores, np.array([True, True, True]))


def turns(rankings: list[Ranking]) -> list[tuple[int, int]]:
    """Round robin, the obvious way: (row, target)."""
    order: list[tuple[int, int]] = []
    everything = {int(row) for ranking in rankings for row in ranking.rows}
    while len(order) < len(everything):
        for target, ranking in enumerate(rankings):
            taken = {row for row, _ in order}
            free = [int(row) for row in ranking.rows if row not in taken]
            order += [(free[0], target)] if free else []
    return order


def some_ranking(seed: int, n: int) -> Ranking:
    rng = np.random.default_rng(seed)
    return rank(rng.integers(0, 5, n) / 4, rng.random(n) < 0.6)


@pytest.mark.parametrize("seed", range(5))
def test_targets_take_turns_and_no_candidate_counts_twice(seed: int) -> None:
    rankings = [some_ranking(10 * seed + t, 12 + 5 * t) for t in range(3)]
    found = combine_targets(rankings)
    pairs = list(zip(found.rows.tolist(), found.targets.tolist(), strict=True))
    assert pairs == turns(rankings)
    assert len(set(found.rows)) == len(found.rows)
    for row, score, target in zip(found.rows, found.scores, found.targets, strict=True):
        of_target = rankings[target]
        assert score == of_target.scores[of_target.rows == row][0]


def test_an_empty_ranking_is_passed_over() -> None:
    nothing = rank(np.zeros(3), np.zeros(3, bool))
    assert combine_targets([nothing, everyone([0.1, 0.4])]).rows.tolist() == [1, 0]
    assert combine_targets([nothing]).rows.tolist() == []


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(ValueError, match="no rankings"):
        combine_targets([])
    with pytest.raises(ValueError, match="positive weight"):
        combine_targets([everyone([0.1])], [0])
    with pytest.raises(ValueError, match="scores for"):
        rank(np.zeros(3), np.zeros(2, bool))
