"""Rows, texts and grades of a labelled pool and its target tasks, in one of two settings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.demo_quality.labels import relevance

SETTINGS = ("full", "instance")

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Labelled:
    """A pool in order of id, and its target tasks.

    frame:   the pool's rows.
    targets: lines of the targets file.
    """

    frame: pl.DataFrame
    targets: list[dict[str, Any]]

    @property
    def exemplars(self) -> list[tuple[int, dict[str, str]]]:
        """(number of the target, exemplar), target by target."""
        return [(t, e) for t, target in enumerate(self.targets) for e in target["exemplars"]]

    @property
    def owners(self) -> NDArray[np.int64]:
        """(m,) number of the target of each exemplar."""
        return np.array([target for target, _ in self.exemplars], np.int64)

    def grades(self) -> NDArray[np.int64]:
        """(n_targets, n) grades; -1 is unjudged."""
        columns = [
            relevance(target["category"], target["tasks"], target["families"]).alias(str(number))
            for number, target in enumerate(self.targets)
        ]
        return self.frame.select(columns).to_numpy().T.astype(np.int64)

    def messages(self, setting: str) -> tuple[list[Turns], list[Turns]]:
        """Turns of all rows, and of all exemplars."""
        rows = [turns(row, setting) for row in self.frame.iter_rows(named=True)]
        return rows, [turns(exemplar, setting) for _, exemplar in self.exemplars]


def load(pool: Path, targets: Path, subpool: Path | None) -> Labelled:
    """The pool, or the rows whose ids `subpool` lists, in order of id."""
    frame = pl.read_parquet(pool).sort("id")
    if subpool is not None:
        frame = frame.filter(pl.col("id").is_in(subpool.read_text().split()))
    lines = targets.read_text(encoding="utf-8").splitlines()
    return Labelled(frame, [json.loads(line) for line in lines])


def turns(row: dict[str, Any], setting: str) -> Turns:
    """full: instruction and input; instance: the input, or the instruction where there is none."""
    instruction, given = row["instruction"] or "", row["input"] or ""
    if setting == "full":
        prompt = f"{instruction}\n{given}" if given else instruction
    else:
        prompt = given or instruction
    return [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": row["output"] or ""},
    ]
