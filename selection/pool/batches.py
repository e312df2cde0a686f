"""Read rows, collected into batches of the pool's schema."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from selection.ids import canonical_json, example_id
from selection.pool.checks import refuse_broken
from selection.pool.columns import ColumnKinds, role_text
from selection.pool.readers import source_name
from selection.pool.rows import RawRow
from selection.pool.shapes import Drop, Example, to_example
from selection.records import DROP_SCHEMA, POOL_SCHEMA, DropReason, PoolSource

_BATCH_ROWS = 4096
_BATCH_BYTES = 8 << 20  # of messages and raw rows; long rows make short batches


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Some rows of a source, in file order.

    rows:    POOL_SCHEMA, one row per example.
    n_chars: int32, characters of text of each row's messages.
    drops:   DROP_SCHEMA, the rows between them that are no examples.
    kinds:   kinds of values in the columns of all these rows, the dropped ones included.
    """

    rows: pa.RecordBatch
    n_chars: pa.Int32Array
    drops: pa.RecordBatch
    kinds: ColumnKinds


@dataclass
class BatchBuilder:
    """Collects rows until they make a batch."""

    source: PoolSource
    shape: str
    rows: list[dict[str, object]] = field(default_factory=list)
    n_chars: list[int] = field(default_factory=list)
    drops: list[dict[str, object]] = field(default_factory=list)
    kinds: ColumnKinds = field(default_factory=ColumnKinds)
    n_bytes: int = 0

    def __post_init__(self) -> None:
        """Find the pool's name once."""
        self._name = source_name(self.source)

    @property
    def is_full(self) -> bool:
        """Whether the batch should be taken now."""
        n_rows = len(self.rows) + len(self.drops)
        return n_rows >= _BATCH_ROWS or self.n_bytes >= _BATCH_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added since the last batch."""
        return not self.rows and not self.drops

    def add(self, raw: RawRow) -> None:
        """Read one row; a broken one is refused or dropped as the source says."""
        if raw.value is None:
            if self.source.broken_rows == "refuse":
                refuse_broken(raw)
            self._drop(raw, Drop(DropReason.BROKEN_ROW, raw.error))
            return
        self.kinds.add(raw.value)
        result = to_example(raw.value, self.shape, self.source.columns)
        if isinstance(result, Drop):
            self._drop(raw, result)
            return
        row = pool_row(raw, raw.value, result, self.source.columns, self._name)
        self.rows.append(row)
        self.n_chars.append(result.n_chars)
        self.n_bytes += len(str(row["messages"])) + len(str(row["raw"]))

    def take(self) -> ReadBatch:
        """The batch so far; the builder is empty afterwards."""
        batch = ReadBatch(
            rows=pa.RecordBatch.from_pylist(self.rows, schema=POOL_SCHEMA),
            n_chars=pa.array(self.n_chars, pa.int32()),
            drops=pa.RecordBatch.from_pylist(self.drops, schema=DROP_SCHEMA),
            kinds=self.kinds,
        )
        self.rows, self.n_chars, self.drops = [], [], []
        self.kinds, self.n_bytes = ColumnKinds(), 0
        return batch

    def _drop(self, raw: RawRow, drop: Drop) -> None:
        self.drops.append(
            {"file": raw.file, "row": raw.row, "reason": drop.reason.value, "detail": drop.detail}
        )


def pool_row(
    raw: RawRow,
    value: Mapping[str, object],
    example: Example,
    columns: Mapping[str, str],
    name: str,
) -> dict[str, object]:
    """One row of POOL_SCHEMA. `name` is the source where no column says it."""
    return {
        "example_id": example_id(example.messages, example.tools),
        "messages": canonical_json(example.messages),
        "tools": None if example.tools is None else canonical_json(example.tools),
        "own_id": role_text(value, "id", columns),
        "source": role_text(value, "source", columns) or name,
        "file": raw.file,
        "row": raw.row,
        "licence": role_text(value, "licence", columns),
        "language": role_text(value, "language", columns),
        "group": role_text(value, "group", columns),
        "target": role_text(value, "target", columns),
        "subtask": role_text(value, "subtask", columns),
        "raw": raw.raw_json(),
    }
