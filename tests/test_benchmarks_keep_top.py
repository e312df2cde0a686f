"""The numbers of `benchmarks/keep_top.py` against their definitions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.keep_top import compare, spearman, stored_in
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from storage.pools.shards import write_shard


def test_spearman_gives_equal_values_the_mean_of_their_ranks() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 5.0]), np.array([3.0, 1.0, 2.0, 9.0])
    ranks = [np.array([1, 2.5, 2.5, 4]), np.array([3.0, 1, 2, 4])]
    x, y = (r - r.mean() for r in ranks)
    assert spearman(a, b) == pytest.approx((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))
    assert spearman(a, 10 * a) == pytest.approx(1.0)
    assert spearman(a, -a) == pytest.approx(-1.0)


def test_a_ranking_is_compared_target_by_target() -> None:
    """Forty rows, so that two of them are the best 5 %."""
    rows = np.arange(40)
    grades = {"one": np.where(rows == 39, 3, 0), "two": np.where(rows == 0, 3, 0)}

    class Pool:
        id_order = rows

        def __len__(self) -> int:
            return 40

        def grades(self, target: Any) -> Any:
            return grades[target.name]

    bench = SimpleNamespace(
        pool=Pool(), targets=[SimpleNamespace(name="one"), SimpleNamespace(name="two")]
    )
    full = {name: rows.astype(float) for name in grades}
    found = {"one": full["one"], "two": np.where(rows == 0, 100.0, rows)}
    got = compare(cast(Any, bench), full, found)
    assert got.overlap == (1.0 + 0.5) / 2  # row 0 took the place of row 38
    last = 1 / np.log2(41)  # the only relevant row of `two` was in place 40
    assert got.ndcg == pytest.approx(1.0)
    assert got.change.mean == pytest.approx((1 - last) / 2)
    assert 0 < got.spearman < 1


def test_what_is_stored_is_counted_per_sample(tmp_path: Path) -> None:
    rows = SparseRows(
        np.array([0, 3, 4, 7]), np.arange(7, dtype=np.int32), np.ones(7, np.uint16), 10
    )
    report = UnitReport(3, 9, 7, 0, 0, 0, mass=20.0, mass_cut=5.0, mass_changed=0.0, plan="full")
    keys = np.arange(48, dtype=np.uint8).reshape(3, 16)
    write_shard(tmp_path, "unit", keys, rows, report)
    found = stored_in(tmp_path, 3)
    assert (found.n_values, found.mass_cut, found.n_cut) == (7 / 3, 0.25, 2 / 3)
    sizes = [file.stat().st_size for file in (tmp_path / "unit").iterdir()]
    assert found.n_bytes == sum(sizes) / 3
