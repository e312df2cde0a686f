"""Sources to batches of the pool's schema; every row ends as an example or as a drop."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from selection.core.errors import InputError
from selection.core.hashing import canonical_bytes, canonical_json, example_id_of_json
from selection.core.json_text import LONG
from selection.data.checks import check_mapped, check_source, check_tables, refuse_broken, shape_of
from selection.data.containers.files import iter_file
from selection.data.containers.listing import Skipped, is_dataset_name, list_files, source_name
from selection.data.containers.memory import iter_memory
from selection.data.containers.rows import RawRow
from selection.data.containers.streams import is_link_text, plain_suffix
from selection.data.coverage import FileCoverage, ReadReport
from selection.data.messages.problems import Drop, Example
from selection.data.shapes.columns import ColumnKinds, role_text
from selection.data.shapes.message_rows import join_message_rows, joining_columns
from selection.data.shapes.read_row import RowReader, turn_keys
from selection.data.shapes.spelled_answers import spelled_answers
from selection.records import DROP_SCHEMA, POOL_SCHEMA, DropReason, PoolSource

N_PEEK = 200  # rows of a file that decide its shape
_PEEK_CHARACTERS = 16 << 20  # of their JSON, where they have it
_BATCH_ROWS = 4096
_BATCH_BYTES = 8 << 20  # of messages and raw rows; long rows make short batches


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Some rows of a source, in file order.

    rows:    POOL_SCHEMA, one row per example; a row of the source may hold several.
    n_chars: int32, characters of text of each row's messages.
    drops:   DROP_SCHEMA, the rows between them that are no examples.
    kinds:   kinds of values in the columns of all these rows, the dropped ones included.
    n_rows:  rows of the source, each of them in `rows` or in `drops`.
    """

    rows: pa.RecordBatch
    n_chars: pa.Int32Array
    drops: pa.RecordBatch
    kinds: ColumnKinds
    n_rows: int


def read_pool(source: PoolSource, report: ReadReport | None = None) -> Iterator[ReadBatch]:
    """Read a source in batches; the shape is decided for each file.

    report: filled with what was read of every file and what was not.
    Raises InputError for settings that cannot be right, files that cannot be read or hold no row in
    a known shape, broken rows (unless `broken_rows` says drop), and mapped columns that no row has.
    """
    check_source(source)
    check_tables(source)
    report = ReadReport() if report is None else report
    seen = ColumnKinds()
    for file, raws in open_files(source, report):
        for batch in read_file(file, raws, source, report):
            seen.merge(batch.kinds)
            yield batch
    check_mapped(source, seen.names)


def read_rows(
    data: object, source: PoolSource, report: ReadReport | None = None
) -> Iterator[ReadBatch]:
    """Read rows in memory as if they stood in one file: the same ids, drops and shapes.

    data:   see `iter_memory`.
    source: the settings; `path` is what `file` says of the rows, and the source's name by default.
    """
    check_source(source, in_memory=True)
    seen = ColumnKinds()
    raws = iter_memory(data, source.path)
    for batch in read_file(source.path, raws, source, report or ReadReport()):
        seen.merge(batch.kinds)
        yield batch
    check_mapped(source, seen.names)


def open_files(source: PoolSource, report: ReadReport) -> Iterator[tuple[str, Iterator[RawRow]]]:
    """Each file of a source by name, with its rows; a Hugging Face dataset is one file.

    Among several files, one without rows, or a JSON object that is no row, is left out and told to
    `report`. Raises InputError when nothing is left.
    """
    if is_dataset_name(source):
        from selection.data.containers.huggingface import (
            iter_dataset,  # `datasets` is slow to import
        )

        yield source.path, iter_dataset(source)
        return
    listing = list_files(source)
    report.skipped += listing.skipped
    n_read = 0
    for file in listing.files:
        rows = iter_file(file, source)
        if len(listing.files) > 1:
            if is_link_text(file):
                report.skipped.append(Skipped(file.name, "link that was copied as text"))
                continue
            first = list(itertools.islice(rows, 2))
            if why := _why_no_data(file.name, first, source):
                report.skipped.append(Skipped(file.name, why))
                continue
            rows = itertools.chain(first, rows)
        n_read += 1
        yield file.name, rows
    if not n_read:
        raise InputError(
            "no file of the folder holds rows",
            file=source.path,
            remedy="Check the step that wrote it.",
        )


def _why_no_data(name: str, first: list[RawRow], source: PoolSource) -> str:
    """Why a file beside others is no data, as a clause; "" for one that is."""
    if not first:
        return "no rows"
    value = first[0].value
    if plain_suffix(name) != ".json" or len(first) > 1 or value is None:
        return ""
    shape = "messages" if source.shape == "auto" else source.shape
    result = RowReader(source, shape).read(value)
    strange = isinstance(result, Drop) and result.reason == DropReason.NOT_RECOGNIZED
    return "one object that is no row" if strange else ""


