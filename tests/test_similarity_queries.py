from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import take
from selection.records import SparseRows
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.queries import (
    ExemplarReduction,
    exemplar_queries,
    score,
    score_each,
    score_pairs,
)
from tests.oracles import generalized_jaccard, mean_of_fixed_points, prototype_jaccard
from tests.sparse_strategies import (
    N_LATENTS,
    Vector,
    full_vectors,
    random_rows,
    sparse_rows,
    to_dense,
    vectors,
    weight_lists,
)

ONES = np.ones(N_LATENTS, np.int64)
REDUCTIONS: list[ExemplarReduction] = ["prototype", "max", "mean"]


def exact_minima(
    rows: SparseRows, exemplars: SparseRows, weights: NDArray[np.int64]
) -> NDArray[np.int64]:
    a, b = to_dense(rows), to_dense(exemplars)
    return np.stack([np.minimum(a, e) @ weights for e in b], axis=1)


def exact_scores(
    rows: SparseRows, exemplars: SparseRows, weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    minima = exact_minima(rows, exemplars, weights)
    total = (to_dense(rows) @ weights)[:, None] + to_dense(exemplars) @ weights
    return minima / (total - minima)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(vectors, min_size=1, max_size=5),
    st.lists(full_vectors, min_size=1, max_size=5),
    weight_lists,
)
def test_every_reduction_equals_the_exact_fraction(
    candidates: list[Vector], exemplars: list[Vector], weight: list[int]
) -> None:
    rows, queries = sparse_rows(candidates), sparse_rows(exemplars)
    weights, named = np.array(weight, np.int64), dict(enumerate(weight))
    found = {r: score(rows, exemplar_queries(queries, weights, r)) for r in REDUCTIONS}
    for i, candidate in enumerate(candidates):
        pairs = [float(generalized_jaccard(candidate, e, named)) for e in exemplars]
        assert found["max"][i] == max(pairs)
        assert found["mean"][i] == mean_of_fixed_points(pairs)
        assert found["prototype"][i] == float(prototype_jaccard(candidate, exemplars, named))


@settings(max_examples=50, deadline=None)
@given(vectors, full_vectors, weight_lists)
def test_matrix_and_pairs_equal_the_exact_fraction_both_ways(
    a: Vector, b: Vector, weight: list[int]
) -> None:
    left, right, weights = sparse_rows([a]), sparse_rows([b]), np.array(weight, np.int64)
    expected = generalized_jaccard(a, b, dict(enumerate(weight)))
    scores, minima = score_each(left, exemplar_queries(right, weights, "max"))
    zero = np.zeros(1, np.int64)
    assert scores[0, 0] == float(expected)
    assert minima[0, 0] == sum(weight[f] * min(a[f], b[f]) for f in a.keys() & b.keys())
    assert score_pairs(left, right, zero, zero, weights)[0] == float(expected)
    assert score_pairs(right, left, zero, zero, weights)[0] == float(expected)


