"""What a pool source is refused for: settings, columns, files in no known shape, broken rows."""

import codecs
from collections.abc import Mapping, Sequence

from selection.core.errors import InputError
from selection.data.containers.files import column_names
from selection.data.containers.listing import TABLES, find_files, has_many_files, is_dataset_name
from selection.data.containers.rows import RawRow
from selection.data.containers.streams import plain_suffix
from selection.data.messages.names import CONTENT_LIKE, TURN_COLUMNS, fold
from selection.data.messages.problems import Drop, kind_with_article
from selection.data.remedies import REMEDIES
from selection.data.shapes.columns import TEXT_ROLES, check_columns, names_in, unknown_column
from selection.data.shapes.read_row import SHAPES, RowReader, check_shape, detect_shape
from selection.records import DropReason, PoolSource

_CHOICES = {
    "broken_rows": ("refuse", "drop"),
    "answers": ("refuse", "first", "json"),
    "quoting": ("auto", "standard", "backslash", "none"),
}
_TURN_SETTINGS = ("column", "role", "content")
_FATAL = (DropReason.NOT_TEXT, DropReason.UNKNOWN_ROLE)


def check_source(source: PoolSource, *, in_memory: bool = False) -> None:
    """Refuse a source whose settings cannot be right, before any file is opened."""
    check_columns(source.columns)
    check_shape(source)
    for name, choices in _CHOICES.items():
        if (value := getattr(source, name)) not in choices:
            remedy = f"Set it to {' or '.join(choices)}."
            raise InputError("no such choice", field=name, value=value, remedy=remedy)
    if source.delimiter is not None and len(source.delimiter) != 1:
        raise InputError(
            "a delimiter is one character",
            field="delimiter",
            value=source.delimiter,
            remedy='Give e.g. ";" or "\\t".',
        )
    if unknown := set(source.turns) - set(_TURN_SETTINGS):
        raise InputError(
            "no such setting of turns",
            field=f"turns.{min(unknown)}",
            value=source.turns[min(unknown)],
            remedy=f"Settings: {', '.join(_TURN_SETTINGS)}.",
        )
    if source.encoding is not None:
        _check_encoding(source.encoding)
    if not in_memory and not is_dataset_name(source):
        _check_local(source)


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise InputError(
            "no such encoding",
            field="encoding",
            value=encoding,
            remedy="Name one that Python knows, e.g. cp1252, latin-1, utf-16.",
        ) from None


def _check_local(source: PoolSource) -> None:
    """Settings of datasets on the hub do not go with a path; a split goes with a folder."""
    has_splits = has_many_files(source) or plain_suffix(source.path) == ".json"
    for name in ("subset", "revision") if has_splits else ("subset", "split", "revision"):
        if getattr(source, name) is not None:
            raise InputError(
                f"`{name}` is for Hugging Face datasets, but this is a path",
                file=source.path,
                field=name,
                value=getattr(source, name),
                remedy=f"Remove `{name}`, or check the path.",
            )


def check_tables(source: PoolSource) -> None:
    """Mapped columns against formats that name their columns up front, before reading."""
    if not source.columns or is_dataset_name(source):
        return
    named = [column_names(file, source) for file in find_files(source)]
    if None not in named:  # else only the end of the data tells
        check_mapped(source, list(dict.fromkeys(name for names in named for name in names or [])))


def check_mapped(source: PoolSource, known: Sequence[str]) -> None:
    """Refuse a mapped column that is not among the known ones."""
    for role, name in names_in(source.columns):
        if not {source.columns[role], name, name.split(".")[0]} & set(known):
            raise unknown_column(role, name, known, source.path, is_table=_is_table(source.path))
    column = source.turns.get("column", "")
    if column and not {column, column.split(".")[0]} & set(known):
        raise unknown_column("turns", column, known, source.path)


def shape_of(file: str, peeked: Sequence[RawRow], source: PoolSource) -> str:
    """The shape of a file by its first rows.

    Raises InputError when none of them has it, when all of them hold something that is no text or
    a role that nobody knows, and for rows that can be read in two ways.
    """
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
        shape = detect_shape(values, source)
    else:
        reader = RowReader(source, source.shape)
        shape = source.shape if any(map(reader.has_shape, values)) else None
        shape = source.shape if source.shape == "message_rows" else shape
    if shape is None:
        raise no_shape(file, values, source)
    if shape != "message_rows":
        _refuse_unreadable(file, peeked, shape, source)
    return shape


