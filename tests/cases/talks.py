"""Conversations that the cases are written from, in a form of their own: what must come out.

A turn is a dict: role, text, and where it has them thought, calls (name, arguments) and result_of.
"""

from typing import Any

Turn = dict[str, Any]
Talk = list[Turn]

_THINGS = ("kettle", "bicycle", "violin", "ladder", "compass", "lantern", "anvil", "sundial")


def user(text: str) -> Turn:
    return {"role": "user", "text": text}


def assistant(text: str | None, **more: Any) -> Turn:
    return {"role": "assistant", "text": text or "", **more}


def system(text: str) -> Turn:
    return {"role": "system", "text": text}


def question(i: int) -> str:
    return f"How would you mend a {_THINGS[i % len(_THINGS)]} with {i + 2} broken parts?"


def answer(i: int) -> str:
    return (
        f"Lay the {i + 2} parts of the {_THINGS[i % len(_THINGS)]} side by side, glue the small"
        f" ones first, and wait {i + 1} hours."
    )


def pairs(start: int, n: int = 6) -> list[Talk]:
    """Talks of one question and one answer; those of different starts have nothing in common."""
    return [[user(question(i)), assistant(answer(i))] for i in range(start, start + n)]


def longer(start: int, n: int = 6) -> list[Talk]:
    """Talks of a system text and two exchanges."""
    return [
        [
            system(f"You work in repair shop {i}."),
            user(question(i)),
            assistant(answer(i)),
            user(f"And in winter, {i} degrees below zero?"),
            assistant(f"Then warm the glue for {i} minutes."),
        ]
        for i in range(start, start + n)
    ]


def with_tools(start: int, n: int = 6) -> tuple[list[Talk], list[list[Turn]]]:
    """Talks that call one of two tools with different arguments, and the tools of each."""
    talks, tools = [], []
    for i in range(start, start + n):
        name, arguments = ("weigh", {"grams": i}) if i % 2 else ("paint", {"color": "red", "n": i})
        talks.append(
            [
                user(question(i)),
                assistant(None, thought=f"Part {i} matters.", calls=[(name, arguments)]),
                {"role": "tool", "text": f"{name} done, {i} left"},
                assistant(answer(i)),
            ]
        )
        parameters = {key: {"type": type(value).__name__} for key, value in arguments.items()}
        tools.append([{"name": name, "description": f"To {name}.",
                       "parameters": {"type": "object", "properties": parameters}}])  # fmt: skip
    return talks, tools


def openai_turn(turn: Turn) -> Turn:
    """A turn as chat trainers write it."""
    message = {"role": turn["role"], "content": turn["text"]}
    if "thought" in turn:
        message["reasoning_content"] = turn["thought"]
    if "calls" in turn:
        message["tool_calls"] = [
            {"id": f"c{k}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for k, (name, arguments) in enumerate(turn["calls"])
        ]
    return message


def openai(talk: Talk) -> list[Turn]:
    return [openai_turn(turn) for turn in talk]


def flat(messages: list[Turn], tools: list[Turn] | None) -> tuple[Any, ...]:
    """What an exported row says, read without any of the product's code; comparable and sorted."""
    turns = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part if isinstance(part, str) else part["text"] for part in content)
        thought = message.get("reasoning_content") or message.get("thinking") or ""
        calls = tuple(_call(call["function"]) for call in message.get("tool_calls") or [])
        turns.append((message["role"], content or "", thought, calls))
    named = sorted(_plain(tool.get("function", tool)) for tool in tools or [])
    return tuple(turns), tuple(named)


def expected(talk: Talk, tools: list[Turn] | None = None) -> tuple[Any, ...]:
    """What `flat` must give for a talk."""
    turns = tuple(
        (
            turn["role"],
            turn["text"],
            turn.get("thought", ""),
            tuple((name, _plain(arguments)) for name, arguments in turn.get("calls", ())),
        )
        for turn in talk
    )
    return turns, tuple(sorted(_plain(tool) for tool in tools or []))


def _call(function: Turn) -> tuple[str, str]:
    arguments = function["arguments"]
    if isinstance(arguments, str):
        import json

        arguments = json.loads(arguments)
    return function["name"], _plain(arguments)


def _plain(value: Any) -> str:
    """A value with its keys in order, those that are null left out."""
    if isinstance(value, dict):
        items = sorted((key, _plain(item)) for key, item in value.items() if item is not None)
        return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return repr(value)
