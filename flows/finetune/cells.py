"""One run: train on the rows of an arm, measure, keep what came out as one file."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flows.config.data import FinetuneRequest
from flows.finetune.arms import Arms
from selection.core.hashing import content_id
from selection.evaluation.labelled import LabelledPool, LabelledTarget
from selection.finetuning.budgets import Samples, fill_budget
from selection.finetuning.measures import Questions, labels_of, measure_model, questions_of
from selection.finetuning.split import Split, own_rows
from selection.finetuning.summary import ZERO
from selection.finetuning.trainee import Trainee, TraineeTexts, load_trainee
from selection.finetuning.training import TrainSettings, train
from selection.models.resolve import ResolvedModel
from storage.files.atomic import write_json
from storage.files.workspace import Workspace, file_name

VERSION = 1
"""Of runs and measures; raise it when any result would change."""


@dataclass(frozen=True)
class Cell:
    """One run; `zero` is the untrained model, once a target."""

    target: LabelledTarget
    arm: str
    budget: int
    seed: int


@dataclass
class Laboratory:
    """Everything that runs of one comparison share; made when first used.

    whole: texts of the whole pool, held-out rows included.
    """

    request: FinetuneRequest
    workspace: Workspace
    resolved: ResolvedModel
    split: Split
    whole: TraineeTexts
    arms: Arms
    _questions: dict[str, Questions] = field(default_factory=dict)

    @cached_property
    def trainee(self) -> Trainee:
        """The model."""
        given = self.request
        return load_trainee(
            self.resolved,
            given.tune,
            max_length=given.max_length,
            device=given.device,
            dtype=given.dtype,
        )

    def file(self, cell: Cell) -> Path:
        """Where the result of a run is; everything that decides it is in its name."""
        given = self.request
        identity: list[object] = [
            VERSION, self.whole.pool.sha256, self.arms.bench.pool.sha256, cell.target.target_id,
            given.setting, given.held_out, self.resolved.weights_sha256, given.max_length,
            given.dtype,
        ]  # fmt: skip
        if cell.arm != ZERO:
            identity += [
                self.arms.identity(cell.arm), cell.budget, cell.seed, given.tune,
                given.learning_rate,
            ]  # fmt: skip
        folder = self.workspace.root / "bench" / "finetune" / "runs" / file_name(cell.target.name)
        name = f"{file_name(cell.arm)}-{cell.budget}-{cell.seed}"
        return folder / f"{name}-{content_id(identity, n_hex=24)}.json"

    def run(self, cell: Cell) -> None:
        """Train, measure and write."""
        started = time.perf_counter()
        n_rows = n_response = 0
        ids: list[str] = []
        if cell.arm == ZERO:
            self.trainee.reset()
        else:
            order = self.arms.order(cell.arm, cell.target, cell.budget, cell.seed)
            rows, samples = fill_budget(order, self.arms.samples, cell.budget)
            ids = self.arms.bench.pool.ids[rows].tolist()
            n_rows, n_response = len(rows), sum(int(s.content_mask.sum()) for s in samples)
            train(self.trainee, samples, TrainSettings(self.request.learning_rate), cell.seed)
        trained = time.perf_counter()
        questions = self.questions(cell.target)
        measured = measure_model(self.trainee, questions)
        result: dict[str, Any] = {
            "target": cell.target.name,
            "arm": cell.arm,
            "budget": cell.budget,
            "seed": cell.seed,
            "n_rows": n_rows,
            "response_tokens": n_response,
            "general": None if measured.general is None else round(measured.general, 5),
            "bits": np.round(measured.bits, 3).tolist(),
            "n_bytes": questions.n_bytes[: questions.n_rows].tolist(),
            "exact": _numbers(measured.exact),
            "right": _numbers(measured.right),
            "trained_on": ids,
            "seconds": {
                "train": round(trained - started, 2),
                "measure": round(time.perf_counter() - trained, 2),
            },
        }
        write_json(self.file(cell), result)

    def questions(self, target: LabelledTarget) -> Questions:
        """What a target is measured by."""
        if target.name not in self._questions:
            pool, rows = self.whole.pool, self.split.held_out[target.name]
            own = pool.table.filter(own_rows(pool, target))["output"].to_pylist()
            labels = labels_of(own)
            self._questions[target.name] = questions_of(
                self.whole, rows, labels, self.split.general
            )
        return self._questions[target.name]


def supply(pool: LabelledPool, target: LabelledTarget, samples: Samples) -> int:
    """Trainee tokens of the eligible rows of a target's task."""
    return sum(len(sample.tokens) for sample in samples(np.flatnonzero(own_rows(pool, target))))


def _numbers(flags: Any) -> list[int] | None:
    return None if flags is None else flags.astype(int).tolist()