def read_file(
    file: str, raws: Iterator[RawRow], source: PoolSource, report: ReadReport
) -> Iterator[ReadBatch]:
    """Batches of one file's rows; see `read_pool`."""
    if source.answers == "json":
        keys = turn_keys(source)
        raws = (spelled_answers(raw, source, keys) for raw in raws)
    peeked = peek_rows(raws, N_PEEK)
    shape = shape_of(file, peeked, source)
    builder = BatchBuilder(source, shape, report.start(file, source.columns))
    if shape == "message_rows":
        for raw in peeked:
            builder.coverage.used |= joining_columns(raw.value or {})
    raws = itertools.chain(_each_forgotten(peeked), raws)
    known: Iterator[tuple[RawRow, Drop | None]] = map(_without_drop, raws)
    if shape == "message_rows":
        known = join_message_rows(raws, turn_keys(source))
    for raw, drop in known:
        builder.add(raw, drop)
        del raw, drop  # a row may be long, and the batch has what it needs
        if builder.is_full:
            yield builder.take()
    if builder.n_rows:
        yield builder.take()


def peek_rows(raws: Iterator[RawRow], n: int) -> list[RawRow]:
    """The first `n` rows, or fewer where they are very long."""
    rows: list[RawRow] = []
    n_characters = 0
    while len(rows) < n and n_characters < _PEEK_CHARACTERS:
        raw = next(raws, None)
        if raw is None:
            break
        rows.append(raw)
        n_characters += len(raw.text or "")
    return rows


def _without_drop(raw: RawRow) -> tuple[RawRow, None]:
    return raw, None


def _each_forgotten(rows: list[RawRow]) -> Iterator[RawRow]:
    """The rows in their order; each is let go when the next one is asked for."""
    rows.reverse()
    while rows:
        yield rows.pop()


@dataclass
class BatchBuilder:
    """Collects rows until they make a batch."""

    source: PoolSource
    shape: str
    coverage: FileCoverage
    rows: list[dict[str, object]] = field(default_factory=list)
    n_chars: list[int] = field(default_factory=list)
    drops: list[dict[str, object]] = field(default_factory=list)
    kinds: ColumnKinds = field(default_factory=ColumnKinds)
    n_rows: int = 0
    n_bytes: int = 0

    def __post_init__(self) -> None:
        """Prepare the reader of rows, and find the pool's name once."""
        self._reader = RowReader(self.source, self.shape)
        self.coverage.shapes = self._reader.shapes
        self._name = source_name(self.source)

    @property
    def is_full(self) -> bool:
        """Whether the batch should be taken now."""
        return self.n_rows >= _BATCH_ROWS or self.n_bytes >= _BATCH_BYTES

    def add(self, raw: RawRow, drop: Drop | None = None) -> None:
        """Read one row; a broken one is refused or dropped as the source says.

        drop: why the row is no example, where that is known before it is read.
        """
        self.n_rows += 1
        if raw.value is None:
            if self.source.broken_rows == "refuse":
                refuse_broken(raw)
            self._drop(raw, Drop(DropReason.BROKEN_ROW, raw.error))
            return
        self.kinds.add(raw.value)
        result = drop or self._read(raw, raw.value)
        columns = raw.value
        if self.shape == "message_rows":  # `messages` was made by joining
            columns = {name: cell for name, cell in columns.items() if name != "messages"}
        self.coverage.add(columns, [] if isinstance(result, Drop) else result)
        if isinstance(result, Drop):
            self._drop(raw, result)
            return
        for example in result:
            row = pool_row(raw, raw.value, example, self.source.columns, self._name)
            self.rows.append(row)
            self.n_chars.append(example.n_chars)
            for text in (row["messages"], row["raw"]):
                assert isinstance(text, str | bytes)
                self.n_bytes += len(text)

    def _read(self, raw: RawRow, value: Mapping[str, object]) -> list[Example] | Drop:
        if not raw.missing:
            return self._reader.read(value)
        result, missing = self._reader.read_with_missing(value, raw.missing)
        self.coverage.missing.update(missing)
        return result

    def take(self) -> ReadBatch:
        """The batch so far; the builder is empty afterwards."""
        batch = ReadBatch(
            rows=pa.RecordBatch.from_pylist(self.rows, schema=POOL_SCHEMA),
            n_chars=pa.array(self.n_chars, pa.int32()),
            drops=pa.RecordBatch.from_pylist(self.drops, schema=DROP_SCHEMA),
            kinds=self.kinds,
            n_rows=self.n_rows,
        )
        self.rows, self.n_chars, self.drops = [], [], []
        self.kinds, self.n_bytes, self.n_rows = ColumnKinds(), 0, 0
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
    write = canonical_bytes if example.n_chars > LONG else canonical_json
    messages, tools = write(example.messages), canonical_json(example.tools)
    return {
        "example_id": example_id_of_json(messages, tools),
        "messages": messages,
        "tools": None if example.tools is None else tools,
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
