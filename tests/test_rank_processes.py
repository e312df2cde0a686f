import sys
from pathlib import Path

import numpy as np
import pytest

from flows.config.jobs import SelectConfig
from flows.config.load import resolve
from flows.stages.rank.processes import Scores, scores_by_processes
from flows.stages.rank.score import joint_scores
from flows.stages.represent.spaces import JointTarget, JointVectors
from selection.core.sparse import take
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from selection.similarity.spaces import Joint, Space
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors
from tests.sparse_strategies import random_rows

REPORT = UnitReport(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "full")
N, UNIT = 130, 20
WIDTHS = (60, 40)


def config_of(**ranking: object) -> SelectConfig:
    return resolve(
        {
            "pool": "p.jsonl", "exemplars": "e.jsonl", "budget": {"examples": 3},
            "representation": {"spaces": ["sae", "words"]}, "compute": {"threads": 1},
            "ranking": {"weights": "none", **ranking},
        }
    )  # fmt: skip


@pytest.fixture
def vectors(tmp_path: Path) -> JointVectors:
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
    return JointVectors(("one", "two"), tuple(parts))


@pytest.fixture
def targets() -> dict[str, JointTarget]:
    found = {}
    for seed, name in enumerate(("sums", "french")):
        spaces = [Space(f"s{width}", np.arange(1, width + 1)) for width in WIDTHS]
        joint = Joint(spaces, normalize=True)
        parts: list[SparseRows] = [random_rows(4, w, 0.3, seed=seed + w) for w in WIDTHS]
        found[name] = JointTarget(
            joint, tuple(parts), joint.rows(parts), ({}, {}),
            np.zeros(sum(WIDTHS)),
        )  # fmt: skip
    return found


def equal(left: Scores, right: Scores) -> bool:
    return list(left) == list(right) and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


@pytest.mark.parametrize("reduction", ["mean", "max", "prototype", "round_robin"])
def test_the_largest_of_all_shares_is_the_whole(
    reduction: str, vectors: JointVectors, targets: dict[str, JointTarget]
) -> None:
    config = config_of(exemplar_reduction=reduction)
    whole = joint_scores(config, vectors, targets)
    assert whole["sums"][6:].any()
    shares = [joint_scores(config, vectors, targets, share=(i, 3)) for i in range(3)]
    assert not any(equal(share, whole) for share in shares)
    merged = {name: np.maximum.reduce([share[name] for share in shares]) for name in whole}
    assert equal(merged, whole)


def test_left_out_vectors_score_nothing_and_the_others_as_ever(
    vectors: JointVectors, targets: dict[str, JointTarget]
) -> None:
    config = config_of()
    only = np.random.default_rng(1).random(vectors.parts[0].n_vectors) < 0.3
    whole, some = (
        joint_scores(config, vectors, targets),
        joint_scores(config, vectors, targets, only=only),
    )
    rows = vectors.parts[0].spread(only, fill=False)
    for name in whole:
        np.testing.assert_array_equal(some[name], np.where(rows, whole[name], 0))


def test_several_processes_give_the_bytes_of_one(
    vectors: JointVectors, targets: dict[str, JointTarget], tmp_path: Path
) -> None:
    config = config_of()
    whole = scores_by_processes(config, vectors, targets, tmp_path)
    compute = config.compute.model_copy(update={"workers": 3})
    several = config.model_copy(update={"compute": compute})
    assert equal(scores_by_processes(several, vectors, targets, tmp_path / "out"), whole)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_dead_helper_leaves_undone_is_done_here(
    vectors: JointVectors,
    targets: dict[str, JointTarget],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config_of()
    whole = joint_scores(config, vectors, targets)
    compute = config.compute.model_copy(update={"workers": 2})
    dead = tmp_path / "python"
    dead.write_text("#!/bin/sh\nexit 3\n")
    dead.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dead))
    config = config.model_copy(update={"compute": compute})
    assert equal(scores_by_processes(config, vectors, targets, tmp_path / "out"), whole)
    assert "ended with code 3" in caplog.text
