import numpy as np
import pytest

from selection.core.sparse import concatenate, document_frequency, empty, from_lists, take, to_dense
from selection.records import SparseRows

ROWS: list[dict[int, int]] = [{3: 7, 1: 2}, {}, {0: 65535, 3: 1}, {2: 0, 1: 5}]


def rows() -> SparseRows:
    return from_lists(ROWS, 5)


def test_lists_become_sorted_rows_without_zeros() -> None:
    r = rows()
    assert r.indptr.tolist() == [0, 2, 2, 4, 5]
    assert r.latents.tolist() == [1, 3, 0, 3, 1]
    assert r.values.tolist() == [2, 7, 65535, 1, 5]
    assert [str(a.dtype) for a in (r.indptr, r.latents, r.values)] == ["int64", "int32", "uint16"]
    assert to_dense(r)[2].tolist() == [65535, 0, 0, 1, 0]


@pytest.mark.parametrize("row", [{5: 1}, {-1: 1}, {0: 65536}, {0: -1}])
def test_what_does_not_fit_is_refused(row: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="does not fit 5 latents"):
        from_lists([row], 5)


def test_take_is_indexing_of_dense_rows() -> None:
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 4, (50, 9)) * rng.integers(0, 2, (50, 9))
    many = from_lists([dict(enumerate(row)) for row in dense.tolist()], 9)
    for wanted in ([], [0], [49, 0, 0, 7], rng.integers(0, 50, 200).tolist()):
        picked = take(many, np.array(wanted, np.int64))
        assert np.array_equal(to_dense(picked), dense[np.array(wanted, np.int64)])
        assert picked.n_latents == 9


def test_take_refuses_rows_that_are_not_there() -> None:
    for wanted in (-1, 4):
        with pytest.raises(IndexError, match=r"\[0, 4\)"):
            take(rows(), np.array([wanted]))


def test_parts_concatenate_in_order() -> None:
    joined = concatenate([rows(), empty(2, 5), rows()])
    assert np.array_equal(
        to_dense(joined), np.vstack([to_dense(rows()), np.zeros((2, 5)), to_dense(rows())])
    )
    with pytest.raises(ValueError, match="one number of latents"):
        concatenate([rows(), empty(1, 6)])
    with pytest.raises(ValueError, match="one number of latents"):
        concatenate([])


def test_document_frequency_counts_rows_as_often_as_they_occur() -> None:
    assert document_frequency(rows()).tolist() == [1, 2, 0, 2, 0]
    times = np.array([10, 3, 2, 0])
    assert document_frequency(rows(), times).tolist() == [2, 10, 0, 12, 0]
    assert document_frequency(empty(0, 3)).tolist() == [0, 0, 0]
