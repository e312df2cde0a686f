"""What a pool source is refused for: settings, columns, files in no known shape, broken rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from selection.core.errors import InputError
from selection.data.columns import TEXT_ROLES, check_columns, names_in, unknown_column
from selection.data.readers.files import find_files, is_dataset_name
from selection.data.readers.rows import RawRow
from selection.data.readers.streams import plain_suffix
from selection.data.readers.tables import TABLES, column_names
from selection.data.shapes import SHAPES, check_shape
from selection.records import PoolSource


def check_source(source: PoolSource) -> None:
    """Refuse a source whose settings cannot be right, before any file is opened."""
    check_columns(source.columns)
    check_shape(source.shape, source.columns)
    if source.broken_rows not in ("refuse", "drop"):
        raise InputError(
            "broken rows are either refused or dropped",
            field="broken_rows",
            value=source.broken_rows,
            remedy="Set it to refuse or drop.",
        )
    local = not is_dataset_name(source)
    for name in ("subset", "split", "revision"):
        if local and getattr(source, name) is not None:
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
    named = [column_names(file) for file in find_files(source)]
    if None not in named:  # else only the end of the data tells
        check_mapped(source, list(dict.fromkeys(name for names in named for name in names or [])))


def check_mapped(source: PoolSource, known: Sequence[str]) -> None:
    """Refuse a mapped column that is not among the known ones."""
    for role, name in names_in(source.columns):
        if not {source.columns[role], name, name.split(".")[0]} & set(known):
            raise unknown_column(role, name, known, source.path, is_table=_is_table(source.path))


def no_shape(file: str, values: Sequence[Mapping[str, object]], source: PoolSource) -> InputError:
    """The error for a file in no known shape; a missing column of the mapping comes first."""
    columns = list(dict.fromkeys(name for value in values for name in value))
    header = " The first line must name the columns." if _is_table(file) else ""
    texts = {role: names for role, names in source.columns.items() if role in TEXT_ROLES}
    missing = [(role, name) for role, name in names_in(texts) if name not in columns]
    if missing:
        return unknown_column(*missing[0], columns, file, is_table=bool(header))
    wanted = "one of the known shapes" if source.shape == "auto" else f"the shape {source.shape}"
    return InputError(
        f"no row among the first {len(values)} has {wanted}",
        file=file,
        field="shape",
        value=columns,
        remedy=f"Shapes: {', '.join(SHAPES)}. For other columns say which hold the text, e.g."
        f' columns: {{prompt: "question", response: "answer"}}.{header}',
    )


def _is_table(file: str) -> bool:
    return plain_suffix(Path(file)) in TABLES


def refuse_broken(raw: RawRow) -> None:
    """Raise InputError for a row that could not be read."""
    if raw.value is None:
        line = raw.line if raw.line is not None else raw.row
        raise InputError(
            f"broken row: {raw.error}",
            file=raw.file,
            line=line,
            remedy="Repair or remove the line, or set `broken_rows: drop` to count and skip such"
            " rows.",
        )
