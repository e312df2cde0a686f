"""What the first rows of every file of a source say, before the source is read."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from selection.data.checks import check_source, check_tables
from selection.data.containers.arrow_files import parquet_rows
from selection.data.containers.listing import find_files, is_dataset_name
from selection.data.coverage import ReadReport
from selection.data.messages.contents import has_response
from selection.data.read import ReadBatch, open_files, peek_rows, read_file
from selection.data.shapes.columns import propose_roles
from selection.records import PoolSource

_SHOWN = 3  # examples kept for showing


@dataclass
class Look:
    """What the first rows of a source's files say.

    shape:    the shape of all that was read; "auto" where files or rows differ.
    columns:  top-level columns seen, in order.
    n_rows:   rows of all files: exact for Parquet and where all were read, else estimated from
              sizes; None for a dataset on the hub.
    is_exact: whether `n_rows` was counted.
    n_looked: how many rows were read.
    n_examples, n_responses: the conversations in them, and those with a response.
    examples: (messages, tools) of the first ones.
    roles:    role -> column that seems to play it, by its name; a proposal for `columns`.
    drops:    reason -> rows; `first_drops` has the first row of each: file, row, detail.
    report:   what was read of the columns, and what was not.
    """

    shape: str = "auto"
    columns: tuple[str, ...] = ()
    n_rows: int | None = None
    is_exact: bool = False
    n_looked: int = 0
    n_examples: int = 0
    n_responses: int = 0
    examples: list[tuple[list[dict[str, object]], list[object] | None]] = field(
        default_factory=list
    )
    roles: Mapping[str, str] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    first_drops: dict[str, dict[str, object]] = field(default_factory=dict)
    report: ReadReport = field(default_factory=ReadReport)


def look_at(source: PoolSource, n: int = 200) -> Look:
    """Read the first `n` rows of each file.

    Raises InputError where reading the pool would, as far as these rows tell.
    """
    check_source(source)
    check_tables(source)
    look = Look()
    columns: dict[str, None] = {}
    samples: list[dict[str, object]] = []
    n_bytes, n_read, is_whole = 0, 0, True
    for file, raws in open_files(source, look.report):
        rows = peek_rows(raws, n)
        is_whole = is_whole and next(raws, None) is None
        n_read += len(rows)
        n_bytes += sum(row.n_bytes() + 1 for row in rows)
        values = [row.value for row in rows if row.value is not None]
        columns |= dict.fromkeys(name for value in values for name in value)
        samples += values[:50]
        for batch in read_file(file, iter(rows), source, look.report):
            _add(look, batch)
    shapes = {shape for file in look.report.files for shape, k in file.shapes.items() if k}
    look.shape = shapes.pop() if len(shapes) == 1 else "auto"
    look.columns, look.roles, look.n_looked = tuple(columns), propose_roles(samples), n_read
    if is_whole:
        look.n_rows, look.is_exact = n_read, True
    elif not is_dataset_name(source):
        look.n_rows, look.is_exact = _count(source, n_bytes / max(n_read, 1))
    return look


def _add(look: Look, batch: ReadBatch) -> None:
    look.n_examples += batch.rows.num_rows
    for messages, tools in _conversations(batch):
        look.n_responses += has_response(messages)
        if len(look.examples) < _SHOWN:
            look.examples.append((messages, tools))
    for drop in batch.drops.to_pylist():
        look.drops[drop["reason"]] += 1
        look.first_drops.setdefault(drop["reason"], drop)


def _conversations(
    batch: ReadBatch,
) -> Iterator[tuple[list[dict[str, object]], list[object] | None]]:
    texts = zip(batch.rows["messages"].to_pylist(), batch.rows["tools"].to_pylist(), strict=True)
    for messages, tools in texts:
        yield json.loads(messages), None if tools is None else json.loads(tools)


def _count(source: PoolSource, bytes_per_row: float) -> tuple[int, bool]:
    """Rows of all files, and whether that is exact."""
    files = find_files(source)
    known = [parquet_rows(file) for file in files]
    if None not in known:
        return sum(n_rows or 0 for n_rows in known), True
    estimates = (
        file.text_bytes() / max(1.0, bytes_per_row) if n_rows is None else n_rows
        for file, n_rows in zip(files, known, strict=True)
    )
    return round(sum(estimates)), False
