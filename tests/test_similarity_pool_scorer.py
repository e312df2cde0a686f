from pathlib import Path

import numpy as np
import pytest

from selection.core.sparse import take
from selection.representation.represent import UnitReport
from selection.similarity.queries import ExemplarReduction, exemplar_queries, score
from selection.similarity.ranking_input import PoolScorer, Scores
from selection.similarity.sources import PoolSpaces
from selection.similarity.spaces import JoinedSpaces, Space
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors
from tests.sparse_strategies import random_rows

REPORT = UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")
N, UNIT = 130, 20
WIDTHS = (60, 40)


@pytest.fixture
def vectors(tmp_path: Path) -> PoolSpaces:
    """Two spaces of a pool in which some rows share a vector, and some have none."""
    keys = np.random.default_rng(0).integers(0, 256, (N, 16), dtype=np.uint8)
    of_row = np.r_[np.arange(N), [3, 3, 70]]
    usable = np.ones(len(of_row), np.bool_)
    usable[[5, 131]] = False
    parts = []
    for name, width in zip(("one", "two"), WIDTHS, strict=True):
        rows = random_rows(N, width, 0.2, seed=width)
        for first in range(0, N, UNIT):
            mine = np.arange(first, min(first + UNIT, N))
            write_shard(tmp_path / name, f"u{first:03}", keys[mine], take(rows, mine), REPORT)
        # Two vectors are in two shards.
        twice = np.array([0, 44])
        write_shard(tmp_path / name, "v", keys[twice], take(rows, twice), REPORT)
        parts.append(PoolVectors(open_shards(tmp_path / name), keys[of_row], usable))
    return PoolSpaces(("one", "two"), tuple(parts))


def scorer(reduction: ExemplarReduction = "mean") -> PoolScorer:
    spaces = JoinedSpaces(
        [Space(f"s{width}", np.arange(1, width + 1)) for width in WIDTHS], normalize=True
    )
    queries = {}
    for seed, name in enumerate(("sums", "french")):
        rows = spaces.rows([random_rows(4, width, 0.3, seed=seed + width) for width in WIDTHS])
        queries[name] = exemplar_queries(rows, spaces.weights, reduction)
    return PoolScorer(spaces, queries, reduction)


def equal(left: Scores, right: Scores) -> bool:
    return list(left) == list(right) and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


@pytest.mark.parametrize("reduction", ["mean", "max", "prototype", "round_robin"])
@pytest.mark.parametrize("threads", [2, 7])
def test_any_number_of_threads_gives_the_bytes_of_one(
    reduction: ExemplarReduction, threads: int, vectors: PoolSpaces
) -> None:
    whole = scorer(reduction).scores(vectors)
    assert whole["sums"][6:].any()
    assert equal(scorer(reduction).with_threads(threads).scores(vectors), whole)


def test_each_row_scores_as_it_does_alone(vectors: PoolSpaces) -> None:
    whole, alone = scorer().with_threads(3).scores(vectors), scorer()
    for row in (0, 3, 44, 129, 132):
        rows = alone.spaces.rows(vectors.gather(np.array([row])))
        for name, queries in alone.queries.items():
            assert score(rows, queries) == whole[name][row]


def test_left_out_vectors_score_nothing_and_the_others_as_ever(vectors: PoolSpaces) -> None:
    only = np.random.default_rng(1).random(vectors.parts[0].n_vectors) < 0.3
    whole, some = (scorer().scores(vectors, only=mask) for mask in (None, only))
    rows = vectors.parts[0].spread(only, fill=False)
    for name in whole:
        np.testing.assert_array_equal(some[name], np.where(rows, whole[name], 0))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_block_of_no_vectors_has_no_scores(threads: int) -> None:
    none = np.zeros(0, np.int64)
    parts = [take(random_rows(4, width, 0.3, seed=width), none) for width in WIDTHS]
    scored = scorer().with_threads(threads).block(parts)
    assert {name: values.shape for name, values in scored.items()} == {"sums": (0,), "french": (0,)}
