"""What messages say: their text, its length, and media that they need."""

from collections.abc import Iterable, Mapping, Sequence

from selection.data.messages.blocks import MEDIA_KEYS, MEDIA_WORDS
from selection.data.messages.names import REASONING_KEYS, WEIGHT_KEYS
from selection.data.messages.problems import Message

_MEDIA_COLUMNS = (
    "image", "images", "audio", "audios", "video", "videos", "image_path", "image_paths",
    "image_url", "image_file", "audio_path", "video_path",
)  # fmt: skip
_PLACEHOLDERS = ("<image>", "<audio>", "<video>")


def content_text(message: Mapping[str, object]) -> str:
    """The text of a message's content; text parts are joined by a newline."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content)
    return content if isinstance(content, str) else ""


def count_characters(messages: Sequence[Message]) -> int:
    """Characters of text in the contents of all messages: `n_chars`."""
    return sum(len(content_text(message)) for message in messages)


def says_something(message: Mapping[str, object]) -> bool:
    """Whether a message has text, a thought or a call of a tool."""
    return bool(
        content_text(message).strip()
        or message.get("tool_calls")
        or message.get("function_call")
        or any(str(message[key]).strip() for key in REASONING_KEYS if message.get(key))
    )


def is_trained_on(message: Mapping[str, object]) -> bool:
    """Whether a message may be learned: no key of its weight says 0 or false."""
    return not any(key in message and _is_zero(message[key]) for key in WEIGHT_KEYS)


def has_response(messages: Iterable[Mapping[str, object]]) -> bool:
    """Whether an assistant turn says something, and may be learned.

    A blank turn is no response. A thought or a tool call alone is one.
    """
    return any(
        message.get("role") == "assistant" and says_something(message) and is_trained_on(message)
        for message in messages
    )


def media_in(row: Mapping[str, object], messages: Sequence[Message]) -> str:
    """What image, audio or video an example needs, for people; "" when it is text alone.

    That is a part of a content, or a media column that holds bytes or that the text refers to by a
    placeholder such as <image>. A column that only names an illustration does not count.
    """
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if not isinstance(part, dict):
                continue
            kind = str(part.get("type", ""))
            if any(word in kind for word in MEDIA_WORDS):
                return f"a part of type {kind}"
            if any(key in part for key in MEDIA_KEYS):
                return "a part that is a file"
    columns = [name for name in _MEDIA_COLUMNS if row.get(name)]
    if columns:
        texts = [content_text(message) for message in messages]
        if any(_holds_bytes(row[name]) for name in columns):
            return f"column {columns[0]} holds a file"
        if any(word in text for text in texts for word in _PLACEHOLDERS):
            return f"the text refers to column {columns[0]}"
    return ""


def _part_text(part: object) -> str:
    if isinstance(part, dict):
        text = part.get("text", "")
        return text if isinstance(text, str) else ""
    return part if isinstance(part, str) else ""


def _is_zero(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("false", "0", "0.0", "no")
    return value is False or (isinstance(value, int | float) and value == 0)


def _holds_bytes(value: object) -> bool:
    """Whether a media cell holds a file: bytes as `jsonable` writes them, also inside."""
    if isinstance(value, dict):
        return "n_bytes" in value or any(_holds_bytes(item) for item in value.values())
    return isinstance(value, list) and any(_holds_bytes(item) for item in value)
