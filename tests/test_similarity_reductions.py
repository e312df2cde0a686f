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
    exemplar_queries,
    score,
    score_each,
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
SCORED: list[ExemplarReduction] = ["prototype", "max", "mean"]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(vectors, min_size=1, max_size=4),
    st.lists(full_vectors, min_size=1, max_size=6),
)
def test_reductions_over_similarities_equal_their_definitions(
    candidates: list[Vector], exemplars: list[Vector]
) -> None:
    rows, queries = sparse_rows(candidates), sparse_rows(exemplars)
    found = {how: score(rows, exemplar_queries(queries, ONES, how)) for how in SCORED}
    for i, candidate in enumerate(candidates):
        pairs = [float(generalized_jaccard(candidate, e)) for e in exemplars]
        assert found["max"][i] == max(pairs)
        assert found["mean"][i] == mean_of_fixed_points(pairs)
        assert found["prototype"][i] == float(prototype_jaccard(candidate, exemplars))


@pytest.mark.parametrize("how", SCORED)
def test_threads_blocks_and_order_of_exemplars_do_not_change_a_bit(
    how: ExemplarReduction,
) -> None:
    exemplars, rows = random_rows(10, 60, 0.2, 6), random_rows(101, 60, 0.2, 7)
    weights = np.random.default_rng(8).integers(1, 9_000, 60)
    expected = score(rows, exemplar_queries(exemplars, weights, how))
    queries = exemplar_queries(exemplars, weights, how)
    for threads, block_rows in [(1, 1), (2, 7), (3, 64)]:
        found = score(rows, queries, threads=threads, block_rows=block_rows)
        np.testing.assert_array_equal(found, expected)
    turned = take(exemplars, np.arange(10)[::-1])
    again = score(rows, exemplar_queries(turned, weights, how))
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
    queries = exemplar_queries(sparse_rows(exemplars), ONES, "round_robin")
    scores, _ = score_each(sparse_rows(rows), queries, threads=2, block_rows=2)
    expected = [[float(Fraction(generalized_jaccard(r, e))) for e in exemplars] for r in rows]
    assert scores.tolist() == expected
    found = take_turns(scores, np.array([False, True, True]))
    assert found.rows.tolist() == [1, 2]
    with pytest.raises(ValueError, match="by turns"):
        score(sparse_rows(rows), queries)


def test_what_cannot_be_prepared_is_refused() -> None:
    rows = sparse_rows([{1: 1}])
    with pytest.raises(ValueError, match="reduction is one of"):
        exemplar_queries(rows, ONES, "sum")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no exemplars"):
        exemplar_queries(sparse_rows([]), ONES, "max")
    many = np.broadcast_to(np.zeros(1), (1 << 20, 1 << 11))
    with pytest.raises(InputError, match="too many"):
        take_turns(many, np.ones(1 << 20, bool))
