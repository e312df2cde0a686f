"""Rows for LLaMA-Factory: whole, in the order that its converter takes, or left out by name.

`python -m benchmarks.trainer_loaders` holds them to the converter itself.
"""

import json
from typing import Any

import pytest

from selection.data.messages.llama_factory import llama_factory_row

USER = {"role": "user", "content": "How deep?"}
ANSWER = {"role": "assistant", "content": "Two metres."}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}


def row_of(*messages: dict[str, Any], tools: list[Any] | None = None) -> dict[str, Any]:
    row = llama_factory_row("a" * 32, messages, tools)
    assert not isinstance(row, str), row
    return row


def test_every_key_is_there_and_a_text() -> None:
    row = row_of(USER, ANSWER)
    assert row["conversations"] == [
        {"from": "human", "value": "How deep?"},
        {"from": "gpt", "value": "Two metres."},
    ]
    assert (row["id"], row["system"], row["tools"]) == ("a" * 32, "", "")


def test_calls_results_and_tools_come_whole() -> None:
    tool = {"type": "function", "function": {"name": "sound", "parameters": {"type": "object"}}}
    calls = [call("sound", at=1), call("sound", at=2)]
    row = row_of(
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "Metres."},
        USER,
        {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "Ask."},
        {"role": "tool", "content": "2"},
        {"role": "function", "content": [{"type": "text", "text": "3"}]},
        ANSWER,
        tools=[tool],
    )
    assert row["system"] == "Be brief.\n\nMetres."
    assert json.loads(row["tools"]) == [tool]
    human, calling, observation, gpt = row["conversations"]
    assert [t["from"] for t in row["conversations"]][1:3] == ["function_call", "observation"]
    thought, written = calling["value"].split("\n</think>\n\n")
    assert thought == "<think>\nAsk."
    assert json.loads(written) == [{"name": "sound", "arguments": {"at": n}} for n in (1, 2)]
    assert observation["value"] == "2\n3"
    assert (human["value"], gpt["value"]) == ("How deep?", "Two metres.")


def test_a_text_before_a_call_stays() -> None:
    message = {"role": "assistant", "content": "I look.", "tool_calls": [call("sound", at=1)]}
    row = row_of(USER, message, {"role": "tool", "content": "2"}, ANSWER)
    value = row["conversations"][1]["value"]
    assert value == (
        'I look.\n<tool_call>\n[{"name": "sound", "arguments": {"at": 1}}]\n</tool_call>'
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([USER, USER, ANSWER], "two turns of one side in a row"),
        ([USER, ANSWER, ANSWER, USER], "two turns of one side in a row"),
        ([ANSWER], "it does not begin with the user"),
        ([{"role": "system", "content": "S"}], "it does not begin with the user"),
        ([USER, ANSWER, USER], "it does not end with the assistant"),
        ([USER, {**ANSWER, "weight": 0}, USER, ANSWER], "a turn of weight 0, which would be lear"),
        ([USER, {"role": "system", "content": "S"}, ANSWER], "a system text after the first turn"),
    ],
)
def test_what_would_be_passed_over_is_named(messages: list[dict[str, Any]], reason: str) -> None:
    row = llama_factory_row("a" * 32, messages, None)
    assert isinstance(row, str)
    assert row.startswith(reason)
