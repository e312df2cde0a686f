from selection.data.messages.normalize import plain_text


def test_turns_are_joined_by_newlines_without_roles() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello\nthere"},
    ]
    assert plain_text(messages) == "Be brief.\nHi\nHello\nthere"


def test_parts_reasoning_calls_and_tools_are_part_of_the_text() -> None:
    add = {"name": "add", "arguments": {"b": 2, "a": 1}}
    bare = [{"name": "sub", "arguments": '{"a": 1}'}, {"name": "now"}]
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages: list[dict[str, object]] = [
        {"role": "user", "content": parts},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "think",
            "tool_calls": [{"id": "1", "type": "function", "function": add}],
        },
        {"role": "assistant", "tool_calls": bare},
        {"role": "tool", "content": "3"},
    ]
    tools: list[dict[str, object]] = [
        {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}},
        {"name": "sub"},
    ]
    assert plain_text(messages, tools).split("\n") == [
        "add Adds.",
        "sub",
        "one two",
        "think",
        'add {"a":1,"b":2}',
        'sub {"a":1}',
        "now {}",
        "3",
    ]


def test_nothing_said_is_empty_text() -> None:
    assert plain_text([]) == ""
    assert plain_text([{"role": "user", "content": ""}, {"role": "assistant"}]) == ""
