"""Messages in the one form that chat templates expect, and a simpler form for those that refuse."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from selection.core.hashing import canonical_json
from selection.core.json_text import decoded

Message = dict[str, Any]
Tools = Sequence[Mapping[str, Any]]

_ROLES = {"function": "tool", "developer": "system"}  # Names that few templates know.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def normalize_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages with text contents, parsed tool calls and one name for reasoning.

    Contents given as lists of parts become their joined texts, as templates join them; a missing
    content becomes "". Arguments of tool calls given as a JSON string become the object, which is
    what templates serialize. Keys without a value are left out, all others are kept.
    """
    return [_normalize(message) for message in messages]


def _normalize(message: Mapping[str, Any]) -> Message:
    if len(message) == 2 and type(message.get("content")) is str and "role" in message:
        role = str(message["role"])  # The usual case, several hundred thousand times.
        return {"role": _ROLES.get(role, role), "content": message["content"]}
    clean = {key: value for key, value in message.items() if value is not None}
    role = str(clean.get("role", "user"))
    clean["role"] = _ROLES.get(role, role)
    clean["content"] = _text(clean.get("content"))
    reasoning = next((_text(clean[key]) for key in _REASONING if clean.get(key)), "")
    for key in _REASONING:
        clean.pop(key, None)
    if reasoning:
        clean["reasoning_content"] = clean["thinking"] = reasoning
    calls = clean.pop("tool_calls", None) or []
    if isinstance(clean.get("function_call"), dict):
        calls = [*calls, {"type": "function", "function": clean.pop("function_call")}]
    calls = [_call(call) for call in calls if isinstance(call, dict)]
    return {**clean, "tool_calls": calls} if calls else clean


def _text(content: object) -> str:
    """Text of a content: a string, a list of parts, or data, which is written as JSON."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(_part_text(part) for part in content)
    return canonical_json(content)


def _part_text(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call as {"type": "function", "function": {"name", "arguments"}, ...}."""
    inner = call.get("function")
    if not isinstance(inner, dict):
        inner = {key: call[key] for key in ("name", "arguments") if key in call}
        call = {key: value for key, value in call.items() if key not in inner}
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    function = {
        **inner,
        "name": str(inner.get("name") or ""),
        "arguments": {} if arguments is None else arguments,
    }
    return {"type": "function", **call, "function": function}


def _parsed(text: str) -> object:
    """The JSON object that a string holds, or the string itself."""
    try:
        value = decoded(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def write_arguments(messages: Sequence[Message]) -> list[Message]:
    """Arguments of tool calls as JSON text, for templates that do not serialize them."""
    return [
        {**message, "tool_calls": [_with_text_arguments(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function, arguments = call["function"], call["function"]["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def simplify_messages(messages: Sequence[Message]) -> list[Message]:
    """User and assistant turns that alternate: what even strict templates render.

    System texts are put before the next user turn, tool results become user turns, tool calls
    become JSON after the content, and turns of the same role are joined by an empty line. A
    conversation that starts with the assistant gets an empty user turn first.
    """
    turns: list[Message] = []
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        calls = [call["function"] for call in message.get("tool_calls", [])]
        texts = [message.get("reasoning_content", ""), message["content"]]
        texts += [json.dumps(call, ensure_ascii=False) for call in calls]
        content = "\n".join(text for text in texts if text)
        if turns and turns[-1]["role"] == role:
            both = (turns[-1]["content"], content)
            turns[-1]["content"] = "\n\n".join(text for text in both if text)
        else:
            turns.append({"role": role, "content": content})
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": ""})
    return turns


def plain_text(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> str:
    """Names and descriptions of the tools, then the turns, joined by newlines; roles are left out.

    messages: as in POOL_SCHEMA, parsed. A turn is its reasoning, its text, and its tool calls as
    name and arguments. Empty turns leave no empty line.
    """
    lines = [*(_tool_line(tool) for tool in tools or ()), *turn_texts(messages)]
    return "\n".join(line for line in lines if line)


def turn_texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """One text per message: reasoning, text and tool calls, joined by newlines; empty ones stay."""
    texts = []
    for message in normalize_messages(messages):
        lines = [message.get("reasoning_content", ""), message["content"]]
        lines += [_call_line(call["function"]) for call in message.get("tool_calls", ())]
        texts.append("\n".join(line for line in lines if line))
    return texts


def _call_line(function: Mapping[str, Any]) -> str:
    """Name and arguments of a tool call."""
    arguments = function["arguments"]
    shown = arguments if isinstance(arguments, str) else canonical_json(arguments)
    return f"{function['name']} {shown}"


def _tool_line(tool: Mapping[str, Any]) -> str:
    """Name and description of one tool; OpenAI nests both under `function`."""
    nested = tool.get("function")
    definition = nested if isinstance(nested, Mapping) else tool
    return " ".join(str(definition[key]) for key in ("name", "description") if definition.get(key))
