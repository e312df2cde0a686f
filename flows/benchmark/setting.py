"""One setting of a benchmark: its texts as files for the ordinary stages, and word tables."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.config.data import ExemplarsConfig, PoolConfig, UnderTest
from flows.config.jobs import SelectConfig
from flows.stages.prepare.inputs import prepare, read_targets
from selection.core.hashing import content_id
from selection.evaluation.baselines.methods import LabelledTexts
from selection.evaluation.labelled import (
    LabelledPool,
    LabelledTarget,
    Mask,
    Rows,
    RowScores,
    Setting,
    as_messages,
    batches_of,
    spread_scores,
)
from storage.files.atomic import write_atomically, write_bytes
from storage.files.workspace import Workspace
from storage.pools.pool import PreparedPool

_BATCH = 8192
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema([("id", pa.string()), ("messages", _TURNS)])


@dataclass(frozen=True)
class BenchPool:
    """A labelled pool and its targets in one setting; tables are made when first asked for."""

    pool: LabelledPool
    targets: list[LabelledTarget]
    setting: Setting
    workspace: Workspace
    given: UnderTest

    @property
    def folder(self) -> Path:
        """Texts of this setting as the ordinary stages read them."""
        names = [target.target_id for target in self.targets]
        key = content_id([self.pool.sha256, names, self.setting])
        return self.workspace.root / "bench" / "texts" / f"{self.setting}-{key}"

    @cached_property
    def prepared(self) -> PreparedPool:
        """The pool as the ordinary stages prepare it: unique examples and their occurrences."""
        file = self.folder / "pool.parquet"
        if not file.exists():
            write_atomically(file, self._write_pool)
        return prepare(self.configured(None), self.workspace)

    @cached_property
    def exemplars(self) -> dict[str, pa.Table]:
        """Target -> exemplars as the ordinary stages read them."""
        file = self.folder / "targets.jsonl"
        if not file.exists():
            lines = [
                json.dumps(
                    {
                        "target": target.name,
                        "exemplars": [
                            {"id": str(n), "messages": as_messages(turns)}
                            for n, turns in enumerate(target.turns(self.setting))
                        ],
                    }
                )
                for target in self.targets
            ]
            write_bytes(file, ("\n".join(lines) + "\n").encode())
        return read_targets(self.configured(None).exemplars)

    def configured(self, config: SelectConfig | None) -> SelectConfig:
        """A config with this setting's files in the place of pool and exemplars."""
        pool = PoolConfig(
            path=str(self.folder / "pool.parquet"), shape="messages", columns={"id": "id"}
        )
        exemplars = ExemplarsConfig(
            path=str(self.folder / "targets.jsonl"), shape="messages", columns={"id": "id"}
        )
        files = {"pool": [pool], "exemplars": exemplars}
        if config is None:
            return SelectConfig.model_validate({**files, "budget": {"examples": 1}})
        return config.model_copy(update={**files, "drop_exemplar_copies": False, "where": None})

    @property
    def everyone(self) -> Mask:
        """(n,) every prepared example."""
        return self.prepared.eligible(None)

    def batches(self, size: int) -> list[Rows]:
        """Prepared examples, `size` together."""
        return batches_of(self.prepared.n_examples, size)

    @cached_property
    def example_of_row(self) -> Rows:
        """(n,) prepared example of each labelled row; -1 where reading dropped the row."""
        return self.pool.match(self.prepared.occurrences_at, self.prepared.n_examples)

    @cached_property
    def example_order(self) -> Rows:
        """Prepared examples in order of the first own id of each, so that ties go by own id."""
        return self.pool.example_order(self.example_of_row)

    def spread(self, scores: RowScores) -> RowScores:
        """(n,) scores of labelled rows from scores of examples; a dropped row is below all."""
        return spread_scores(scores, self.example_of_row)

    @cached_property
    def texts(self) -> LabelledTexts:
        """What lexical methods read."""
        return LabelledTexts(self.pool, self.setting)

    def _write_pool(self, temp: Path) -> None:
        with pq.ParquetWriter(temp, _SCHEMA) as writer:
            for first in range(0, len(self.pool), _BATCH):
                turns = self.pool.turns(self.setting, first, _BATCH)
                ids = self.pool.table["id"].slice(first, _BATCH).combine_chunks()
                messages = pa.array([as_messages(pair) for pair in turns], _TURNS)
                writer.write_table(pa.table([ids, messages], schema=_SCHEMA))
