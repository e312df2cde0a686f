"""Messages as LLaMA-Factory's ShareGPT data has them, checked by the rules of its converter."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from selection.data.messages.contents import is_trained_on
from selection.data.messages.normalize import Message, normalize_messages

Row = dict[str, Any]

_ASKS, _ANSWERS = ("human", "observation"), ("gpt", "function_call")


def llama_factory_row(
    example_id: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
) -> Row | str:
    """{id, conversations, system, tools}, all of them texts; or why the row would not train.

    LLaMA-Factory (0.9.5) takes one system text, then turns of user or tool and of the assistant in
    alternation, and passes over any other row. It knows no weights of turns. Results of tools that
    follow each other become one turn. Reasoning stands before the answer in the marks that its
    templates know, and so do calls that a text comes before; templates of its kind `llama2`
    (mistral among them) know neither, and stop at such a row.
    """
    turns = normalize_messages(messages)
    if any(turn["role"] == "assistant" and not is_trained_on(turn) for turn in turns):
        return "a turn of weight 0, which would be learned"
    n_system = next((n for n, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    conversation: list[dict[str, str]] = []
    for turn in turns[n_system:]:
        written = _turn(turn)
        before = conversation[-1]["from"] if conversation else ""
        if written["from"] == before == "observation":
            conversation[-1]["value"] += "\n" + written["value"]
        else:
            conversation.append(written)
    if problem := _problem([turn["from"] for turn in conversation]):
        return problem
    return {
        "id": example_id,
        "conversations": conversation,
        "system": "\n\n".join(turn["content"] for turn in turns[:n_system]),
        "tools": json.dumps(tools, ensure_ascii=False) if tools else "",
    }


def _turn(message: Message) -> dict[str, str]:
    role, text = message["role"], message["content"]
    if role != "assistant":
        return {"from": {"user": "human", "tool": "observation"}.get(role, role), "value": text}
    thought = message.get("reasoning_content", "")
    thought = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    functions = [call["function"] for call in message.get("tool_calls", ())]
    if not functions:
        return {"from": "gpt", "value": thought + text}
    calls = [{"name": one["name"], "arguments": one["arguments"]} for one in functions]
    written = json.dumps(calls, ensure_ascii=False)
    if text:
        written = f"{text}\n<tool_call>\n{written}\n</tool_call>"
    return {"from": "function_call", "value": thought + written}


def _problem(speakers: Sequence[str]) -> str:
    """Why the converter passes over turns of these speakers; "" where it does not."""
    if "system" in speakers:
        return "a system text after the first turn"
    if not speakers or speakers[0] not in _ASKS:
        return "it does not begin with the user"
    if any(name not in (_ASKS, _ANSWERS)[n % 2] for n, name in enumerate(speakers)):
        return "two turns of one side in a row"
    return "" if len(speakers) % 2 == 0 else "it does not end with the assistant"
