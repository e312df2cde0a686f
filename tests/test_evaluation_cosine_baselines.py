from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.core.errors import InputError
from selection.core.sparse import take
from selection.picking.ranking import take_turns
from selection.similarity.queries import (
    ExemplarReduction,
    build_queries,
    medoid_clusters,
    prepare,
    score,
    score_each,
    score_rows,
)
from tests.oracles import generalized_jaccard, mean_of_fixed_points, prototype_jaccard, round_robin
from tests.sparse_strategies import (
    N_LATENTS,
    Vector,
    full_vectors,
    random_rows,
    sparse_rows,
    vectors,
)

ONES = np.ones(N_LATENTS, np.int64)
SCORED: list[ExemplarReduction] = [
    "prototype", "max", "mean", "best_mean", "subtask_mean", "clusters",
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.lists(vectors, min_size=1, max_size=4),
    st.lists(st.tuples(full_vectors, st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_reductions_over_similarities_equal_their_definitions(
    candidates: list[Vector], grouped: list[tuple[Vector, int]], best: int
) -> None:
    exemplars, groups = [e for e, _ in grouped], np.array([g for _, g in grouped])
    rows, queries = sparse_rows(candidates), sparse_rows(exemplars)
    found = {
        how: score(rows, prepare(queries, ONES, how, groups=groups, best=best)) for how in SCORED
    }
    for i, candidate in enumerate(candidates):
        pairs = [float(generalized_jaccard(candidate, e)) for e in exemplars]
        assert found["max"][i] == max(pairs)
        assert found["mean"][i] == mean_of_fixed_points(pairs)
        assert found["best_mean"][i] == mean_of_fixed_points(sorted(pairs)[-best:])
        assert found["subtask_mean"][i] == max(
            mean_of_fixed_points([p for p, g in zip(pairs, groups, strict=True) if g == group])
            for group in set(groups.tolist())
        )
        assert found["prototype"][i] == float(prototype_jaccard(candidate, exemplars))


def test_clusters_score_by_the_nearest_prototype_of_a_group() -> None:
    exemplars, rows = random_rows(11, N_LATENTS, 0.3, 1), random_rows(30, N_LATENTS, 0.3, 2)
    labels = medoid_clusters(exemplars, ONES, 3)
    groups = [np.flatnonzero(labels == label) for label in range(3)]
    assert sorted(np.concatenate(groups).tolist()) == list(range(11))
    each = [
        score_rows(rows, build_queries(take(exemplars, group), ONES, "prototype"))
        for group in groups
    ]
    found = score(rows, prepare(exemplars, ONES, "clusters", n_clusters=3))
    np.testing.assert_array_equal(found, np.max(each, axis=0))


def test_clusters_find_groups_that_share_nothing() -> None:
    vectors_of = [{c: 5, c + 1: 3 + i} for i in range(3) for c in (0, 8, 16)]
    labels = medoid_clusters(sparse_rows(vectors_of), ONES, 3)
    assert len(set(labels.tolist())) == 3
    for first in range(3):
        assert len(set(labels[first::3].tolist())) == 1
    few = medoid_clusters(sparse_rows(vectors_of[:2]), ONES, 9)
    assert sorted(few.tolist()) == [0, 1]
    alike = medoid_clusters(sparse_rows([{1: 1}] * 4), ONES, 2)
    assert alike.shape == (4,)


def test_one_cluster_is_the_prototype_and_one_group_the_mean() -> None:
    exemplars, rows = random_rows(7, N_LATENTS, 0.3, 4), random_rows(30, N_LATENTS, 0.3, 5)

    def scores(how: ExemplarReduction, best: int = 3, n_clusters: int = 4) -> list[float]:
        prepared = prepare(exemplars, ONES, how, best=best, n_clusters=n_clusters)
        return score(rows, prepared).tolist()

    assert scores("clusters", n_clusters=1) == scores("prototype")
    assert scores("subtask_mean") == scores("mean") == scores("best_mean", best=100)
    assert scores("best_mean", best=1) == pytest.approx(scores("max"), abs=2**-40)


@pytest.mark.parametrize("how", SCORED)
def test_threads_blocks_and_order_of_exemplars_do_not_change_a_bit(
    how: ExemplarReduction,
) -> None:
    exemplars, rows = random_rows(10, 60, 0.2, 6), random_rows(101, 60, 0.2, 7)
    weights = np.random.default_rng(8).integers(1, 9_000, 60)
    groups = np.arange(10) % 3
    expected = score(rows, prepare(exemplars, weights, how, groups=groups))
    queries = prepare(exemplars, weights, how, groups=groups)
    for threads, block_rows in [(1, 1), (2, 7), (3, 64)]:
        found = score(rows, queries, threads=threads, block_rows=block_rows)
        np.testing.assert_array_equal(found, expected)
    turned = take(exemplars, np.arange(10)[::-1])
    again = score(rows, prepare(turned, weights, how, groups=groups[::-1]))
    np.testing.assert_array_equal(again, expected)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 999))
def test_exemplars_take_turns_and_no_candidate_is_taken_twice(m: int, n: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, (n, m)) / 4
    found = take_turns(scores, np.ones(n, bool))
    assert found.rows.tolist() == round_robin(scores.tolist())
    turns = enumerate(found.rows.tolist())
    assert found.scores.tolist() == [scores[row, i % m] for i, row in turns]


def test_scores_against_each_exemplar_are_exact_and_ineligible_candidates_are_left_out() -> None:
    exemplars, rows = [{1: 3, 2: 5}, {7: 1}], [{1: 1, 2: 9}, {7: 2}, {3: 1}]
    queries = prepare(sparse_rows(exemplars), ONES, "round_robin")
    scores = score_each(sparse_rows(rows), queries, threads=2, block_rows=2)
    expected = [[float(Fraction(generalized_jaccard(r, e))) for e in exemplars] for r in rows]
    assert scores.tolist() == expected
    found = take_turns(scores, np.array([False, True, True]))
    assert found.rows.tolist() == [1, 2]
    with pytest.raises(ValueError, match="by turns"):
        score(sparse_rows(rows), queries)


def test_what_cannot_be_prepared_is_refused() -> None:
    rows = sparse_rows([{1: 1}])
    with pytest.raises(ValueError, match="reduction is one of"):
        prepare(rows, ONES, "sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        prepare(rows, ONES, "clusters", n_clusters=0)
    with pytest.raises(InputError, match="no exemplars"):
        prepare(sparse_rows([]), ONES, "clusters")
    many = np.broadcast_to(np.zeros(1), (1 << 20, 1 << 11))
    with pytest.raises(InputError, match="too many"):
        take_turns(many, np.ones(1 << 20, bool))
