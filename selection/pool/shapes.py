"""Shapes of instruction data: raw row in, example (messages and tools) or a reason out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selection.errors import InputError
from selection.pool.columns import TEXT_ROLES, Row, as_text, joined_text, lookup, names_in
from selection.pool.turns import (
    Message,
    as_list,
    count_characters,
    from_openai,
    from_sharegpt,
    has_text,
    is_well_formed,
    media_in,
    text_turn,
)
from selection.records import DropReason

SHAPES = ("messages", "conversations", "alpaca", "prompt_completion", "text", "mapping")
"""In order of preference where a row could be read in several ways."""

_TURN_COLUMNS = ("messages", "conversations", "conversation")
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("inputs", "targets"))


@dataclass(frozen=True, slots=True)
class Example:
    """What a row says, in the one form that everything after reading knows.

    messages: list of {role, content, ...}; content is a text, a list of parts, or null.
    tools:    list of tool definitions, or None.
    n_chars:  characters of text in the contents.
    """

    messages: list[Message]
    tools: list[object] | None
    n_chars: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a row is no example; `detail` is for people."""

    reason: DropReason
    detail: str = ""


class NotThisShape(ValueError):
    """A row does not have the shape it is read in; `str()` says what is missing."""


def check_shape(shape: str, columns: Mapping[str, str]) -> None:
    """Refuse an unknown shape, or a mapping that maps no text. Raises InputError."""
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
    if shape not in ("mapping", "auto") and (misplaced := columns.keys() & set(TEXT_ROLES)):
        raise InputError(
            "columns of text are mapped only in the shape mapping",
            field=f"columns.{min(misplaced)}",
            value=columns[min(misplaced)],
            remedy=f"Set `shape: mapping`, or leave it out (found: shape {shape}).",
        )


def detect_shape(rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> str | None:
    """The shape in which most rows can be read; None when no row has any.

    Of equally frequent shapes the first in `SHAPES` counts, so a row with messages and a text
    column is messages. Columns mapped to prompt or response make it a mapping.
    """
    if {"prompt", "response"} & (columns or {}).keys():
        return "mapping" if any(_has_shape(row, "mapping", columns or {}) for row in rows) else None
    counts = {shape: sum(_has_shape(row, shape, {}) for row in rows) for shape in _READERS}
    best = max(counts, key=lambda shape: counts[shape])
    return best if counts[best] else None


def to_example(raw: Row, shape: str, columns: Mapping[str, str]) -> Example | Drop:
    """Read one row in a shape.

    A bare text has no roles: it becomes one assistant message, because a model that trains on it
    learns to write it, and it then counts as a response. An instruction and its input are joined by
    a newline. `columns` matters for the shape mapping only.
    """
    try:
        messages = _read(raw, shape, columns)
        tools = _tools(raw) if shape in ("messages", "conversations", "prompt_completion") else None
    except NotThisShape as error:
        return Drop(DropReason.NOT_RECOGNIZED, str(error))
    if media := media_in(raw, messages):
        return Drop(DropReason.IMAGE_OR_AUDIO, media)
    if not has_text(messages):
        return Drop(DropReason.NO_TEXT)
    return Example(messages, tools, count_characters(messages))


def _read(raw: Row, shape: str, columns: Mapping[str, str]) -> list[Message]:
    if shape == "mapping":
        return _mapping(raw, columns)
    messages = _READERS[shape](raw)
    for number, message in enumerate(messages, 1):
        if not is_well_formed(message):
            raise NotThisShape(f"message {number} has no role, or content that is not text")
    return messages


def _has_shape(row: Row, shape: str, columns: Mapping[str, str]) -> bool:
    try:
        _read(row, shape, columns)
    except NotThisShape:
        return False
    return True


def _messages(raw: Row) -> list[Message]:
    return [from_openai(turn) for turn in _turns(raw, "role")]


def _conversations(raw: Row) -> list[Message]:
    messages = [from_sharegpt(turn) for turn in _turns(raw, "from")]
    system = raw.get("system")
    if isinstance(system, str) and system and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, text_turn("system", system))
    return messages


def _turns(raw: Row, speaker: str) -> list[dict[str, object]]:
    """The turns of a row, each an object that says who speaks in the key `speaker`."""
    for name in _TURN_COLUMNS:
        values = as_list(raw.get(name))
        if values is None:
            continue
        turns = [value for value in values if isinstance(value, dict) and speaker in value]
        if len(turns) == len(values) and (turns or name == "messages"):
            return turns
    raise NotThisShape(f"no list of turns with `{speaker}` in {', '.join(_TURN_COLUMNS)}")


def _alpaca(raw: Row) -> list[Message]:
    """instruction, input (or context), output (or response), system, history of pairs."""
    if not isinstance(raw.get("instruction"), str):
        raise NotThisShape("no text in `instruction`")
    messages = _system(raw.get("system"))
    for pair in as_list(raw.get("history")) or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise NotThisShape("`history` is not a list of pairs")
        messages += [text_turn("user", as_text(pair[0])), text_turn("assistant", as_text(pair[1]))]
    parts = [as_text(raw["instruction"]), as_text(_either(raw, "input", "context"))]
    prompt = "\n".join(part for part in parts if part)
    return messages + _pair(prompt, as_text(_either(raw, "output", "response")))


def _prompt_completion(raw: Row) -> list[Message]:
    """Each side a text, one message or a list of messages; the prompt may stand alone."""
    for prompt_name, completion_name in _PAIRS:
        prompt, completion = raw.get(prompt_name), raw.get(completion_name)
        if prompt is not None and (completion is not None or completion_name == "response"):
            return _side(prompt, "user") + _side(completion, "assistant")
    raise NotThisShape("no `prompt` with `completion`")


def _side(value: object, role: str) -> list[Message]:
    if value is None or value == "":
        return []
    turns = [value] if isinstance(value, dict) else as_list(value)
    if turns and all(isinstance(turn, dict) and "role" in turn for turn in turns):
        return [from_openai(turn) for turn in turns if isinstance(turn, dict)]
    if isinstance(value, str):
        return [text_turn(role, value)]
    raise NotThisShape(f"the {role}'s side is neither a text nor messages")


def _text(raw: Row) -> list[Message]:
    if not isinstance(raw.get("text"), str):
        raise NotThisShape("no text in `text`")
    return [text_turn("assistant", as_text(raw["text"]))]


def _mapping(raw: Row, columns: Mapping[str, str]) -> list[Message]:
    texts = {role: columns[role] for role in TEXT_ROLES if role in columns}
    if all(lookup(raw, name) is None for _, name in names_in(texts)):
        raise NotThisShape(f"nothing in {', '.join(texts.values())}")
    found = {role: joined_text(raw, expression) for role, expression in texts.items()}
    return _system(found.get("system")) + _pair(found.get("prompt", ""), found.get("response", ""))


def _system(text: object) -> list[Message]:
    return [text_turn("system", text)] if isinstance(text, str) and text else []


def _pair(prompt: str, response: str) -> list[Message]:
    sides = (("user", prompt), ("assistant", response))
    return [text_turn(role, text) for role, text in sides if text]


def _either(raw: Row, first: str, second: str) -> object:
    return raw[first] if raw.get(first) is not None else raw.get(second)


def _tools(raw: Row) -> list[object] | None:
    """The tool definitions of a row: a list, one object, or either as JSON text."""
    value = raw.get("tools")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            raise NotThisShape("`tools` is a text that is not JSON") from None
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) and value else None


_READERS: dict[str, Callable[[Row], list[Message]]] = {
    "messages": _messages,
    "conversations": _conversations,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _text,
}
