"""Contents made of blocks: thoughts, tool calls and results, as Anthropic and Gemini write them."""

from selection.core.hashing import canonical_json
from selection.data.messages.problems import Message, RowProblem, kind_with_article, not_text
from selection.data.messages.tools import call
from selection.records import DropReason

_CALLS = ("functionCall", "function_call", "toolUse")
_RESULTS = ("functionResponse", "function_response", "toolResult")
_THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
MEDIA_KEYS = ("inlineData", "inline_data", "fileData", "file_data")
MEDIA_WORDS = ("image", "audio", "video")
BLOCK_KEYS = (*_CALLS, *_RESULTS, *MEDIA_KEYS, "reasoningContent")
"""Keys by which a part without a type is known."""

_TEXT_TYPES = ("text", "input_text", "output_text", "refusal", "")


def has_blocks(parts: list[object]) -> bool:
    """Whether any part is more than text: a thought, a call, a result, a file."""
    return any(isinstance(part, dict) and _kind(part) != "text" for part in parts)


def messages_of_blocks(parts: list[object], role: str, rest: Message) -> list[Message]:
    """Messages of a content of blocks, in their order.

    Thoughts become `reasoning_content`, calls `tool_calls`, and every result a message of the role
    tool. Text after a call, and a thought after text, begin a new message, so that the order stays.
    Image, audio and video stay as parts. Raises RowProblem for a block of an unknown type.
    """
    messages: list[Message] = []
    current = _Open(role, rest)
    for part in parts:
        kind = _kind(part) if isinstance(part, dict) else "text"
        if kind == "result" and isinstance(part, dict):
            messages += current.closed()
            messages.append(_result(part))
            current = _Open(role, {})
            continue
        if current.is_closed_by(kind):
            messages += current.closed()
            current = _Open(role, {})
        current.add(part, kind)
    messages += current.closed()
    return messages or [{"role": role, "content": None, **rest}]


class _Open:
    """A message to which parts are added."""

    def __init__(self, role: str, rest: Message) -> None:
        """Nothing is said yet."""
        self._role, self._rest = role, rest
        self._texts: list[object] = []
        self._thoughts: list[str] = []
        self._calls: list[object] = []

    def is_closed_by(self, kind: str) -> bool:
        """Whether a part of this kind begins a new message."""
        after_call = bool(self._calls) and kind in ("text", "thought", "media")
        return after_call or (bool(self._texts) and kind == "thought")

    def add(self, part: object, kind: str) -> None:
        """Add one part."""
        if kind == "call" and isinstance(part, dict):
            self._calls.append(_call(part))
        elif kind == "thought" and isinstance(part, dict):
            self._thoughts.append(_thought(part))
        else:
            self._texts.append(part)

    def closed(self) -> list[Message]:
        """The message, if it says anything."""
        message: Message = {"role": self._role, "content": self._texts or None, **self._rest}
        if self._thoughts:
            message["reasoning_content"] = "\n".join(self._thoughts)
        if self._calls:
            given = message.get("tool_calls")
            message["tool_calls"] = (given if isinstance(given, list) else []) + self._calls
        return [message] if self._texts or self._thoughts or self._calls or self._rest else []


def _kind(part: Message) -> str:
    """text, thought, call, result or media. Raises RowProblem for anything else."""
    kind = str(part.get("type") or "")
    if kind in ("tool_use", "server_tool_use", "tool_call") or any(part.get(k) for k in _CALLS):
        return "call"
    if kind.endswith("tool_result") or any(part.get(key) for key in _RESULTS):
        return "result"
    if kind in _THOUGHTS or part.get("thought") is True or part.get("reasoningContent"):
        return "thought"
    if any(word in kind for word in MEDIA_WORDS) or any(part.get(key) for key in MEDIA_KEYS):
        return "media"
    if kind in _TEXT_TYPES or "text" in part:
        text = part.get("text")
        if text is not None and not isinstance(text, str):
            raise not_text("text", text)
        return "text"
    raise RowProblem(DropReason.NOT_TEXT, f"a part of the type `{kind}` holds no text")


def _call(part: Message) -> object:
    inner = next((part[key] for key in _CALLS if isinstance(part.get(key), dict)), part)
    assert isinstance(inner, dict)
    arguments = next((inner[k] for k in ("input", "args", "arguments") if k in inner), None)
    return call(inner.get("name"), arguments, inner.get("id") or inner.get("toolUseId"))


def _thought(part: Message) -> str:
    inner = part.get("reasoningContent")
    if isinstance(inner, dict) and isinstance(text := inner.get("reasoningText"), dict):
        part = text
    for key in ("thinking", "text", "reasoning", "data"):
        if isinstance(value := part.get(key), str):
            return value
        if isinstance(value, list):  # of parts, as Mistral writes it
            texts = [item.get("text") if isinstance(item, dict) else item for item in value]
            if all(isinstance(text, str) for text in texts):
                return "".join(text for text in texts if isinstance(text, str))
            raise not_text(key, value)
    return ""


def _result(part: Message) -> Message:
    """A message of the role tool."""
    inner = next((part[key] for key in _RESULTS if isinstance(part.get(key), dict)), None)
    if isinstance(inner, dict):
        value, name = inner.get("response", inner.get("content")), inner.get("name")
        call_id = inner.get("id") or inner.get("toolUseId")
    else:
        value, name = part.get("content"), part.get("name")
        call_id = part.get("tool_use_id") or part.get("tool_call_id")
    message: Message = {"role": "tool", "content": _result_content(value)}
    named = {"tool_call_id": call_id, "name": name, "is_error": part.get("is_error")}
    return message | {key: item for key, item in named.items() if item is not None}


def _result_content(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(x, dict) for x in value):
        if all("type" in x for x in value):
            return value
        if all(list(x) == ["text"] for x in value):
            return [{"type": "text", **x} for x in value]
    if isinstance(value, dict | list):
        return canonical_json(value)
    raise RowProblem(
        DropReason.NOT_TEXT, f"the result of a tool is {kind_with_article(value)}, not a text"
    )
