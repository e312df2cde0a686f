"""Columns of raw rows: which play a role, how texts are put together, what kinds they hold."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from selection.core.errors import InputError
from selection.core.hashing import canonical_json

ROLES = ("id", "licence", "language", "source", "group", "target", "subtask")
TEXT_ROLES = ("system", "prompt", "response", "reasoning", "rejected")

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_MAX_TRACKED = 10_000  # columns whose kinds are counted; rows may use data as column names

Row = Mapping[str, object]


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse roles that do not exist. Raises InputError."""
    for role, name in columns.items():
        if role not in ROLES + TEXT_ROLES:
            raise InputError(
                "no such role of a column",
                field=f"columns.{role}",
                value=name,
                remedy=f"Roles: {', '.join(ROLES + TEXT_ROLES)}.",
            )


def lookup(row: Row, name: str) -> object:
    """The value of a column; a name with dots that is no column itself leads into objects."""
    if name in row:
        return row[name]
    value: object = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def role_text(row: Row, role: str, columns: Mapping[str, str]) -> str | None:
    """What a row says for a role, as text; None where it says nothing.

    Numbers and the like are written as JSON. Without a mapping, a role is played by the column of
    its name, so that `where` and reports see it.
    """
    value = lookup(row, columns.get(role, role))
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else canonical_json(value)


def parts_of(expression: str) -> list[list[str]]:
    """Column names of a mapping: "a+b|c" is [["a"], ["b", "c"]], that is a and (b or c)."""
    return [[name.strip() for name in part.split("|")] for part in expression.split("+")]


def names_in(columns: Mapping[str, str]) -> list[tuple[str, str]]:
    """(role, column name) of every column that a mapping mentions."""
    names = []
    for role, expression in columns.items():
        parts = parts_of(expression) if role in TEXT_ROLES else [[expression]]
        names += [(role, name) for part in parts for name in part]
    return names


def joined_cells(
    row: Row, expression: str, used: set[str] | None = None
) -> list[tuple[str, object]] | None:
    """(column, value) of the cells that a mapping joins; None where all its columns are null.

    "+" joins the parts that are not empty; within a part, "|" takes the first column that is not
    empty. A column that has these signs in its own name comes first. Columns that were looked at
    are added to `used`.
    """
    parts = [[expression]] if expression in row else parts_of(expression)
    if used is not None:
        used.update(_own_name(row, name) for names in parts for name in names)
    cells = [[(name, lookup(row, name)) for name in names] for names in parts]
    if all(value is None for part in cells for _, value in part):
        return None
    filled = (next((cell for cell in part if _is_filled(cell[1])), None) for part in cells)
    return [cell for cell in filled if cell is not None]


def _own_name(row: Row, name: str) -> str:
    return name if name in row else name.split(".")[0]


def _is_filled(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


def unknown_column(
    role: str, name: str, known: Sequence[str], file: str, *, is_table: bool = False
) -> InputError:
    """The error for a mapped column that the data does not have."""
    header = " Does the first line name the columns?" if is_table else ""
    return InputError(
        f"there is no column `{name}`",
        file=file,
        field=f"columns.{role}",
        value=name,
        remedy=f"Columns: {', '.join(known) or 'none'}.{header}",
    )


def propose_roles(rows: Sequence[Row]) -> dict[str, str]:
    """Roles that columns seem to play, by their names; only columns of short texts or numbers."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    proposed = {}
    for role, candidates in _USUAL_NAMES.items():
        for name in candidates:
            labels = [n for n in names if n.lower() == name and _is_label(rows, n)]
            if labels:
                proposed[role] = labels[0]
                break
    return proposed


class ColumnKinds:
    """Counts, for every top-level column, what kinds of value it holds.

    Kinds: boolean, integer (fits in 64 bits), number, text, number_text (a text that spells a
    number), empty_text, nested; null is not counted. They say how `where` may read a column, and
    they are of the whole pool, so they cannot depend on how it is cut into batches.
    """

    def __init__(self) -> None:
        """Start with no column."""
        self._counts: dict[str, Counter[str]] = {}

    def add(self, row: Row) -> None:
        """Count the values of one row."""
        for name, value in row.items():
            counts = self._counts.get(name)
            if counts is None:
                if len(self._counts) >= _MAX_TRACKED:
                    continue
                counts = self._counts[name] = Counter()
            if value is not None:
                counts[kind_of(value)] += 1

    def merge(self, other: "ColumnKinds") -> None:
        """Add the counts of another part of the pool."""
        for name, counts in other._counts.items():
            if name in self._counts or len(self._counts) < _MAX_TRACKED:
                self._counts.setdefault(name, Counter()).update(counts)

    @property
    def names(self) -> list[str]:
        """Columns in the order in which they were first seen."""
        return list(self._counts)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Column -> kind -> number of values, both sorted by name."""
        return {name: dict(sorted(c.items())) for name, c in sorted(self._counts.items())}


def kind_of(value: object) -> str:
    """The kind of one value that is not null."""
    if isinstance(value, str):
        if not value:
            return "empty_text"
        return "number_text" if _NUMBER.fullmatch(value) else "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "number"
    return "number" if isinstance(value, float) else "nested"


_USUAL_NAMES = {
    "id": ("id", "uuid", "_id", "prompt_id", "uid", "idx", "index"),
    "licence": ("licence", "license"),
    "language": ("language", "lang"),
    "source": ("source", "dataset", "origin", "data_source"),
    "group": ("group", "group_id", "doc_id", "document_id", "conversation_id"),
}
_LABEL_LENGTH = 200  # characters; a longer value is a text, not a label


def _is_label(rows: Sequence[Row], name: str) -> bool:
    values = [row.get(name) for row in rows if row.get(name) is not None]
    return bool(values) and all(
        isinstance(v, str | int) and len(str(v)) <= _LABEL_LENGTH for v in values
    )
