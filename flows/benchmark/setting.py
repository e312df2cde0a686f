"""One setting of a benchmark: its texts as files for the ordinary stages, and word tables."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.benchmark.methods import UnderTest
from flows.config.data import ExemplarsConfig, PoolConfig
from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import prepare, read_targets
from selection.core.hashing import content_id
from selection.evaluation.labelled import LabelledPool, Setting, Target, as_messages, as_text
from selection.evaluation.lexical_baselines import Counts, count_terms, gram_table, text_lengths
from storage.files.atomic import write_atomically, write_bytes
from storage.files.workspace import Workspace
from storage.pools.prepare import PreparedPool

_BATCH = 8192
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema([("id", pa.string()), ("messages", _TURNS)])


@dataclass(frozen=True)
class BenchField:
    """A labelled pool and its targets in one setting; tables are made when first asked for."""

    pool: LabelledPool
    targets: list[Target]
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

    @cached_property
    def example_of_row(self) -> NDArray[np.int64]:
        """(n,) prepared example of each labelled row; -1 where reading dropped the row."""
        rows = np.arange(self.prepared.n_examples)
        at = {name: row for row, name in enumerate(self.pool.ids.tolist())}
        found = np.full(len(self.pool), -1, np.int64)
        table = self.prepared.occurrences_at(rows)
        for own_id, example in zip(
            table["own_id"].to_pylist(), table["example_row"].to_pylist(), strict=True
        ):
            found[at[own_id]] = example
        return found

    def spread(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) scores of labelled rows from scores of examples; a dropped row is below all."""
        where = self.example_of_row
        lowest = min(scores.min(initial=0.0), 0.0) - 1.0
        return np.where(where >= 0, scores[where], lowest)

    def texts(self) -> Iterator[str]:
        """What lexical methods read, in pool order."""
        for first in range(0, len(self.pool), _BATCH):
            for turns in self.pool.turns(self.setting, first, _BATCH):
                yield as_text(turns)

    def exemplar_texts(self, target: Target) -> list[str]:
        """The same for one target's exemplars."""
        return [as_text(turns) for turns in target.turns(self.setting)]

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Word -> column of `words`; filled by it."""
        return {}

    @cached_property
    def words(self) -> Counts:
        """Word counts of every pool row."""
        with stage("words", len(self.pool), "rows") as handle:
            counts = count_terms(self.texts(), self.vocabulary, grow=True)
            handle.detail = f"{counts.n_terms:,} words in {len(counts):,} rows"
        return counts

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) words of every pool row."""
        return text_lengths(self.words)

    def exemplar_words(self, target: Target) -> Counts:
        """Counts of the pool's words in a target's exemplars."""
        self.words  # noqa: B018 - fills the vocabulary
        return count_terms(self.exemplar_texts(target), self.vocabulary, grow=False)

    @cached_property
    def grams(self) -> Counts:
        """Hashed uni- and bigram counts of every pool row."""
        with stage("grams", len(self.pool), "rows") as handle:
            counts = gram_table(self.texts())
            handle.detail = f"{len(counts.terms):,} entries in {len(counts):,} rows"
        return counts

    def _write_pool(self, temp: Path) -> None:
        with pq.ParquetWriter(temp, _SCHEMA) as writer:
            for first in range(0, len(self.pool), _BATCH):
                turns = self.pool.turns(self.setting, first, _BATCH)
                ids = self.pool.table["id"].slice(first, _BATCH).combine_chunks()
                messages = pa.array([as_messages(pair) for pair in turns], _TURNS)
                writer.write_table(pa.table([ids, messages], schema=_SCHEMA))
