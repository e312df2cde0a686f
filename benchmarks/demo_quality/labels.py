"""A labelled pool of instruction samples and target tasks: texts in two settings, and grades.

A pool row has the columns `id task family category instruction input output license label_quality
canary`; a target has `target kind category tasks families exemplars`. Every row is scored under its
own id: nothing is deduplicated.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.demo_training.corpus import in_half_a, permissive, question_digest
from selection.errors import InputError
from selection.ids import content_id

Setting = Literal["instance", "full"]
SETTINGS: tuple[Setting, ...] = ("instance", "full")
UNJUDGED = -1
LABELS = ("id", "task", "family", "category", "label_quality")
TEXTS = ("instruction", "input", "output")


class Turns(NamedTuple):
    """What a row says: a user turn and an assistant turn."""

    user: str
    assistant: str

    @property
    def text(self) -> str:
        """Both turns joined by a newline, as lexical methods see them."""
        return f"{self.user}\n{self.assistant}"

    @property
    def messages(self) -> list[dict[str, str]]:
        """A chat of the two turns."""
        return [
            {"role": "user", "content": self.user},
            {"role": "assistant", "content": self.assistant},
        ]


@dataclass(frozen=True, slots=True)
class Target:
    """A target task.

    kind:      "T1...", samples of the same task are in the pool, or "T2...", only of its category.
    exemplars: rows as the targets file has them.
    """

    name: str
    kind: str
    category: str
    tasks: tuple[str, ...]
    families: tuple[str, ...]
    exemplars: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class LabelledPool:
    """Rows ordered by id.

    frame:      columns LABELS and TEXTS, license and canary.
    in_subpool: (n,) bool.
    """

    frame: pl.DataFrame
    in_subpool: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    def turns(self, rows: NDArray[np.int64], setting: Setting) -> list[Turns]:
        """What the rows say."""
        return [turns_of(row, setting) for row in self.frame[rows].select(TEXTS).to_dicts()]

    @cached_property
    def pool_id(self) -> str:
        """Hash of labels and texts, and of which rows are in the sub-pool."""
        columns = (*LABELS, *TEXTS)
        hashed = self.frame.select(pl.concat_str(columns, separator="\0", ignore_nulls=True))
        return content_id([content_id(hashed.to_series().to_list()), self.in_subpool.tolist()])


def turns_of(row: Mapping[str, Any], setting: Setting) -> Turns:
    """The turns of a row: with its instruction ("full"), or the bare question ("instance")."""
    instruction, question = row["instruction"] or "", row["input"] or ""
    if not question.strip():
        user = instruction
    elif setting == "full":
        user = f"{instruction}\n{question}"
    else:
        user = question
    return Turns(user, row["output"] or "")


def read_pool(pool: Path, subpool: Path | None = None) -> LabelledPool:
    """Read the pool (Parquet) and the ids of its sub-pool (one a line).

    Raises InputError when ids repeat, or the sub-pool names one that is not there.
    """
    frame = pl.read_parquet(pool, columns=[*LABELS, *TEXTS, "license", "canary"]).sort("id")
    if frame["id"].n_unique() != len(frame):
        raise InputError("ids repeat", file=pool, field="id", remedy="Give every row its own id.")
    wanted = [] if subpool is None else subpool.read_text(encoding="utf-8").split()
    inside = frame["id"].is_in(wanted).to_numpy()
    if inside.sum() != len(set(wanted)):
        raise InputError(
            f"{len(set(wanted))} ids are named, {int(inside.sum())} of them are in the pool",
            file=subpool,
            remedy="Use the list that belongs to the pool.",
        )
    return LabelledPool(frame, inside)


def read_targets(path: Path) -> list[Target]:
    """Target tasks, one JSON object a line, in the file's order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        Target(
            name=found["target"],
            kind=found["kind"],
            category=found["category"],
            tasks=tuple(found["tasks"]),
            families=tuple(found["families"]),
            exemplars=tuple(found["exemplars"]),
        )
        for found in map(json.loads, filter(str.strip, lines))
    ]


def relevance(category: str, tasks: Sequence[str], families: Sequence[str]) -> pl.Expr:
    """Grade of a pool row for a target: 3 same task, 2 same family, 1 same category, 0 none.

    -1 is unjudged: a row with a weak label, unless its task is the target's.
    """
    same_category = pl.col("category") == category
    return (
        pl.when(pl.col("task").is_in(tasks))
        .then(3)
        .when(pl.col("label_quality") == "weak")
        .then(UNJUDGED)
        .when(same_category & pl.col("family").is_in(families))
        .then(2)
        .when(same_category)
        .then(1)
        .otherwise(0)
    )


def grades(frame: pl.DataFrame, targets: Sequence[Target]) -> NDArray[np.int8]:
    """Grades (n_targets, n) of all rows for all targets."""
    columns = [
        relevance(target.category, target.tasks, target.families).cast(pl.Int8).alias(str(i))
        for i, target in enumerate(targets)
    ]
    return frame.select(columns).to_numpy().T


def trained_rows(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Which rows the demo model's training rule takes: (n,) bool. Held-out rows count as taken."""
    half_a = [
        in_half_a(question_digest(instruction or "", question or ""))
        for instruction, question in frame.select("instruction", "input").iter_rows()
    ]
    return frame.select(permissive().fill_null(False))["license"].to_numpy() & np.array(half_a)
