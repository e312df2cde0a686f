from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from selection.core.sparse import concatenate, take
from selection.evaluation.random_draws import (
    Statistic,
    closeness,
    depth_interval,
    draw_samples,
    draw_sets,
    draw_thresholds,
    effective_exemplars,
    informative_until,
    near_exemplars,
)
from selection.records import SparseRows
from selection.similarity.queries import exemplar_queries, score_each
from selection.similarity.weights import unit_weights
from tests.planted_duplicates import N_LATENTS, planted


def beats_draws(
    own: NDArray[np.float64],
    drawn: NDArray[np.float64],
    sets: NDArray[np.int64],
    statistic: Statistic,
) -> NDArray[np.bool_]:
    """Which candidates are closer to the exemplars than to 95 % of the draws."""
    thresholds = draw_thresholds(drawn, sets, own.shape[1], statistic)
    return np.asarray(closeness(own, sets.shape[1], statistic) > thresholds)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mean", "max"]))
def test_a_candidate_beats_the_draws_that_the_definition_says(seed: int, how: Statistic) -> None:
    rng = np.random.default_rng(seed)
    own, drawn = rng.integers(0, 9, (6, 3)) / 8, rng.integers(0, 9, (6, 7)) / 8  # many ties
    sets = draw_sets(7, int(rng.integers(1, 5)), 20, seed)
    found = beats_draws(own, drawn, sets, how)
    for i in range(6):
        mine = [Fraction(x) for x in own[i]]
        best = max(mine) if how == "max" else sum(mine) / len(mine)
        n_beaten = 0
        for columns in sets:
            theirs = [Fraction(drawn[i, c]) for c in columns]
            n_beaten += best > (max(theirs) if how == "max" else sum(theirs) / len(theirs))
        assert found[i] == (n_beaten >= 19)


def test_near_is_closer_than_to_95_of_100_samples() -> None:
    drawn = np.arange(100)[None] / 100
    own = np.array([[0.94, 0.9401, 0.2]])
    assert near_exemplars(own, drawn).tolist() == [[False, True, False]]


@given(st.lists(st.booleans(), max_size=40))
def test_the_rank_splits_the_ranking_best(beats: list[bool]) -> None:
    def right(k: int) -> int:
        return sum(beats[:k]) + sum(not each for each in beats[k:])

    until = informative_until(np.array(beats, np.bool_))
    assert right(until) == max(map(right, range(len(beats) + 1)))
    assert all(right(k) < right(until) for k in range(until))  # the smallest such


@pytest.mark.parametrize("how", ["mean", "max"])
def test_the_interval_of_the_depth_is_as_wide_as_resampled_exemplars_say(how: Statistic) -> None:
    rng, m = np.random.default_rng(2), 5
    own, drawn = rng.integers(0, 9, (90, m)) / 8, rng.integers(0, 9, (90, 9)) / 8
    own[:30] += 0.5
    sets = draw_sets(9, 3, 20, 0)
    thresholds = draw_thresholds(drawn, sets, m, how)

    def depth(columns: NDArray[np.int64]) -> int:
        chosen = own[:, columns]
        scores = chosen.sum(axis=1) if how == "mean" else chosen.max(axis=1)
        order = np.argsort(-scores, kind="stable")
        return informative_until(beats_draws(chosen[order], drawn[order], sets, how))

    again = np.random.default_rng(5)
    logs = [np.log(1 + depth(again.integers(0, m, m))) for _ in range(200)]
    factor = np.exp(4 * 1.5 * np.std(logs))
    until = 1 + informative_until(beats_draws(own, drawn, sets, how))
    interval = depth_interval(own, thresholds, 3, how, 5)
    assert interval == (max(0, int(until / factor) - 1), int(np.ceil(until * factor)) - 1)
    assert depth_interval(own[:, :4], thresholds, 3, how, 5) is None


def test_equal_exemplars_leave_the_noise_of_the_random_samples() -> None:
    own = np.tile(np.linspace(1, 0, 200)[:, None], (1, 5))
    thresholds = np.full(200, own[100, 0] * 2.0**40 * 5).astype(np.int64)  # beaten by 100
    lo, hi = depth_interval(own, thresholds, 1, "mean", 0) or (0, 0)
    assert lo == pytest.approx(100 / np.exp(0.1 * 4 * 1.5), abs=2)
    assert hi == pytest.approx(100 * np.exp(0.1 * 4 * 1.5), abs=2)


