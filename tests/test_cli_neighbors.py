from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import take
from selection.records import SparseRows
from selection.similarity.queries import exemplar_queries, score_each
from selection.similarity.sketches import (
    Neighbors,
    build_index,
    confirm,
    load_index,
    save_index,
    search,
    sketch,
)
from tests.sparse_strategies import N_LATENTS, from_dense, random_rows, sparse_rows, to_dense

ONES = np.ones(400, np.int64)


def related_rows(n: int, seed: int) -> SparseRows:
    """Rows in groups of ten that share most of their latents."""
    rng = np.random.default_rng(seed)
    centers = to_dense(random_rows(-(-n // 10), 400, 0.1, seed))
    dense = np.repeat(centers, 10, axis=0)[:n] * (rng.random((n, 400)) < 0.8)
    return from_dense((dense * rng.uniform(0.5, 1.5, (n, 400))).clip(0, 65_535).astype(np.uint16))


def exact(rows: SparseRows, queries: SparseRows) -> NDArray[np.float64]:
    return score_each(rows, exemplar_queries(queries, ONES, "max"))[0].T


def test_inner_products_of_sketches_estimate_those_of_square_roots() -> None:
    rows = random_rows(60, 400, 0.1, seed=1)
    roots = np.sqrt(to_dense(rows))
    roots /= np.linalg.norm(roots, axis=1, keepdims=True)
    expected = roots @ roots.T
    estimates = np.mean(
        [(s := sketch(rows, 512, seed)) @ s.T for seed in range(20)], axis=0, dtype=np.float64
    )
    assert abs(estimates - expected).max() < 0.05
    assert abs(estimates - expected).mean() < 0.01


def test_a_sketch_is_a_pure_function_of_the_vector() -> None:
    rows = random_rows(2_100, 400, 0.05, seed=2)
    whole = sketch(rows, 64, seed=3)
    halves = [take(rows, np.arange(1_111)), take(rows, np.arange(1_111, 2_100))]
    parts = np.concatenate([sketch(part, 64, seed=3) for part in halves])
    np.testing.assert_array_equal(whole, parts)
    assert whole.dtype == np.float32
    assert not np.array_equal(whole, sketch(rows, 64, seed=4))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_scaling_a_vector_does_not_change_its_sketch() -> None:
    small, large = sparse_rows([{1: 3, 5: 9}, {}]), sparse_rows([{1: 300, 5: 900}, {}])
    np.testing.assert_allclose(sketch(small), sketch(large), atol=1e-7)
    assert (sketch(small)[1] == 0).all()


@pytest.mark.parametrize("n_lists", [0, 8])
def test_confirmed_neighbors_are_the_nearest_by_exact_jaccard(n_lists: int) -> None:
    rows, weights = related_rows(500, seed=5), ONES
    sketches = sketch(rows)
    index = build_index(sketches, n_lists=n_lists, seed=1)
    queries = take(rows, np.arange(0, 500, 25))
    found = search(index, sketch(queries), 30, n_probes=8)
    confirmed = confirm(found, queries, lambda numbers: take(rows, numbers), weights)
    scores = exact(rows, queries)
    np.testing.assert_array_equal(
        confirmed.scores, np.take_along_axis(scores, confirmed.rows, axis=1)
    )
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    recall = np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(best, confirmed.rows[:, :10], strict=True)]
    )
    assert recall > 0.95
    np.testing.assert_array_equal(confirmed.rows[:, 0], np.arange(0, 500, 25))
    assert (confirmed.scores[:, 0] == 1).all()


def test_fewer_rows_than_asked_for_are_marked_and_stay_last() -> None:
    rows = sparse_rows([{1: 3}, {2: 4}, {1: 2, 2: 1}])
    queries = sparse_rows([{1: 2}])
    found = search(build_index(sketch(rows)), sketch(queries), 5)
    assert (found.rows[0, 3:] == -1).all()
    assert np.isneginf(found.scores[0, 3:]).all()

    def fetch(numbers: NDArray[np.int64]) -> SparseRows:
        assert numbers.tolist() == [0, 1, 2]
        return rows

    confirmed = confirm(found, queries, fetch, np.ones(N_LATENTS, np.int64))
    assert confirmed.rows.tolist() == [[0, 2, 1, -1, -1]]
    assert confirmed.scores[0, :3].tolist() == [2 / 3, 2 / 3, 0.0]


def test_nothing_found_is_nothing_confirmed() -> None:
    nothing = Neighbors(np.full((1, 2), -1), np.full((1, 2), -np.inf))
    confirmed = confirm(nothing, sparse_rows([{1: 2}]), lambda _: sparse_rows([]), ONES[:N_LATENTS])
    assert confirmed.rows.tolist() == [[-1, -1]]


def test_an_index_survives_its_file(tmp_path: Path) -> None:
    sketches = sketch(related_rows(100, seed=7))
    index = build_index(sketches)
    save_index(index, tmp_path / "index.faiss")
    loaded = load_index(tmp_path / "index.faiss")
    expected, found = search(index, sketches[:5], 4), search(loaded, sketches[:5], 4)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_missing_or_broken_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index"):
        load_index(tmp_path / "index.faiss")
    (tmp_path / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(InputError, match="Build the index again"):
        load_index(tmp_path / "index.faiss")


def test_more_cells_than_sketches_are_refused() -> None:
    with pytest.raises(ValueError, match="3 sketches cannot fill 8 lists"):
        build_index(np.eye(3, 16, dtype=np.float32), n_lists=8)
