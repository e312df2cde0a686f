"""Sources to batches of the pool's schema; every row ends as an example or as a drop."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from selection.core.errors import InputError
from selection.core.hashing import canonical_json, example_id
from selection.data.checks import check_mapped, check_source, check_tables, no_shape, refuse_broken
from selection.data.columns import ColumnKinds, propose_roles, role_text
from selection.data.readers.files import find_files, is_dataset_name, open_parts, source_name
from selection.data.readers.memory import iter_memory
from selection.data.readers.rows import RawRow
from selection.data.readers.streams import DataFile
from selection.data.readers.tables import parquet_rows
from selection.data.shapes import Drop, Example, detect_shape, to_example
from selection.records import DROP_SCHEMA, POOL_SCHEMA, DropReason, PoolSource

N_PEEK = 200  # rows of a file that decide its shape


_UNPACKED = {".gz": 4, ".zst": 4, ".parquet": 8}  # bytes of text for one byte of file, roughly


@dataclass(frozen=True, slots=True)
class Look:
    """What the first rows of a source say.

    shape:    shape of the first file.
    columns:  top-level columns seen, in order.
    n_rows:   number of rows in all files: exact for Parquet, else estimated from sizes; None for a
              dataset on the hub.
    is_exact: whether `n_rows` was counted.
    n_looked: how many rows were read.
    examples: those of them that are examples.
    roles:    role -> column that seems to play it, by its name; a proposal for `columns`.
    """

    shape: str
    columns: tuple[str, ...]
    n_rows: int | None
    is_exact: bool
    n_looked: int
    examples: tuple[Example, ...]
    roles: Mapping[str, str]


def shape_of(file: str, peeked: Sequence[RawRow], source: PoolSource) -> str:
    """The shape of a file by its first rows. Raises InputError when none of them has it."""
    if not peeked:
        raise InputError(
            "the file holds no rows", file=file, remedy="Check the step that wrote it."
        )
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


def look_at(source: PoolSource, n: int = 200) -> Look:
    """Read the first `n` rows of the first file.

    Raises InputError where reading the pool would, as far as these rows tell.
    """
    check_source(source)
    check_tables(source)
    file, raws = next(open_parts(source))
    rows = list(itertools.islice(raws, n))
    shape = shape_of(file, rows, source)
    values = [row.value for row in rows if row.value is not None]
    results = [to_example(value, shape, source.columns) for value in values]
    n_rows, is_exact = (None, False) if is_dataset_name(source) else _count(source, rows, n)
    return Look(
        shape=shape,
        columns=tuple(dict.fromkeys(name for value in values for name in value)),
        n_rows=n_rows,
        is_exact=is_exact,
        n_looked=len(rows),
        examples=tuple(result for result in results if isinstance(result, Example)),
        roles=propose_roles(values),
    )


def _count(source: PoolSource, rows: Sequence[RawRow], n_asked: int) -> tuple[int, bool]:
    """Rows of all files, and whether that is exact."""
    files = find_files(source)
    if len(files) == 1 and len(rows) < n_asked:
        return len(rows), True  # the file ended before the sample was full
    known = [parquet_rows(file) for file in files]
    if None not in known:
        return sum(n_rows or 0 for n_rows in known), True
    n_bytes = sum(len(row.raw_json().encode()) + 1 for row in rows)
    per_row = max(1.0, n_bytes / len(rows))
    estimates = (
        text_bytes(file) / per_row if n_rows is None else n_rows
        for file, n_rows in zip(files, known, strict=True)
    )
    return round(sum(estimates)), False


def text_bytes(file: DataFile) -> int:
    """Bytes of text in a file, guessed from its size."""
    return file.path.stat().st_size * _UNPACKED.get(file.path.suffix.lower(), 1)


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
    check_mapped(source, seen.names)


def read_rows(data: object, source: PoolSource) -> Iterator[ReadBatch]:
    """Read rows in memory as if they stood in one file: the same ids, drops and shapes.

    data:   see `iter_memory`.
    source: the settings; `path` is what `file` says of the rows, and the source's name by default.
    """
    check_source(replace(source, path=_IN_MEMORY))
    seen = ColumnKinds()
    for batch in _read_file(source.path, iter_memory(data, source.path), source):
        seen.merge(batch.kinds)
        yield batch
    check_mapped(source, seen.names)


_IN_MEMORY = "memory.jsonl"  # a path that is no dataset's name


def _read_file(file: str, raws: Iterator[RawRow], source: PoolSource) -> Iterator[ReadBatch]:
    peeked = list(itertools.islice(raws, N_PEEK))
    shape = shape_of(file, peeked, source)
    builder = BatchBuilder(source, shape)
    for raw in itertools.chain(peeked, raws):
        builder.add(raw)
        if builder.is_full:
            yield builder.take()
    if not builder.is_empty:
        yield builder.take()


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
