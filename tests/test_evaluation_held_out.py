from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.core.sparse import take
from selection.evaluation.held_out import (
    FoldStatistic,
    MedianInterval,
    apart,
    chance_to_rank_so_high,
    folds_of,
    median_interval,
    samples_alike,
    scores_without,
    share_above,
    share_within,
)
from selection.similarity.queries import exemplar_queries, score, score_each
from selection.similarity.weights import unit_weights
from tests.planted_duplicates import N_LATENTS, planted

NO_COPY = np.zeros(5, np.bool_)


def test_a_share_above_counts_a_tie_as_half() -> None:
    scores = np.array([0.1, 0.5, 0.5, 0.9, 0.2])
    assert share_above(scores, 0.5, NO_COPY) == (1 + 0.5 * 2) / 5


def test_an_exact_copy_neither_stands_above_nor_counts() -> None:
    scores = np.array([0.1, 0.5, 0.5, 0.9, 0.2])
    is_copy = np.array([False, False, True, False, False])
    assert share_above(scores, 0.5, is_copy) == (1 + 0.5) / 4


def test_a_pool_of_copies_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        share_above(np.ones(2), 1.0, np.ones(2, np.bool_))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 6))
def test_a_share_above_is_the_chance_to_lose_against_a_random_sample(
    scores: list[int], own: int
) -> None:
    expected = sum(1.0 if s > own else 0.5 if s == own else 0.0 for s in scores) / len(scores)
    none = np.zeros(len(scores), np.bool_)
    assert share_above(np.array(scores, float), float(own), none) == pytest.approx(expected)


ids = st.lists(st.integers(0, 12).map(lambda i: f"id-{i}"), min_size=1, max_size=25)


@given(ids, st.integers(2, 7), st.integers(0, 3))
def test_folds_are_even_keep_copies_together_and_do_not_follow_the_file(
    exemplars: list[str], n_folds: int, seed: int
) -> None:
    folds = folds_of(exemplars, n_folds, seed)
    by_id = dict(zip(exemplars, folds.tolist(), strict=True))
    assert [by_id[name] for name in exemplars] == folds.tolist()  # copies share a fold
    sizes = np.bincount(list(by_id.values()))
    assert len(sizes) == min(n_folds, len(by_id))
    assert sizes.max() - sizes.min() <= 1
    backwards = folds_of(exemplars[::-1], n_folds, seed)
    assert backwards[::-1].tolist() == folds.tolist()


def test_another_seed_gives_other_folds() -> None:
    names = [f"id-{i}" for i in range(20)]
    assert folds_of(names, 5, 0).tolist() != folds_of(names, 5, 1).tolist()


def test_one_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        folds_of(["a", "b"], 1)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_scores_without_a_fold_are_those_of_the_other_exemplars(how: FoldStatistic) -> None:
    made, weights = planted(200, 20, 7), unit_weights(N_LATENTS)
    folds = folds_of([f"{i}" for i in range(7)], 3)
    each, _ = score_each(made.pool, exemplar_queries(made.exemplars, weights, "max"))
    found = scores_without(each, folds, how)
    for fold in range(3):
        rest = take(made.exemplars, np.flatnonzero(folds != fold))
        expected = score(made.pool, exemplar_queries(rest, weights, how))
        assert found[:, fold].tolist() == expected.tolist()


@pytest.mark.parametrize("m", range(2, 40))
def test_a_median_interval_covers_the_true_median_or_is_not_given(m: int) -> None:
    """Of all 2^m equally likely ways to lie below or above it, by their number below."""
    values = np.arange(m, dtype=float)
    interval = median_interval(values[::-1])
    assert interval.median == np.median(values)
    assert (interval.lo is None) == (interval.hi is None) == (m < 6)
    if interval.lo is not None and interval.hi is not None:
        n_below = [comb(m, j) for j in range(m + 1)]

        def coverage(lo: float, hi: float) -> float:
            return sum(n for j, n in enumerate(n_below) if lo < j <= hi) / 2**m

        assert coverage(interval.lo, interval.hi) >= 0.95
        assert coverage(interval.lo + 1, interval.hi - 1) < 0.95


def orders(n: int, m: int) -> list[list[int]]:
    """Samples above each of m exemplars, highest first, in every order of n samples and them."""
    return [[p - i for i, p in enumerate(at)] for at in combinations(range(n + m), m)]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (4, 2), (6, 5), (9, 4)])
def test_the_chance_of_a_rank_is_counted_over_all_orders(n: int, m: int) -> None:
    every = orders(n, m)
    for k in range(1, m + 1):
        for above in range(n + 1):
            share = np.mean([order[k - 1] <= above for order in every])
            assert share_within(n, m, k, above) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 5), (9, 5), (5, 8), (12, 6)])