def _refuse_unreadable(file: str, peeked: Sequence[RawRow], shape: str, source: PoolSource) -> None:
    """Refuse a file of which every first row is dropped for one reason that a setting mends."""
    reader = RowReader(source, shape)
    results = [reader.read(raw.value) for raw in peeked if raw.value is not None]
    drops = [result for result in results if isinstance(result, Drop)]
    if len(drops) == len(results) and {drop.reason for drop in drops} <= set(_FATAL):
        remedy = REMEDIES[drops[0].reason]
        raise InputError(
            f"none of the first {len(results)} rows can be read: {drops[0].detail}",
            file=file,
            line=peeked[0].line or peeked[0].row,
            remedy=remedy[0].upper() + remedy[1:] + ".",
        )


def no_shape(file: str, values: Sequence[Mapping[str, object]], source: PoolSource) -> InputError:
    """The error for a file in no known shape; a missing column of the mapping comes first."""
    columns = list(dict.fromkeys(name for value in values for name in value))
    header = " The first line must name the columns." if _is_table(file) else ""
    texts = {role: names for role, names in source.columns.items() if role in TEXT_ROLES}
    missing = [(role, name) for role, name in names_in(texts) if name not in columns]
    if missing:
        return unknown_column(*missing[0], columns, file, is_table=bool(header))
    spelled = [name for name in columns if any(_is_spelled_list(row, name) for row in values)]
    if spelled and source.shape == "auto":
        return InputError(
            f"`{spelled[0]}` is a text that spells a list, but neither as JSON nor as Python does",
            file=file,
            field=spelled[0],
            value=str(values[0].get(spelled[0]))[:60],
            remedy="Write it as JSON, e.g. `frame[NAME] = frame[NAME].map(lambda x: json.dumps("
            "list(x)))` before `to_csv`, or write Parquet or JSONL.",
        )
    if source.shape == "auto" and (error := _no_turns(file, values)):
        return error
    wanted = "one of the known shapes" if source.shape == "auto" else f"the shape {source.shape}"
    mapping = {"prompt": "question", "response": "answer"}
    for name in columns:
        if (role := CONTENT_LIKE.get(fold(name))) in mapping:
            mapping[str(role)] = name
    example = ", ".join(f'{role}: "{name}"' for role, name in mapping.items())
    return InputError(
        f"no row among the first {len(values)} has {wanted}",
        file=file,
        field="shape",
        value=columns,
        remedy=f"Shapes: {', '.join(SHAPES)}. For other columns say which hold the text, e.g."
        f" columns: {{{example}}}; for turns under another name"
        f" `turns: {{column: NAME, role: KEY, content: KEY}}`.{header}",
    )


def _no_turns(file: str, values: Sequence[Mapping[str, object]]) -> InputError | None:
    """The error for a column of turns in which nobody's name is known; None for no such column."""
    columns = [(name, v) for row in values for name, v in row.items() if fold(name) in TURN_COLUMNS]
    name, value = next(((n, v) for n, v in columns if isinstance(v, list | dict) and v), ("", None))
    if not name:
        return None
    remedy = 'Write it as a list of {"role": ..., "content": ...}.'
    first = value[0] if isinstance(value, list) else _first_cells(value)
    if isinstance(first, dict) and len(first) > 1:
        content = max(first, key=lambda key: len(str(first[key])))
        role = next(key for key in first if key != content)
        remedy = f"Name its keys: `turns: {{column: {name}, role: {role}, content: {content}}}`"
        is_flag = isinstance(first[role], bool)
        remedy += ' and `roles: {"true": user, "false": assistant}`.' if is_flag else "."
    if isinstance(first, str | list):
        remedy = f"`turns: {{column: {name}}}` reads it as texts of user and assistant in turn."
    return InputError(
        f"`{name}` is {kind_with_article(value)}, in which it is not known who speaks",
        file=file,
        field=name,
        remedy=remedy,
    )


def _first_cells(value: object) -> dict[str, object]:
    """The first cell of each column of an object of columns; none for any other value."""
    columns = value.items() if isinstance(value, dict) else ()
    cells = {key: cell[0] for key, cell in columns if isinstance(cell, list) and cell}
    return cells if len(cells) == len(columns) else {}


def _is_spelled_list(row: Mapping[str, object], name: str) -> bool:
    """Whether a column of turns holds a text such as numpy makes of a list."""
    value = row.get(name)
    is_text = isinstance(value, str) and value.lstrip().startswith(("[", "array(", "{"))
    return is_text and fold(name) in TURN_COLUMNS


def _is_table(file: str) -> bool:
    return plain_suffix(file) in TABLES


def refuse_broken(raw: RawRow) -> None:
    """Raise InputError for a row that could not be read."""
    if raw.value is None:
        line = raw.line if raw.line is not None else raw.row
        encoding = " If it is text in another encoding, name it: `encoding: cp1252`."
        raise InputError(
            f"broken row: {raw.error}",
            file=raw.file,
            line=line,
            remedy="Repair or remove the line, or set `broken_rows: drop` to count and skip such"
            f" rows.{encoding if 'UTF-8' in raw.error else ''}",
        )
