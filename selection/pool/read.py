"""Sources to batches of the pool's schema; every row ends as an example or as a drop."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from selection.errors import InputError
from selection.ids import canonical_json, example_id
from selection.pool.checks import (
    check_mapped,
    check_source,
    check_tables,
    no_shape,
    refuse_broken,
)
from selection.pool.columns import ColumnKinds, role_text
from selection.pool.readers import open_parts, source_name
from selection.pool.rows import RawRow
from selection.pool.shapes import Drop, Example, detect_shape, to_example
from selection.records import DROP_SCHEMA, POOL_SCHEMA, DropReason, PoolSource

N_PEEK = 200  # rows of a file that decide its shape
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


def read_pool(source: PoolSource) -> Iterator[ReadBatch]:
    """Read a source in batches; the shape is decided for each file.

    Raises InputError for settings that cannot be right, files that cannot be read or hold no row in
    a known shape, broken rows (unless `broken_rows` says drop), and mapped columns that no row has.
    """
    check_source(source)
    check_tables(source)
    seen = ColumnKinds()
    for file, raws in open_parts(source):
        for batch in _read_file(file, raws, source):
            seen.merge(batch.kinds)
            yield batch
    check_mapped(source, list(seen.to_dict()))


def _read_file(file: str, raws: Iterator[RawRow], source: PoolSource) -> Iterator[ReadBatch]:
    peeked = list(itertools.islice(raws, N_PEEK))
    if not peeked:
        raise InputError(
            "the file holds no rows", file=file, remedy="Check the step that wrote it."
        )
    shape = shape_of(file, peeked, source)
    builder = _Builder(source, shape)
    for raw in itertools.chain(peeked, raws):
        builder.add(raw)
        if builder.is_full:
            yield builder.take()
    if not builder.is_empty:
        yield builder.take()


def shape_of(file: str, peeked: Sequence[RawRow], source: PoolSource) -> str:
    """The shape of a file by its first rows. Raises InputError when none of them has it."""
    if source.broken_rows == "refuse":
        for raw in peeked:
            refuse_broken(raw)
    values = [raw.value for raw in peeked if raw.value is not None]
    if not values:
        raise InputError(
            f"none of the first {len(peeked)} rows is readable ({peeked[0].error})",
            file=file,
            line=peeked[0].line,
            remedy="Check the format; the file's suffix must say what it is.",
        )
    if source.shape == "auto":
        shape = detect_shape(values, source.columns)
    else:
        drops = (to_example(value, source.shape, source.columns) for value in values)
        known = any(not _is_strange(drop) for drop in drops)
        shape = source.shape if known else None
    if shape is None:
        raise no_shape(file, values, source)
    return shape


def _is_strange(result: Example | Drop) -> bool:
    return isinstance(result, Drop) and result.reason == DropReason.NOT_RECOGNIZED


@dataclass
class _Builder:
    """Collects rows until they make a batch."""

    source: PoolSource
    shape: str
    rows: list[dict[str, object]] = field(default_factory=list)
    n_chars: list[int] = field(default_factory=list)
    drops: list[dict[str, object]] = field(default_factory=list)
    kinds: ColumnKinds = field(default_factory=ColumnKinds)
    n_bytes: int = 0

    def __post_init__(self) -> None:
        self._name = source_name(self.source)

    @property
    def is_full(self) -> bool:
        n_rows = len(self.rows) + len(self.drops)
        return n_rows >= _BATCH_ROWS or self.n_bytes >= _BATCH_BYTES

    @property
    def is_empty(self) -> bool:
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
