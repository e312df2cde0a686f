"""The labelled pool of the demo model's benchmark: its sub-pool, and the rows it was trained on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.demo_training.corpus import in_half_a, permissive, question_digest
from selection.ids import content_id
from selection.labelled import LabelledPool, read_labelled_pool


@dataclass(frozen=True)
class BenchPool:
    """All n rows of a labelled pool, in file order.

    in_subpool: (n,) bool. trained: (n,) bool, rows that the training rule takes, held-out ones too.
    """

    labelled: LabelledPool
    in_subpool: NDArray[np.bool_]
    trained: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labelled)

    @cached_property
    def pool_id(self) -> str:
        """Hash of the file, and of which rows are in the sub-pool."""
        return content_id([self.labelled.sha256, self.in_subpool.tolist()])


def read_bench_pool(pool: Path, subpool: Path | None = None) -> BenchPool:
    """Read the pool (Parquet) and the ids of its sub-pool (one a line).

    Raises InputError as `read_labelled_pool` does.
    """
    labelled = read_labelled_pool(pool)
    inside = np.zeros(len(labelled), np.bool_)
    if subpool is not None:
        inside = np.isin(labelled.ids, read_labelled_pool(pool, subpool).ids)
    columns = ["instruction", "input", "license", "canary"]
    return BenchPool(labelled, inside, trained_rows(pl.read_parquet(pool, columns=columns)))


def trained_rows(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Which rows the demo model's training rule takes: (n,) bool."""
    half_a = [
        in_half_a(question_digest(instruction or "", question or ""))
        for instruction, question in frame.select("instruction", "input").iter_rows()
    ]
    return frame.select(permissive().fill_null(False))["license"].to_numpy() & np.array(half_a)
