"""What the rows of a run are drawn from: its config, its facts, and what the stages found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import StageRecord
from flows.stages.decide.decide import Decided, Race
from flows.stages.decide.held_out import TargetCheck
from flows.stages.represent.representer import Representer
from flows.stages.represent.spaces import SpaceVectors
from selection.picking.budget import TokenCount
from selection.records import Exemplars
from storage.pools.prepare import PreparedPool
from storage.pools.vectors import PoolVectors

Row = dict[str, object]


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself besides its config. stages: those that are over."""

    run_id: str
    name: str
    created_at: datetime
    trigger: str
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
    race: Race
    targets: Mapping[str, tuple[pa.Table, Exemplars]]
    decided: Sequence[Decided]
    token_count: TokenCount
    checks: Sequence[TargetCheck] = ()


def top_of(decided: Decided, n_more: int = 0) -> pa.Table:
    """The picks of a selection and the `n_more` examples behind them, in order of rank."""
    wanted = decided.cut.n_selected + n_more
    batches, found = [], 0
    for batch in pq.ParquetFile(decided.scores_file).iter_batches(min(65_536, wanted)):
        batches.append(batch)
        found += batch.num_rows
        if found >= wanted:
            break
    return pa.Table.from_batches(batches).slice(0, wanted)
