"""The label-free check on arrays: every number against a slow definition."""

import numpy as np
import pytest

from selection.core.sparse import take
from selection.evaluation.held_out import folds_of, share_above
from selection.evaluation.label_free import check_held_out, sample_rows
from selection.evaluation.ranking_depth import measure_depth, n_indistinguishable
from selection.similarity.queries import ExemplarReduction, exemplar_queries, score
from tests.planted_duplicates import Planted, planted, planted_input

N, M = 600, 7
IDS = np.array([f"{i:032d}" for i in range(N)], "S32")


@pytest.fixture(scope="module")
def made() -> Planted:
    return planted(N, 60, M)


@pytest.mark.parametrize("reduction", ["mean", "max", "prototype"])
def test_standings_are_those_of_scores_by_the_other_folds(
    made: Planted, reduction: ExemplarReduction
) -> None:
    ranking = planted_input(made)
    rows = np.flatnonzero(np.random.default_rng(0).random(N) < 0.8)
    texts = [f"word{i % 9} word{i % 5}" for i in range(N)]
    standings = check_held_out(
        ranking,
        reduction,
        rows,
        IDS,
        lambda rows: [texts[row] for row in rows],
        {"t": [f"word{i} word1" for i in range(M)]},
        n_folds=3,
        seed=4,
    )["t"]
    assert list(standings) == ["jaccard", "bm25", "random"]
    ids = ranking.exemplars["t"].ids
    folds = folds_of(ids.tolist(), 3, 4)
    weights, exemplars = ranking.spaces.weights, ranking.exemplars["t"].rows
    for i, fold in enumerate(folds):
        queries = exemplar_queries(
            take(exemplars, np.flatnonzero(folds != fold)), weights, reduction
        )
        samples = score(ranking.spaces.rows([take(made.pool, rows)]), queries)
        (own,) = score(take(exemplars, np.array([i])), queries)
        above = share_above(samples, own, np.zeros(len(rows), np.bool_))
        assert standings["jaccard"].shares_above[i] == above
    assert standings["jaccard"].folds.tolist() == folds.tolist()


def test_a_copy_of_an_exemplar_is_no_sample(made: Planted) -> None:
    ids = np.concatenate([IDS[:-1], np.array(["exemplar-0"], "S32")])  # the last row is a copy
    shares = check_held_out(
        planted_input(made),
        "mean",
        np.arange(N),
        ids,
        lambda rows: ["a"] * len(rows),
        {"t": ["a"] * M},
        method="random",
    )["t"]["random"].shares_above
    # The copy has the exemplar's own random score: as a sample it would tie, and count half.
    assert shares[0] * (N - 1) == pytest.approx(round(shares[0] * (N - 1)))
    assert shares[1] * N == pytest.approx(round(shares[1] * N))


def test_a_single_exemplar_cannot_be_held_out() -> None:
    ranking = planted_input(planted(N, 60, 1))
    given = {"t": ["a"]}
    assert check_held_out(ranking, "mean", np.arange(N), IDS, lambda rows: [], given) == {}


def test_a_large_pool_is_sampled_by_the_seed() -> None:
    eligible = np.arange(1000) % 3 > 0
    assert sample_rows(eligible, 5000, 0).tolist() == np.flatnonzero(eligible).tolist()
    some = sample_rows(eligible, 50, 0)
    assert len(set(some.tolist())) == 50
    assert eligible[some].all()
    assert some.tolist() == sample_rows(eligible, 50, 0).tolist()
    assert some.tolist() != sample_rows(eligible, 50, 1).tolist()


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_the_depth_lands_near_the_number_of_planted_samples(
    made: Planted, reduction: ExemplarReduction
) -> None:
    ranking = planted_input(made)
    scores = ranking.scorer(reduction).scores(ranking.vectors)["t"]
    order = np.argsort(-scores, kind="stable")
    is_pick = np.arange(N) < 30
    everyone = np.ones(N, np.bool_)
    depth = measure_depth(ranking, reduction, "t", (order, is_pick), everyone, IDS, n_alike=60)
    assert depth is not None
    assert 0.6 * 60 < depth.depth < 1.7 * 60
    assert (depth.n_picks, depth.n_beyond) == (30, 0)
    assert depth.n_examined == N
    assert depth.nearest.sum() == pytest.approx(1)
    assert 1 <= depth.effective <= M
    few = np.arange(N) < 15
    assert measure_depth(ranking, reduction, "t", (order, is_pick), few, IDS) is None


def test_samples_like_the_exemplars_are_at_most_half_of_the_ranked(made: Planted) -> None:
    assert n_indistinguishable(None, 100) == 0
    ranking = planted_input(made)
    held_out = check_held_out(
        ranking, "mean", np.arange(N), IDS, lambda rows: ["a"] * len(rows), {"t": ["a"] * M}
    )["t"]
    assert 20 < n_indistinguishable(held_out["jaccard"], N) <= N / 2
    assert n_indistinguishable(held_out["random"], N) == 0
