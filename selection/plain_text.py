"""An example as plain text: for lexical methods, reports and the catalog's text columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from selection.ids import canonical_json
from selection.messages import normalize_messages


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