def test_draws_are_of_the_exemplars_sizes_each_sample_once_and_no_function_of_order() -> None:
    rng = np.random.default_rng(0)
    sizes = (10 * 2 ** (7 * rng.random(3000))).astype(np.int64)
    names = [f"sample-{i}" for i in range(3000)]
    wanted = np.array([20, 700])
    drawn = draw_samples(wanted, sizes, names, 100, seed=3)
    assert len(set(drawn.tolist())) == 100
    assert (np.abs(np.log2(sizes[drawn] / wanted[np.arange(100) % 2])) < 0.4).all()
    assert set(drawn.tolist()) != set(draw_samples(wanted, sizes, names, 100, seed=4).tolist())
    order = rng.permutation(3000)
    shuffled = draw_samples(wanted, sizes[order], [names[i] for i in order], 100, seed=3)
    assert {names[i] for i in drawn} == {names[order[i]] for i in shuffled}


def test_a_small_pool_gives_all_its_samples() -> None:
    drawn = draw_samples(np.array([5]), np.array([1, 9, 400]), ["a", "b", "c"], 10, seed=0)
    assert sorted(drawn.tolist()) == [0, 1, 2]


def test_exemplars_alike_are_worth_one_and_unrelated_ones_all() -> None:
    rng = np.random.default_rng(0)
    drawn, topic = rng.random((4000, 60)), rng.random((4000, 1))
    alike = topic + 0.01 * rng.random((4000, 6))
    assert effective_exemplars(alike, drawn) == pytest.approx(1, abs=0.01)
    assert effective_exemplars(rng.random((4000, 6)), drawn) == pytest.approx(6, abs=0.5)
    assert effective_exemplars(rng.random((4000, 1)), drawn) == pytest.approx(1, abs=1e-9)


def test_sets_are_of_different_samples() -> None:
    sets = draw_sets(9, 4, 50, seed=0)
    assert sets.shape == (50, 4)
    assert all(len(set(row)) == 4 for row in sets.tolist())
    assert set(sets.ravel().tolist()) == set(range(9))


@pytest.mark.parametrize("statistic", ["mean", "max"])
@pytest.mark.parametrize(("n_relevant", "longer"), [(30, 1.0), (150, 1.0), (150, 2.5), (400, 1.0)])
def test_the_depth_lands_near_the_number_of_planted_samples(
    n_relevant: int, longer: float, statistic: Statistic
) -> None:
    """Also where a third of the pool is relevant, and where the exemplars are much longer."""
    made = planted(1200, n_relevant, 8, longer=longer)
    until, _ = depth_of(made.pool, made.exemplars, statistic, not_drawn=n_relevant)
    assert 0.75 * n_relevant < until < 1.6 * n_relevant


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_random_samples_as_exemplars_have_next_to_no_depth(statistic: Statistic) -> None:
    made = planted(1200, 0, 1)
    rng = np.random.default_rng(1)
    chosen = rng.choice(1200, 8, replace=False)
    others = np.setdiff1d(np.arange(1200), chosen)
    until, share = depth_of(
        take(made.pool, others), take(made.pool, chosen), statistic, not_drawn=0
    )
    assert until < 0.1 * 1200
    assert share < 0.15


def depth_of(
    pool: SparseRows, exemplars: SparseRows, statistic: Statistic, not_drawn: int
) -> tuple[int, float]:
    """(rank, share of all samples that beat their draws), by the steps that a run takes."""
    m, weights = len(exemplars), unit_weights(N_LATENTS)
    scores, _ = score_each(pool, exemplar_queries(exemplars, weights, "max"))
    by_score = scores.mean(axis=1) if statistic == "mean" else scores.max(axis=1)
    order = np.argsort(-by_score, kind="stable")
    below = np.sort(order[not_drawn:])
    sizes = np.diff(pool.indptr)
    names = [f"{row}" for row in below]
    drawn = below[draw_samples(np.diff(exemplars.indptr), sizes[below], names, 128, seed=0)]
    queries = exemplar_queries(concatenate([exemplars, take(pool, drawn)]), weights, "max")
    both, _ = score_each(take(pool, order), queries)
    own, theirs = both[:, :m], both[:, m:]
    theirs[order[:, None] == drawn] = 0
    effective = effective_exemplars(own, theirs)
    sets = draw_sets(128, m if statistic == "max" else round(effective), 100, seed=0)
    beats = beats_draws(own, theirs, sets, statistic)
    return informative_until(beats), float(beats.mean())