@pytest.mark.parametrize("m", [1, 16, 17, 33, 70])
@pytest.mark.parametrize("top_weight", [1, 5_000, 1 << 26])
def test_table_lists_and_wide_sums_agree_with_dense_arithmetic(m: int, top_weight: int) -> None:
    rows, exemplars = random_rows(40, 300, 0.05, seed=1), random_rows(m, 300, 0.05, seed=2)
    weights = np.random.default_rng(3).integers(1, top_weight + 1, 300)
    block = exemplar_queries(exemplars, weights, "max")
    scores, minima = score_each(rows, block)
    np.testing.assert_array_equal(minima, exact_minima(rows, exemplars, weights))
    expected = exact_scores(rows, exemplars, weights)
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(score(rows, block), expected.max(axis=1))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_threads_blocks_splits_and_order_of_exemplars_do_not_change_a_bit(
    reduction: ExemplarReduction,
) -> None:
    rows, exemplars = random_rows(301, 200, 0.2, seed=4), random_rows(37, 200, 0.2, seed=5)
    weights = np.random.default_rng(6).integers(1, 9_000, 200)
    block = exemplar_queries(exemplars, weights, reduction)
    expected = score(rows, block)
    for threads, block_rows in [(1, 1), (2, 7), (4, 64), (3, 300), (2, 10_000)]:
        found = score(rows, block, threads=threads, block_rows=block_rows)
        np.testing.assert_array_equal(found, expected)
    parts = [score(take(rows, np.arange(*ends)), block) for ends in [(0, 123), (123, 301)]]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    turned = take(exemplars, np.arange(37)[::-1])
    np.testing.assert_array_equal(
        score(rows, exemplar_queries(turned, weights, reduction)), expected
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_candidate_equal_to_all_exemplars_scores_one(reduction: ExemplarReduction) -> None:
    vector = {0: 3, 5: 65_535, 23: 1}
    block = exemplar_queries(sparse_rows([vector] * 7), ONES * 1_024, reduction)
    assert score(sparse_rows([vector]), block).tolist() == [1.0]


@settings(max_examples=50, deadline=None)
@given(vectors, full_vectors, st.integers(2, 4_096))
def test_scaling_all_weights_changes_no_score(a: Vector, b: Vector, factor: int) -> None:
    rows, exemplars = sparse_rows([a]), sparse_rows([b, {3: 9}])
    for reduction in REDUCTIONS:
        plain = score(rows, exemplar_queries(exemplars, ONES, reduction))
        scaled = score(rows, exemplar_queries(exemplars, ONES * factor, reduction))
        assert plain == scaled


def test_a_latent_of_weight_zero_is_as_if_it_were_not_there() -> None:
    weights = ONES.copy()
    weights[[2, 7]] = 0
    rows = sparse_rows([{1: 5, 2: 900, 8: 2}, {2: 1, 7: 4}])
    without = sparse_rows([{1: 5, 8: 2}, {}])
    exemplars, bare = sparse_rows([{1: 4, 7: 50, 8: 8}]), sparse_rows([{1: 4, 8: 8}])
    for reduction in REDUCTIONS:
        found = score(rows, exemplar_queries(exemplars, weights, reduction))
        expected = score(without, exemplar_queries(bare, ONES, reduction))
        assert found.tolist() == expected.tolist()
        assert found[1] == 0.0


def test_empty_rows_score_zero_and_no_rows_give_no_scores() -> None:
    block = exemplar_queries(sparse_rows([{1: 1}]), ONES, "mean")
    assert score(sparse_rows([{}, {1: 1}, {}]), block).tolist() == [0.0, 1.0, 0.0]
    assert score(sparse_rows([]), block).shape == (0,)
    empty = sparse_rows([{}])
    zero = np.zeros(1, np.int64)
    assert score_pairs(empty, empty, zero, zero, ONES).tolist() == [0.0]


def test_mapped_arrays_are_accepted(tmp_path: Path) -> None:
    rows = random_rows(50, N_LATENTS, 0.3, seed=8)

    def mapped(name: str, array: NDArray[Any]) -> NDArray[Any]:
        np.save(tmp_path / name, array)
        found: NDArray[Any] = np.load(tmp_path / name, mmap_mode="r")
        return found

    on_disk = SparseRows(
        mapped("indptr.npy", rows.indptr),
        mapped("latents.npy", rows.latents),
        mapped("values.npy", rows.values),
        N_LATENTS,
    )
    block = exemplar_queries(rows, ONES, "mean")
    np.testing.assert_array_equal(score(on_disk, block), score(rows, block))


def test_exemplars_that_cannot_be_ranked_against_are_refused() -> None:
    with pytest.raises(InputError, match="no exemplars"):
        exemplar_queries(sparse_rows([]), ONES, "mean")
    with pytest.raises(
        InputError, match=r"2 of 3 exemplars have an empty vector \(first: number 1"
    ):
        exemplar_queries(sparse_rows([{}, {1: 1}, {}]), ONES, "mean")
    weights = ONES.copy()
    weights[2] = 0
    with pytest.raises(InputError, match="exemplar 2 of 3 has only latents of weight 0"):
        exemplar_queries(sparse_rows([{1: 1}, {2: 7}, {1: 1, 2: 1}]), weights, "mean")


def test_sums_that_are_not_exact_in_float64_are_refused() -> None:
    heavy = np.full(N_LATENTS, (1 << 32) - 1)
    full = {f: 65_535 for f in range(N_LATENTS)}
    block = exemplar_queries(sparse_rows([full] * 64), heavy, "prototype")
    with pytest.raises(OverflowError, match="2\\^53"):
        score(sparse_rows([full]), block)
    with pytest.raises(OverflowError, match="64-bit"):
        exemplar_queries(sparse_rows([{1: 1}] * 1_000), heavy, "prototype")


def damaged(indptr: list[int], latents: list[int], values: list[int]) -> SparseRows:
    return SparseRows(
        np.array(indptr, np.int64),
        np.array(latents, np.int32),
        np.array(values, np.uint16),
        N_LATENTS,
    )


@pytest.mark.parametrize(
    "rows",
    [
        damaged([0, 1], [N_LATENTS], [1]),
        damaged([0, 1], [-1], [1]),
        damaged([0, 2], [1], [1]),
        damaged([0, 1], [1], []),
        damaged([-1, 1], [1], [1]),
        damaged([0, 1, 0], [1], [1]),
    ],
)
def test_arrays_that_would_be_read_out_of_bounds_are_refused(rows: SparseRows) -> None:
    block = exemplar_queries(sparse_rows([{1: 1}]), ONES, "mean")
    with pytest.raises(ValueError, match="damaged"):
        score(rows, block)
    with pytest.raises(ValueError, match="damaged"):
        exemplar_queries(rows, ONES, "mean")


def test_arguments_that_do_not_belong_together_are_refused() -> None:
    one, rows = np.ones(1, np.int64), sparse_rows([{1: 1}])
    with pytest.raises(ValueError, match="rows of 23 latents"):
        score(sparse_rows([{1: 1}], N_LATENTS - 1), exemplar_queries(rows, ONES, "mean"))
    with pytest.raises(ValueError, match="int64 of shape"):
        exemplar_queries(rows, ONES[1:], "mean")
    with pytest.raises(ValueError, match="weights must be in"):
        exemplar_queries(rows, -ONES, "mean")
    with pytest.raises(ValueError, match="reduction is one of"):
        exemplar_queries(rows, ONES, "sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="row numbers"):
        score_pairs(rows, rows, one, one, ONES)


def test_known_norms_give_the_same_scores() -> None:
    rows, exemplars = random_rows(90, 300, 0.02, seed=13), random_rows(4, 300, 0.02, seed=14)
    weights = np.random.default_rng(15).integers(1, 9_000, 300)
    norms = weighted_norms(rows, weights)
    np.testing.assert_array_equal(norms, to_dense(rows) @ weights)
    block = exemplar_queries(exemplars, weights, "mean")
    np.testing.assert_array_equal(score(rows, block, norms=norms), score(rows, block))


def test_faiss_jaccard_agrees_on_a_small_dense_case() -> None:
    faiss = pytest.importorskip("faiss")
    rows, exemplars = random_rows(200, 64, 0.4, seed=11), random_rows(9, 64, 0.4, seed=12)
    index = faiss.IndexFlat(64, faiss.METRIC_Jaccard)
    index.add(to_dense(rows).astype(np.float32))
    similarity, order = index.search(to_dense(exemplars).astype(np.float32), len(rows))
    theirs = np.empty((9, 200))
    np.put_along_axis(theirs, order, similarity, axis=1)
    ours, _ = score_each(rows, exemplar_queries(exemplars, np.ones(64, np.int64), "max"))
    np.testing.assert_allclose(ours, theirs.T, atol=1e-6)
