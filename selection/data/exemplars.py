"""Exemplars of target tasks: read as a pool is, but few, and none of them lost silently."""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from selection.core.errors import InputError
from selection.data.checks import check_mapped, check_source, no_shape
from selection.data.containers.listing import is_dataset_name, source_name
from selection.data.containers.rows import RawRow
from selection.data.coverage import FileCoverage, ReadReport
from selection.data.messages.problems import Drop
from selection.data.read import ReadBatch, open_files, pool_row, read_pool, read_rows
from selection.data.remedies import remedy_of
from selection.data.shapes.read_row import RowReader, detect_shape
from selection.records import POOL_SCHEMA, DropReason, PoolSource

log = logging.getLogger(__name__)

MAX_EXEMPLARS = 100_000  # more than this is a pool given by mistake


@dataclass(frozen=True, slots=True)
class _TargetLine:
    """One line of a targets file, checked."""

    raw: RawRow
    target: str
    exemplars: list[object]


def read_exemplars(
    source: PoolSource,
    targets: Sequence[str] | None = None,
    default_target: str = "target",
    report: ReadReport | None = None,
) -> pa.Table:
    """Read the exemplars of the wanted targets: POOL_SCHEMA, in file order, `target` never null.

    source:         any pool shape, or a targets file: one line per target with `target` and
                    `exemplars`, a list of rows in any shape.
    targets:        names of the targets to keep; None keeps all.
    default_target: what rows without a target of their own belong to.
    report:         filled with what was read of their columns and what was not.
    In a targets file `row` is the line of the target, and own ids tell its exemplars apart.
    Raises InputError for no exemplars, a row in no known shape or without text (in a pool it would
    be dropped; among a few exemplars it is a mistake), unknown targets, and a target given twice.
    """
    check_source(source)
    lines = None if is_dataset_name(source) else _target_lines(source)
    report = ReadReport() if report is None else report
    if lines is None:
        table = _plain(read_pool(source, report), source, default_target)
    else:
        table = _of_targets(lines, source, report)
    return _checked(table, source, targets)


def read_exemplar_rows(
    data: object,
    source: PoolSource,
    targets: Sequence[str] | None = None,
    default_target: str = "target",
) -> pa.Table:
    """Rows in memory as `read_exemplars` reads a file of them. data: as `read_rows` takes it."""
    return _checked(_plain(read_rows(data, source), source, default_target), source, targets)


def _checked(table: pa.Table, source: PoolSource, targets: Sequence[str] | None) -> pa.Table:
    if targets is not None:
        table = _only(table, targets, source)
    if table.num_rows == 0:
        raise _none(source)
    _warn_of_copies(table)
    return table


def _target_lines(source: PoolSource) -> list[_TargetLine] | None:
    """The lines of a targets file; None when the source is none."""
    raws = itertools.chain.from_iterable(rows for _, rows in open_files(source, ReadReport()))
    first = next(raws, None)
    if first is None or first.value is None or "exemplars" not in first.value:
        return None
    lines: list[_TargetLine] = []
    for raw in itertools.chain([first], raws):
        line = _target_line(raw)
        if any(line.target == other.target for other in lines):
            raise _wrong_line(raw, "target", "the target stands in two lines", line.target)
        lines.append(line)
    return lines


def _target_line(raw: RawRow) -> _TargetLine:
    if raw.value is None:
        raise _wrong_line(raw, None, f"broken row: {raw.error}")
    target, exemplars = raw.value.get("target"), raw.value.get("exemplars")
    if not isinstance(target, str) or not target:
        raise _wrong_line(raw, "target", "a target needs a name", target)
    if not isinstance(exemplars, list) or not exemplars:
        raise _wrong_line(raw, "exemplars", f"target {target} has no exemplars", exemplars)
    return _TargetLine(raw, target, exemplars)


def _wrong_line(raw: RawRow, field: str | None, problem: str, value: object = None) -> InputError:
    return InputError(
        problem,
        file=raw.file,
        line=raw.line or raw.row,
        field=field,
        value=value,
        remedy='A targets file has one line per target: {"target": NAME, "exemplars": [ROW, ...]}.',
    )


def _of_targets(lines: Sequence[_TargetLine], source: PoolSource, report: ReadReport) -> pa.Table:
    rows: list[dict[str, object]] = []
    coverage = report.start(lines[0].raw.file, source.columns)
    for line in lines:
        rows += _rows_of(line, source, coverage)
    values = (value for line in lines for value in line.exemplars if isinstance(value, dict))
    check_mapped(source, list(dict.fromkeys(name for value in values for name in value)))
    return pa.Table.from_pylist(rows, schema=POOL_SCHEMA)


