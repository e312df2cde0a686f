from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import from_lists, to_dense
from selection.representation.represent import UnitReport
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors

WIDTH = 5
REPORT = UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")


def key(i: int) -> NDArray[np.uint8]:
    """16 bytes whose order is not that of the numbers."""
    return np.random.default_rng(i).integers(0, 256, 16, dtype=np.uint8)


def keys(numbers: list[int]) -> NDArray[np.uint8]:
    return np.stack([key(i) for i in numbers])


def vector(i: int) -> dict[int, int]:
    return {i % WIDTH: i + 1, (i + 2) % WIDTH: 7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards with vectors 0 to 5, number 3 in both."""
    for unit, numbers in (("a", [0, 3, 4]), ("b", [5, 1, 2, 3])):
        rows = from_lists([vector(i) for i in numbers], WIDTH)
        write_shard(tmp_path / "r", unit, keys(numbers), rows, REPORT)
    return tmp_path / "r"


def opened(folder: Path, numbers: list[int], unusable: set[int] = frozenset()) -> PoolVectors:  # type: ignore[assignment]
    usable = np.array([row not in unusable for row in range(len(numbers))])
    return PoolVectors(open_shards(folder), keys(numbers), usable)


def test_blocks_give_every_wanted_vector_once(folder: Path) -> None:
    pool = [4, 1, 3, 1, 5]
    vectors = opened(folder, pool)
    assert vectors.n_vectors == 4
    dense = np.zeros((vectors.n_vectors, WIDTH), np.int64)
    seen: list[int] = []
    for numbers, rows in vectors.blocks():
        seen += numbers.tolist()
        dense[numbers] = to_dense(rows)
    assert sorted(seen) == [0, 1, 2, 3]
    expected = to_dense(from_lists([vector(i) for i in pool], WIDTH))
    np.testing.assert_array_equal(vectors.spread(dense.sum(axis=1), fill=-1), expected.sum(axis=1))


def test_rows_that_share_a_vector_share_its_values_and_are_counted(folder: Path) -> None:
    vectors = opened(folder, [1, 2, 1, 1])
    assert sorted(vectors.multiplicity().tolist()) == [1, 3]
    times = vectors.spread(vectors.multiplicity(), fill=0)
    assert times.tolist() == [3, 1, 3, 3]
    number = int(vectors.spread(np.arange(2), fill=-1)[0])
    assert vectors.rows_of(number).tolist() == [0, 2, 3]


def test_unusable_rows_get_the_fill_value_and_need_no_vector(folder: Path) -> None:
    vectors = opened(folder, [1, 99, 2], unusable={1})
    assert vectors.spread(np.array([5, 6]), fill=-1).tolist()[1] == -1


def test_gather_follows_the_order_asked_for(folder: Path) -> None:
    vectors = opened(folder, [4, 1, 3])
    found = to_dense(vectors.gather(np.array([2, 0])))
    np.testing.assert_array_equal(found, to_dense(from_lists([vector(3), vector(4)], WIDTH)))


def test_a_missing_vector_is_counted_and_the_remedy_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 3 vectors.*embedding again"):
        opened(folder, [1, 77, 78])
