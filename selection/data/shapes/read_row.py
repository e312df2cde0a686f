"""Rows to examples: which shape a file has, and each of its rows read in it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from selection.core.errors import InputError
from selection.core.hashing import canonical_json
from selection.core.json_text import Typed
from selection.data.messages.contents import count_characters, media_in, says_something
from selection.data.messages.names import (
    CONTENT_KEYS,
    READ_KEYS,
    REJECTED,
    ROLES,
    SPEAKER_KEYS,
    fold,
)
from selection.data.messages.problems import Drop, Example, Message, RowProblem, not_text
from selection.data.messages.tools import definitions
from selection.data.messages.turns import TurnKeys
from selection.data.shapes.by_shape import BY_SHAPE, prompt_and_side
from selection.data.shapes.cells import Cells, Row, side
from selection.data.shapes.columns import TEXT_ROLES, joined_cells
from selection.data.shapes.message_rows import is_message_row
from selection.records import DropReason, PoolSource

SHAPES = (
    "messages", "conversations", "preference", "alpaca", "prompt_completion", "message_rows",
    "transcript", "text", "mapping",
)  # fmt: skip
"""`conversations` is `messages` as ShareGPT writes it; both read either."""

_ADDED_ROLES = ("system", "reasoning")  # mapped columns that any shape takes
_GUESSED = tuple(shape for shape in BY_SHAPE if shape not in ("text", "mapping"))


def check_shape(source: PoolSource) -> None:
    """Refuse an unknown shape, a mapping that maps no text, unknown roles. Raises InputError."""
    shape, columns = source.shape, source.columns
    if shape not in (*SHAPES, "auto"):
        raise InputError(
            "no such shape",
            field="shape",
            value=shape,
            remedy=f"Shapes: auto, {', '.join(SHAPES)}.",
        )
    if shape == "mapping" and not {"prompt", "response"} & columns.keys():
        raise InputError(
            "the shape mapping needs to know which columns hold the text",
            field="columns",
            value=dict(columns),
            remedy='Map at least one of prompt and response, e.g. prompt: "instruction+input".',
        )
    misplaced = columns.keys() & (set(TEXT_ROLES) - set(_ADDED_ROLES))
    if shape not in ("mapping", "auto") and misplaced:
        raise InputError(
            "columns of prompts and answers are mapped only in the shape mapping",
            field=f"columns.{min(misplaced)}",
            value=columns[min(misplaced)],
            remedy=f"Set `shape: mapping`, or leave it out (here: shape {shape}).",
        )
    for name, role in source.roles.items():
        if role not in ROLES:
            raise InputError(
                "no such role of a message",
                field=f"roles.{name}",
                value=role,
                remedy=f"Roles: {', '.join(ROLES)}.",
            )


def turn_keys(source: PoolSource) -> TurnKeys:
    """Which keys of turns the settings name; the usual ones where they name none."""
    speaker, content = source.turns.get("role"), source.turns.get("content")
    return TurnKeys(
        speaker=(speaker,) if speaker else SPEAKER_KEYS,
        content=(content,) if content else CONTENT_KEYS,
        roles={fold(name): role for name, role in source.roles.items()},
    )


def detect_shape(rows: Sequence[Row], source: PoolSource) -> str | None:
    """The shape in which most rows can be read; None when no row has any.

    Of equally frequent shapes the first in `BY_SHAPE` counts, so a row with messages and a text
    column is messages. Columns mapped to prompt or response make it a mapping. Raises InputError
    where rows are both messages and a preference, and the two say different things.
    """
    if {"prompt", "response"} & source.columns.keys():
        reader = RowReader(source, "mapping")
        return "mapping" if any(reader.has_shape(row) for row in rows) else None
    counts = {
        shape: sum(RowReader(source, shape).has_shape(row) for row in rows)
        for shape in BY_SHAPE
        if shape != "mapping"
    }
    best = max(counts, key=lambda shape: counts[shape])
    keys = turn_keys(source)
    n_message_rows = sum(is_message_row(row, keys) for row in rows)
    if not counts[best] and not n_message_rows:
        return None
    if n_message_rows >= counts[best]:
        return "message_rows"
    if counts["preference"] == counts[best] and best == "messages":
        _refuse_two_readings(rows, source)
        return "preference"
    return _sharegpt_or(best, rows)


def _sharegpt_or(shape: str, rows: Sequence[Row]) -> str:
    """`conversations` where turns say `from`; the same reader, by the name that people know."""
    for row in rows if shape == "messages" else ():
        value = row.get("conversations")
        if isinstance(value, list) and value and isinstance(value[0], dict) and "from" in value[0]:
            return "conversations"
    return shape


def _refuse_two_readings(rows: Sequence[Row], source: PoolSource) -> None:
    for row in rows:
        plain, chosen = (RowReader(source, s).read(row) for s in ("messages", "preference"))
        if isinstance(plain, Drop) or isinstance(chosen, Drop):
            continue
        last = plain[0].messages[-1] if plain[0].messages else {}
        if last.get("role") == "assistant" and plain[0].messages != chosen[0].messages:
            raise InputError(
                "rows can be read in two ways: as their messages, or as a prompt with its chosen"
                " answer, and these differ",
                file=source.path,
                field="shape",
                value=list(row),
                remedy="Set `shape: messages` or `shape: preference`.",
            )


class RowReader:
    """Reads rows in one shape; with the shape auto, a row in another one is read in that.

    shapes: how many rows were read in each shape.
    """

    def __init__(self, source: PoolSource, shape: str) -> None:
        """Prepare for rows of a file in a shape of `SHAPES`."""
        self.shape, self.shapes = shape, Counter[str]()
        self._source, self._keys = source, turn_keys(source)
        self._others = (
            tuple(other for other in _GUESSED if other != shape)
            if source.shape == "auto" and shape != "mapping"
            else ()
        )

    def has_shape(self, row: Row) -> bool:
        """Whether the row has this shape, be it that something in it cannot be read."""
        try:
            self._conversations(Cells(row, self._keys), self.shape)
        except RowProblem as error:
            return error.drop.reason != DropReason.NOT_RECOGNIZED
        return True

    def read(self, row: Row) -> list[Example] | Drop:
        """The examples of a row, each once; one for nearly every shape. Else why there is none."""
        shape, result = self.shape, self._read_in(row, self.shape)
        if _is_strange(result):
            for other in self._others:
                in_other = self._read_in(row, other)
                if not _is_strange(in_other):
                    shape, result = other, in_other
                    break
        if not isinstance(result, Drop):
            self.shapes[shape] += 1
        return result

    def read_with_missing(
        self, row: Row, names: Iterable[str]
    ) -> tuple[list[Example] | Drop, set[str]]:
        """A row some of whose cells spell a missing value; also which of these were read as empty.

        A prompt or an answer that is missing so is a reason to drop the row.
        """
        result = self.read(row)
        if isinstance(result, Drop) or not (missing := result[0].used.intersection(names)):
            return result, set()
        filled = self._read_in({**row, **dict.fromkeys(missing)}, self.shape)
        if isinstance(filled, Drop) or _sides(filled[0]) != _sides(result[0]):
            detail = f"`{min(missing)}` is the literal {row[min(missing)]}"
            return Drop(DropReason.MISSING_VALUE, detail), set()
        return [replace(one, used=one.used | missing) for one in filled], set(missing)

    def _conversations(self, cells: Cells, shape: str) -> list[list[Message]]:
        shape = "messages" if shape in ("conversations", "message_rows") else shape
        return BY_SHAPE[shape](cells, self._source)

    def _read_in(self, row: Row, shape: str) -> list[Example] | Drop:
        cells = Cells(row, self._keys)
        try:
            conversations = self._conversations(cells, shape)
            conversations = [self._with_mapped(cells, turns) for turns in conversations]
            _refuse_typed(row, conversations)
            tools = None if shape == "text" else self._tools(cells)
            rejected = self._rejected(cells, shape)
        except RowProblem as error:
            return error.drop
        examples: dict[str, Example] = {}
        drop = Drop(DropReason.NO_TEXT)
        for messages in conversations:
            if media := media_in(row, messages):
                drop = Drop(DropReason.IMAGE_OR_AUDIO, media)
            elif any(says_something(message) for message in messages):
                unread = frozenset(key for m in messages if len(m) > 2 for key in m) - READ_KEYS
                example = Example(
                    messages,
                    tools,
                    count_characters(messages),
                    rejected,
                    frozenset(cells.used),
                    unread,
                )
                key = canonical_json(messages) if len(conversations) > 1 else ""
                examples.setdefault(key, example)
        return list(examples.values()) or drop

    def _with_mapped(self, cells: Cells, messages: list[Message]) -> list[Message]:
        """The messages with the mapped texts of the system and of the reasoning."""
        columns = self._source.columns
        if "reasoning" in columns and (text := self._mapped_text(cells, "reasoning")):
            for number in reversed(range(len(messages))):
                if messages[number]["role"] == "assistant":
                    messages = messages.copy()
                    messages[number] = {**messages[number], "reasoning_content": text}
                    break
        if "system" in columns and (text := self._mapped_text(cells, "system")):
            turn: Message = {"role": "system", "content": text}
            messages = messages if turn in messages else [turn, *messages]
        return messages

    def _mapped_text(self, cells: Cells, role: str) -> str:
        values = joined_cells(cells.row, self._source.columns[role], cells.used) or []
        for name, value in values:
            if not isinstance(value, str):
                raise not_text(name, value)
        return "\n".join(value for _, value in values if isinstance(value, str) and value)

    def _tools(self, cells: Cells) -> list[object] | None:
        holder = cells
        if not cells.first(("tools", "functions")):
            for name in ("body", "request", "input"):
                if isinstance(inner := cells.peek(name), dict):
                    holder = Cells(inner, self._keys)
                    break
        names = ("tools" if holder.has_column("tools") else "toolconfig", "functions")
        if tools := definitions(*map(holder.peek, names)):
            holder.take(names[0]), holder.take(names[1])
        return tools

    def _rejected(self, cells: Cells, shape: str) -> list[Message] | None:
        if shape == "preference":
            return prompt_and_side(cells, self._source, REJECTED)
        if shape == "mapping" and (expression := self._source.columns.get("rejected")):
            values = joined_cells(cells.row, expression, cells.used) or []
            return [
                turn
                for name, value in values
                for turn in side(value, "assistant", name, self._keys, self._source.answers)
            ]
        return None


def _refuse_typed(row: Row, conversations: list[list[Message]]) -> None:
    """Raise RowProblem for a content that a table holds as a date or a decimal."""
    for content in (m["content"] for messages in conversations for m in messages):
        if isinstance(content, Typed):
            name = next((name for name, value in row.items() if value is content), "content")
            raise not_text(name, content)


def _is_strange(result: list[Example] | Drop) -> bool:
    return isinstance(result, Drop) and result.reason == DropReason.NOT_RECOGNIZED


def _sides(example: Example) -> set[object]:
    return {message["role"] for message in example.messages} - {"system"}