def _rows_of(
    line: _TargetLine, source: PoolSource, coverage: FileCoverage
) -> Iterator[dict[str, object]]:
    """Rows of POOL_SCHEMA for the exemplars of one target; their shape is decided together."""
    values = []
    for number, value in enumerate(line.exemplars):
        if not isinstance(value, dict):
            problem = "an exemplar must be an object"
            raise _wrong_line(line.raw, f"exemplars[{number}]", problem, value)
        values.append(value)
    shape = detect_shape(values, source) if source.shape == "auto" else source.shape
    if shape is None:
        raise no_shape(f"{line.raw.file}, line {line.raw.line}", values, source)
    reader = RowReader(source, shape)
    for number, value in enumerate(values):
        result = reader.read(value)
        if isinstance(result, Drop):
            raise _unusable(line.raw, f"exemplars[{number}]", shape, result, value)
        coverage.add(value, result)
        text = json.dumps(value, ensure_ascii=False)
        raw = replace(line.raw, value=value, text=text)
        for example in result:
            row = pool_row(raw, value, example, source.columns, source_name(source))
            yield row | {"target": line.target}
    coverage.shapes.update(reader.shapes)


def _plain(read: Iterable[ReadBatch], source: PoolSource, default_target: str) -> pa.Table:
    """Exemplars in a pool's shape."""
    batches, n_rows = [], 0
    for batch in read:
        for drop in batch.drops.to_pylist():
            if drop["reason"] == DropReason.IN_CONVERSATION:
                continue
            raise InputError(
                f"this exemplar cannot be used: {_why(drop['reason'], drop['detail'])}",
                file=drop["file"],
                line=drop["row"],
                remedy=_remedy(drop["reason"]),
            )
        n_rows += batch.rows.num_rows
        if n_rows > MAX_EXEMPLARS:
            raise InputError(
                f"more than {MAX_EXEMPLARS:,} exemplars",
                file=source.path,
                remedy="Exemplars are a handful of samples of the target task; is this the pool?",
            )
        batches.append(batch.rows)
    table = pa.Table.from_batches(batches, schema=POOL_SCHEMA)
    named = [name or default_target for name in table["target"].to_pylist()]
    column = POOL_SCHEMA.get_field_index("target")
    return table.set_column(column, POOL_SCHEMA.field("target"), pa.array(named, pa.string()))


def _unusable(
    raw: RawRow, field: str, shape: str, drop: Drop, value: Mapping[str, object]
) -> InputError:
    why = _why(drop.reason.value, drop.detail)
    return InputError(
        f"this exemplar cannot be used: {why}",
        file=raw.file,
        line=raw.line or raw.row,
        field=field,
        value=value,
        remedy=f"{_remedy(drop.reason)} Its target's exemplars are read in the shape {shape}.",
    )


def _remedy(reason: str) -> str:
    known = remedy_of(reason)
    return f"Repair or remove it: {known}." if known else "Repair or remove it."


def _why(reason: str, detail: str) -> str:
    text = reason.replace("_", " ")
    return f"{text} ({detail})" if detail else text


def _only(table: pa.Table, targets: Sequence[str], source: PoolSource) -> pa.Table:
    """The rows of the named targets, in file order."""
    names = table["target"].to_pylist()
    known = sorted(set(names))
    unknown = [target for target in targets if target not in known]
    if unknown:
        raise InputError(
            "no such target",
            file=source.path,
            field="targets",
            value=unknown[0],
            remedy=f"Targets in this file: {', '.join(known)}.",
        )
    if not targets:
        raise _none(source, field="targets")
    return table.filter(pa.array([name in set(targets) for name in names]))


def _none(source: PoolSource, field: str | None = None) -> InputError:
    return InputError(
        "there are no exemplars",
        file=source.path,
        field=field,
        remedy="Give 5 to 500 samples of the target task, in any shape a pool may have.",
    )


def _warn_of_copies(table: pa.Table) -> None:
    """Equal exemplars count as often as they stand there; say so."""
    pairs = Counter(zip(table["target"].to_pylist(), table["example_id"].to_pylist(), strict=True))
    n_copies = sum(n - 1 for n in pairs.values())
    if n_copies:
        log.warning("%d exemplars are exact copies of others and weigh double", n_copies)