def test_intervals_of_alike_samples_hold_the_true_number_in_95_of_100_orders(
    n: int, m: int
) -> None:
    n_rows = 50  # the others stand below all
    every = orders(n, m)
    holds = 0
    for above in every:
        found = samples_alike(np.array(above) / n_rows, n_rows, n_rows)
        assert found.lo is not None
        assert found.hi is not None
        assert found.median == pytest.approx(2 * np.median(above))
        holds += found.lo <= n <= found.hi
    assert holds >= 0.95 * len(every)


def test_alike_samples_are_at_most_the_pool_and_few_exemplars_give_no_interval() -> None:
    found = samples_alike(np.array([0.1, 0.2, 0.9]), 200, 200)
    assert found == MedianInterval(0.4 * 200, None, None)
    full = samples_alike(np.linspace(0.1, 0.9, 9), 83, 83)
    assert (full.median, full.hi) == (83, 83)
    drawn = samples_alike(np.full(8, 0.05), 1_000, 20_000)
    assert drawn.median == 2_000
    whole = samples_alike(np.full(8, 0.05), 1_000, 1_000)
    assert (drawn.lo, drawn.hi) == (20 * (whole.lo or 0), 20 * (whole.hi or 0))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 8, 9, 300])
def test_random_samples_rank_as_high_as_often_as_said(m: int) -> None:
    rng = np.random.default_rng(0)
    chances = np.array(
        [chance_to_rank_so_high(rng.random(m)) for _ in range(4_000 if m < 10 else 800)]
    )
    for level in (0.025, 0.2, 0.7):
        assert (chances <= level).mean() == pytest.approx(level, abs=0.02)


def test_the_chance_of_a_median_of_two_is_that_of_their_sum() -> None:
    for low, high in ((0.0, 0.0), (0.01, 0.05), (0.1, 0.2), (0.2, 0.8)):
        expected = (low + high) ** 2 / 2
        assert chance_to_rank_so_high(np.array([low, high])) == pytest.approx(expected)
    assert chance_to_rank_so_high(np.array([0.7, 0.9])) == pytest.approx(1 - 0.4**2 / 2)
    assert chance_to_rank_so_high(np.array([0.01, 0.01, 0.02])) < 0.001


@pytest.mark.parametrize("n_relevant", [0, 40, 150])
@pytest.mark.parametrize("longer", [1.0, 2.5])
def test_the_estimate_lands_near_the_number_of_planted_samples(
    n_relevant: int, longer: float
) -> None:
    """Over three pools of 1,200: eight exemplars alone leave a wide spread."""
    estimates = []
    for seed in range(3):
        made, weights = planted(1200, n_relevant, 8, seed=seed, longer=longer), unit_weights
        folds = folds_of([f"{seed}-{i}" for i in range(8)], 5)
        shares = np.zeros(8)
        for fold in range(5):
            held = np.flatnonzero(folds == fold)
            rest = take(made.exemplars, np.flatnonzero(folds != fold))
            queries = exemplar_queries(rest, weights(N_LATENTS), "mean")
            scores = score(made.pool, queries)
            own = score(take(made.exemplars, held), queries)
            none = np.zeros(1200, np.bool_)
            shares[held] = [share_above(scores, one, none) for one in own]
        estimates.append(samples_alike(shares, 1200, 1200).median)
    if n_relevant == 0:
        assert np.median(estimates) < 0.02 * 1200
    else:
        assert 0.6 * n_relevant < np.mean(estimates) < 1.6 * n_relevant


@pytest.mark.parametrize(
    ("percents_above", "odd"),
    [
        ([0.1, 0.2, 0.3, 0.4, 6.0], [4]),  # ten times the median and more
        ([0.1, 0.2, 0.3, 0.4, 1.9], []),  # one in fifty is not far
        ([3.0, 4.0, 5.0, 20.0, 24.0], []),  # a task whose exemplars differ
        ([3.0, 4.0, 5.0, 26.0, 60.0], [3, 4]),
        ([50.0, 55.0, 60.0], [0, 1, 2]),  # none better than a random sample
        ([1.0, 30.0], []),  # of two, neither is the odd one
        ([30.0, 0.1, 0.2], [0]),
    ],
)
def test_exemplars_far_below_the_others_are_apart(
    percents_above: list[float], odd: list[int]
) -> None:
    shares = np.array(percents_above) / 100
    assert np.flatnonzero(apart(shares)).tolist() == odd
    ordered = sorted(shares)
    median = (ordered[(len(shares) - 1) // 2] + ordered[len(shares) // 2]) / 2
    for share, named in zip(shares, apart(shares), strict=True):
        assert named == (share >= 0.5 or (share > 0.02 and share > 5 * median))
