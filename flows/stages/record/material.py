"""What the rows of a run are drawn from: its config, its facts, and what the stages found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import StageRecord
from flows.stages.decide.check import TargetCheck
from flows.stages.decide.run_input import RunInput
from flows.stages.represent.representer import Representer
from flows.stages.represent.spaces import SpaceVectors
from selection.picking.budget import TokenCount
from selection.picking.selections import Selection
from selection.records import Exemplars
from storage.files.scores import scores_file, scores_table
from storage.pools.pool import PreparedPool
from storage.pools.vectors import PoolVectors

Row = dict[str, object]


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself besides its config. stages: those that are over."""

    run_id: str
    name: str
    created_at: datetime
    trigger: str
    flow_run_id: str | None = None
    counts: Mapping[str, object] = field(default_factory=dict)
    stages: Sequence[StageRecord] = ()


@dataclass(frozen=True)
class Material:
    """Everything that the rows are drawn from."""

    config: SelectConfig
    facts: RunFacts
    pool: PreparedPool
    vectors: PoolVectors
    spaces: SpaceVectors
    representer: Representer
    given: RunInput
    targets: Mapping[str, tuple[pa.Table, Exemplars]]
    decided: Sequence[Selection]
    token_count: TokenCount
    scores: Path  # folder of the files of scores
    checks: Sequence[TargetCheck] = ()

    def top_of(self, decided: Selection, n_more: int = 0) -> pa.Table:
        """The picks of a selection and the `n_more` examples behind them, in order of rank."""
        return scores_table(decided, self.example_ids, last=decided.cut.n_selected + n_more)

    def scores_file(self, decided: Selection) -> Path:
        """Where all scores of a selection are."""
        return scores_file(self.scores, decided.selection_id)

    @cached_property
    def example_ids(self) -> NDArray[np.bytes_]:
        """(n,) ids of the prepared pool."""
        return self.pool.example_ids()
