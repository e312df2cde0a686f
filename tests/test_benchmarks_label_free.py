"""Figures of the benchmark of the label-free check, against counts by hand."""

import json

import numpy as np

from benchmarks.label_free import Answer, best_split, summary
from benchmarks.support.redraws import LabelledVectors, redraws
from tests.planted_duplicates import planted


def answer(alike: float, of_task: int, until: int, split: int, above: bool) -> Answer:
    return Answer("t", "T1", alike, alike / 2, alike * 2, of_task, until, split, 0.5, 0.1, above)


def test_figures_are_those_counted_by_hand_and_become_json() -> None:
    answers = [
        answer(100, 100, 40, 39, True),
        answer(50, 100, 400, 39, False),
        answer(300, 100, 9, 39, True),
        answer(0, 0, 0, 0, True),
        answer(2, 0, 3, 0, False),
    ]
    found = json.loads(json.dumps(summary(answers)))
    assert found == {
        "targets": 5,
        "median_ratio": 1.0,
        "median_factor": 2.0,
        "intervals_that_hold": "2 of 3",  # half and double hold 100; 300 does not hold it
        "estimates_where_absent": [0, 2],
        "median_factor_of_depth": 4.0,  # of 41 / 40, 401 / 40, 40 / 10 and 4; nothing for 0 and 0
        "depths_off_by_more_than_3": 3,
        "share_before": 0.5,
        "share_behind": 0.1,
        "above_bm25": "3 of 5",
    }


def test_the_best_split_is_where_relatives_lead_by_most() -> None:
    assert best_split(np.array([True, True, False, True, True, False, False])) == 5
    assert best_split(np.array([False, False])) == 0


def test_redraws_are_pools_of_known_numbers_and_the_check_of_them() -> None:
    drawn = planted(600, 60, 1)
    ids = np.array([f"{i:032d}" for i in range(600)])
    made = LabelledVectors(("made",), (drawn.pool,), ids, np.where(drawn.is_relevant, 0, -1))
    for n, n_pool in ((0, 200), (20, 200), (40, 40)):
        several = list(redraws(made, 6, n, n_pool, 3, seed=1))
        assert [(each.task, each.n, each.n_pool) for each in several] == [(0, n, n_pool)] * 3
        assert all(each.depth is not None for each in several)
        assert [each.may_be_full for each in several] == [n == n_pool] * 3
        assert sum(bool(each.holds) for each in several) >= 2
        assert all(each.says_absent == (each.alike.median < 0.5) for each in several)
        again = list(redraws(made, 6, n, n_pool, 3, seed=1))
        assert [each.alike for each in again] == [each.alike for each in several]
    assert list(redraws(made, 6, 200, 300, 1, seed=0)) == []  # too few rows of the task


def test_the_best_split_is_where_relatives_outnumber_the_others_by_most() -> None:
    ranked = np.array([True, False, True, True, False, False, True])
    by_hand = [sum(1 if each else -1 for each in ranked[:n]) for n in range(len(ranked) + 1)]
    assert best_split(ranked) == int(np.argmax(by_hand)) == 4
    assert best_split(np.zeros(3, np.bool_)) == 0
