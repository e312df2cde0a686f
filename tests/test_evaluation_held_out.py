import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.core.sparse import take
from selection.evaluation.held_out import (
    FoldStatistic,
    folds_of,
    median_interval,
    samples_alike,
    scores_without,
    share_above,
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


def test_a_median_interval_is_the_quantiles_of_resampled_medians() -> None:
    values = np.array([3.0, 10.0, 4.0, 8.0, 1.0, 7.0])
    rng = np.random.default_rng(0)
    medians = [
        np.median([values[i] for i in row]) for row in rng.integers(0, 6, (2000, 6)).tolist()
    ]
    found = median_interval(values)
    assert found.median == 5.5
    assert (found.lo, found.hi) == (np.quantile(medians, 0.025), np.quantile(medians, 0.975))


def test_alike_samples_are_twice_the_median_above_and_never_more_than_the_pool() -> None:
    found = samples_alike(np.array([0.1, 0.2, 0.9]), 200)
    assert (found.median, found.hi) == (0.4 * 200, 200)


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
        estimates.append(samples_alike(shares, 1200).median)
    if n_relevant == 0:
        assert np.median(estimates) < 0.02 * 1200
    else:
        assert 0.6 * n_relevant < np.mean(estimates) < 1.6 * n_relevant
