"""Shapes of instruction data: raw row in, example (messages and tools) or a reason out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selection.core.errors import InputError
from selection.data.columns import TEXT_ROLES, Row, as_text, joined_text, lookup, names_in
from selection.records import DropReason

SHAPES = ("messages", "conversations", "alpaca", "prompt_completion", "text", "mapping")
"""In order of preference where a row could be read in several ways."""


_TURN_COLUMNS = ("messages", "conversations", "conversation")


_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("inputs", "targets"))


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


def _has_shape(row: Row, shape: str, columns: Mapping[str, str]) -> bool:
    try:
        _read(row, shape, columns)
    except NotThisShape:
        return False
    return True


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


Message = dict[str, object]


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


def _messages(raw: Row) -> list[Message]:
    return [from_openai(turn) for turn in _turns(raw, "role")]


def _conversations(raw: Row) -> list[Message]:
    messages = [from_sharegpt(turn) for turn in _turns(raw, "from")]
    system = raw.get("system")
    if isinstance(system, str) and system and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, text_turn("system", system))
    return messages


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


_READERS: dict[str, Callable[[Row], list[Message]]] = {
    "messages": _messages,
    "conversations": _conversations,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _text,
}


SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
"""Names of speakers in the wild -> roles of chat templates. An unknown name stays as it is."""


_CALLS = ("function_call", "tool_call")


_MEDIA_WORDS = ("image", "audio", "video")


_MEDIA_COLUMNS = ("image", "images", "audio", "audios", "video", "videos")


_PLACEHOLDERS = ("<image>", "<audio>", "<video>")


def text_turn(role: str, content: str) -> Message:
    """A plain message."""
    return {"role": role, "content": content}


def from_openai(turn: Mapping[str, object]) -> Message:
    """A turn with `role` and `content`. Keys that are null are left out, `content` is always there.

    Tables write null for every key that some other row has; without them the same message has the
    same id in JSONL and in Parquet.
    """
    role = turn["role"]
    message: Message = {"role": SPEAKERS.get(role.lower(), role) if isinstance(role, str) else role}
    message["content"] = _without_nulls(turn.get("content"))
    rest = {k: v for k, v in turn.items() if k not in ("role", "content") and v is not None}
    return message | rest


def from_sharegpt(turn: Mapping[str, object]) -> Message:
    """A turn with `from` and `value`; a function call that is JSON becomes `tool_calls`."""
    speaker, value = turn["from"], turn.get("value")
    name = speaker.lower() if isinstance(speaker, str) else ""
    role = SPEAKERS.get(name, speaker)
    rest = {k: v for k, v in turn.items() if k not in ("from", "value") and v is not None}
    if name in _CALLS and (calls := _tool_calls(value)):
        return {"role": "assistant", "content": None, "tool_calls": calls} | rest
    return {"role": role, "content": _without_nulls(value)} | rest


def is_well_formed(message: Message) -> bool:
    """Whether the role is a text, and the content a text, a list of parts, or null."""
    content = message["content"]
    if not isinstance(message["role"], str):
        return False
    if isinstance(content, list):
        return all(isinstance(part, str | dict) for part in content)
    return content is None or isinstance(content, str)


def content_text(message: Message) -> str:
    """The text of a message's content; text parts are joined by a newline."""
    content = message["content"]
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content)
    return content if isinstance(content, str) else ""


def count_characters(messages: Sequence[Message]) -> int:
    """Characters of text in the contents of all messages: `n_chars`."""
    return sum(len(content_text(message)) for message in messages)


def has_text(messages: Sequence[Message]) -> bool:
    """Whether any message says something: text, reasoning or a tool call."""
    return any(
        content_text(message).strip()
        or message.get("tool_calls")
        or message.get("function_call")
        or message.get("reasoning_content")
        for message in messages
    )


def media_in(row: Mapping[str, object], messages: Sequence[Message]) -> str:
    """What image, audio or video an example needs, for people; "" when it is text alone.

    That is a part of a content, or a media column that holds bytes or that the text refers to by a
    placeholder such as <image>. A column that only names an illustration does not count.
    """
    for message in messages:
        content = message["content"]
        for part in content if isinstance(content, list) else []:
            kind = str(part.get("type", "")) if isinstance(part, dict) else ""
            if any(word in kind for word in _MEDIA_WORDS):
                return f"a part of type {kind}"
    columns = [name for name in _MEDIA_COLUMNS if row.get(name)]
    if columns:
        texts = [content_text(message) for message in messages]
        if any(_holds_bytes(row[name]) for name in columns):
            return f"column {columns[0]} holds a file"
        if any(word in text for text in texts for word in _PLACEHOLDERS):
            return f"the text refers to column {columns[0]}"
    return ""


def as_list(value: object) -> list[object] | None:
    """A list, or the list that a text holds as JSON (as CSV files have it); else None."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


def _tool_calls(value: object) -> list[object]:
    """OpenAI tool calls of a function call written as JSON; empty when it is not one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    calls = value if isinstance(value, list) else [value]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [{"type": "function", "function": call} for call in calls]


def _without_nulls(content: object) -> object:
    """Parts of a content without their null keys; anything else as it is."""
    if not isinstance(content, list):
        return content
    return [
        {k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else part
        for part in content
    ]


def _part_text(part: object) -> str:
    if isinstance(part, dict):
        text = part.get("text", "")
        return text if isinstance(text, str) else ""
    return part if isinstance(part, str) else ""


def _holds_bytes(value: object) -> bool:
    """Whether a media cell holds a file: bytes as `jsonable` writes them, also inside."""
    if isinstance(value, dict):
        return "n_bytes" in value or any(_holds_bytes(item) for item in value.values())
    return isinstance(value, list) and any(_holds_bytes(item) for item in value)
