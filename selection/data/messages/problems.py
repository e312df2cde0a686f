"""What a row is read to, and why it is not."""

from dataclasses import dataclass, field

from selection.core.json_text import Typed
from selection.records import DropReason

Message = dict[str, object]


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a row is no example; `detail` is for people."""

    reason: DropReason
    detail: str = ""


class RowProblem(ValueError):
    """A row cannot be read; `str()` says what is missing or wrong."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        """Why the row is dropped, if it is not read in another way."""
        super().__init__(detail)
        self.drop = Drop(reason, detail)


def not_this_shape(detail: str) -> RowProblem:
    """The row does not have the shape that it is read in."""
    return RowProblem(DropReason.NOT_RECOGNIZED, detail)


def not_text(name: str, value: object) -> RowProblem:
    """Something stands where a text must stand; it would be altered if it was made one."""
    return RowProblem(DropReason.NOT_TEXT, f"`{name}` is {kind_with_article(value)}, not a text")


def kind_with_article(value: object) -> str:
    """What JSON calls a value, with its beginning; a table's own kinds by their names."""
    if isinstance(value, Typed):
        return f"the {value.kind} {value}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, list(value)[:4])) or 'no key'}"
    if isinstance(value, list):
        keys = list(value[0])[:4] if value and isinstance(value[0], dict) else []
        return f"a list of {len(value)}{' objects with ' if keys else ''}{', '.join(keys)}"
    return "a text"


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation of a row, in the one form that everything after reading knows.

    messages: list of {role, content, ...}; the role is one of `names.ROLES`, the content a text, a
              list of parts, or null.
    tools:    list of tool definitions, or None.
    n_chars:  characters of text in the contents.
    rejected: the answer that was not preferred, as messages; None but for preference rows.
    used:     the row's columns that were read.
    unread:   keys of messages that are kept, but not read.
    """

    messages: list[Message]
    tools: list[object] | None
    n_chars: int
    rejected: list[Message] | None = None
    used: frozenset[str] = field(default=frozenset(), compare=False)
    unread: frozenset[str] = field(default=frozenset(), compare=False)
