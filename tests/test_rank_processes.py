import sys
from pathlib import Path

import numpy as np
import pytest

from flows.stages.rank.processes import Job, scores_by_processes
from selection.core.sparse import take
from selection.representation.represent import UnitReport
from selection.similarity.queries import ExemplarReduction, exemplar_queries
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
def test_the_largest_of_all_shares_is_the_whole(
    reduction: ExemplarReduction, vectors: PoolSpaces
) -> None:
    whole = Job(scorer(reduction), vectors, None, (0, 1)).scores()
    assert whole["sums"][6:].any()
    shares = [Job(scorer(reduction), vectors, None, (i, 3)).scores() for i in range(3)]
    assert not any(equal(share, whole) for share in shares)
    merged = {name: np.maximum.reduce([share[name] for share in shares]) for name in whole}
    assert equal(merged, whole)


def test_left_out_vectors_score_nothing_and_the_others_as_ever(vectors: PoolSpaces) -> None:
    only = np.random.default_rng(1).random(vectors.parts[0].n_vectors) < 0.3
    whole, some = (Job(scorer(), vectors, mask, (0, 1)).scores() for mask in (None, only))
    rows = vectors.parts[0].spread(only, fill=False)
    for name in whole:
        np.testing.assert_array_equal(some[name], np.where(rows, whole[name], 0))


def test_several_processes_give_the_bytes_of_one(vectors: PoolSpaces, tmp_path: Path) -> None:
    whole = scores_by_processes(scorer(), vectors, 1, tmp_path)
    assert equal(scores_by_processes(scorer(), vectors, 3, tmp_path / "out"), whole)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_dead_helper_leaves_undone_is_done_here(
    vectors: PoolSpaces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = scores_by_processes(scorer(), vectors, 1, tmp_path)
    dead = tmp_path / "python"
    dead.write_text("#!/bin/sh\nexit 3\n")
    dead.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dead))
    assert equal(scores_by_processes(scorer(), vectors, 2, tmp_path / "out"), whole)
    assert "ended with code 3" in caplog.text
