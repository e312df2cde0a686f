"""Messages as saelect keeps them: role, content, and whatever else a turn says, unchanged."""

import json
from collections.abc import Mapping, Sequence

Message = dict[str, object]

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
