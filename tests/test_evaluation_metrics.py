"""Measures of a ranking against slow definitions, and bootstrap intervals."""

import math

import numpy as np
import pytest

from selection.evaluation.metrics import (
    bootstrap_mean,
    grade_pool,
    measure,
    nested_mean,
    order_by_score,
)


def slow_dcg(grades: list[int], depth: int) -> float:
    return sum((2**g - 1) / math.log2(r + 1) for r, g in enumerate(grades[:depth], 1))


def slow_graded_ap(grades: list[int]) -> float:
    """Robertson et al.: users content with grade 1, 2 or 3, each a third of them."""

    def worth(grade: int) -> float:  # sum of g_j up to a grade
        return grade / 3

    above = 0.0
    for n, grade in enumerate(grades, 1):
        if grade:
            above += sum(worth(min(grade, other)) for other in grades[:n]) / n
    return above / sum(worth(grade) for grade in grades)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("top", [1, 2, 3])
def test_measures_are_their_definitions_over_judged_candidates(seed: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    grades = rng.choice([-1, *range(top + 1)], size=2300, p=[0.2, 0.7, *[0.1 / top] * top])
    judged = [int(g) for g in grades if g >= 0]
    best = max(judged)
    n_best = judged.count(best)

    found = measure(grades.astype(np.int8))

    ideal = slow_dcg(sorted(judged, reverse=True), 1000)
    assert found.ndcg == pytest.approx(slow_dcg(judged, 1000) / ideal, abs=1e-12)
    assert found.r_precision == judged[:n_best].count(best) / n_best
    for percent, recall in ((1, found.recall_1), (5, found.recall_5), (10, found.recall_10)):
        depth = math.ceil(percent * len(judged) / 100)
        assert recall == judged[:depth].count(best) / n_best
    if top == 1:
        assert found.average_precision == pytest.approx(slow_graded_ap(judged), abs=1e-12)


def test_graded_average_precision_is_its_definition() -> None:
    grades = [0, 3, 1, 0, 2, 3, 0, 1, 0]
    found = measure(np.array([-1, *grades])).average_precision
    assert found == pytest.approx(slow_graded_ap(grades), abs=1e-12)


def test_the_ideal_order_measures_one_and_hits_below_a_thousand_do_not_count() -> None:
    perfect = measure(np.array([3, 2, 1, 0, 0]))
    assert perfect.ndcg == perfect.average_precision == perfect.r_precision == 1.0
    assert measure(np.array([0] * 1000 + [3])).ndcg == 0.0


def test_a_pool_without_anything_relevant_is_refused() -> None:
    with pytest.raises(ValueError, match="no candidate is relevant"):
        measure(np.array([0, -1, 0]))


def test_grades_follow_task_then_weakness_then_family_then_category() -> None:
    grades = grade_pool(
        np.array(["t", "t", "u", "u", "u", "u"]),
        np.array(["f", "f", "f", "g", "f", "f"]),
        np.array(["c", "c", "c", "c", "c", "d"]),
        np.array([False, True, False, False, True, False]),
        tasks=["t"],
        families=["f"],
        target_category="c",
    )
    assert grades.tolist() == [3, 3, 2, 1, -1, 0]


def test_equal_scores_go_by_id_wherever_the_rows_stand() -> None:
    ids = np.array(["b", "d", "a", "c"])
    order = order_by_score(np.array([1.0, 2.0, 1.0, 1.0]), np.argsort(ids))
    assert ids[order].tolist() == ["d", "a", "b", "c"]
    with pytest.raises(ValueError, match="row 1 has no score"):
        order_by_score(np.array([0.0, np.nan]), np.arange(2))


def test_the_bootstrap_resamples_targets_and_is_the_same_every_time() -> None:
    values = np.array([0.1, 0.5, 0.2, 0.9])
    found = bootstrap_mean(values)
    rng = np.random.default_rng(0)
    means = sorted(values[rng.integers(0, 4, (2000, 4))].mean(axis=1))
    assert found.mean == pytest.approx(values.mean())
    assert means[49] <= found.lo <= means[50]
    assert means[1949] <= found.hi <= means[1950]
    assert bootstrap_mean(values) == found
    paired = bootstrap_mean(values - (values - 0.1))
    assert paired.lo == pytest.approx(0.1)
    assert paired.hi == pytest.approx(0.1)


def test_the_nested_mean_measures_what_the_other_half_chose() -> None:
    values = np.random.default_rng(1).normal(size=(7, 10))
    rng, seen = np.random.default_rng(0), []
    for _ in range(40):
        order = rng.permutation(10).tolist()
        for ours, others in ((order[:5], order[5:]), (order[5:], order[:5])):
            means = [sum(row[t] for t in ours) / len(ours) for row in values]
            chosen = means.index(max(means))
            seen.append(sum(values[chosen][t] for t in others) / len(others))
    assert nested_mean(values, n_splits=40) == pytest.approx(sum(seen) / len(seen))
    assert nested_mean(values[:1]) == pytest.approx(values[0].mean())
    assert nested_mean(values[:, :1]) == values[:, 0].max()
    assert nested_mean(values) < values.mean(axis=1).max()
