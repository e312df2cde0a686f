import json
from typing import Any

import pytest

from selection.core.hashing import example_id
from selection.data.messages.problems import Drop, Example
from selection.data.shapes import read_row
from selection.data.shapes.columns import ColumnKinds, joined_cells, kind_of, role_text
from selection.data.shapes.read_row import RowReader
from selection.records import DropReason, PoolSource

USER: dict[str, object] = {"role": "user", "content": "Hi"}
ASSISTANT: dict[str, object] = {"role": "assistant", "content": "Hello"}
CALL = {"name": "add", "arguments": {"a": 1}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def detect_shape(rows: list[dict[str, Any]], **settings: Any) -> str | None:
    return read_row.detect_shape(rows, PoolSource("pool.jsonl", **settings))


def read(row: dict[str, Any], shape: str | None = None, **columns: str) -> Example:
    """The example of a row, in the shape that is detected for it unless one is named."""
    shape = shape or detect_shape([row], columns=columns)
    assert shape is not None
    source = PoolSource("pool.jsonl", shape=shape, columns=columns)
    examples = RowReader(source, shape).read(row)
    assert not isinstance(examples, Drop), examples
    [example] = examples
    return example


def refused(row: dict[str, Any], shape: str = "messages", **columns: str) -> Drop:
    source = PoolSource("pool.jsonl", shape=shape, columns=columns)
    drop = RowReader(source, shape).read(row)
    assert isinstance(drop, Drop)
    return drop


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"messages": [USER, ASSISTANT]}, "messages"),
        ({"conversations": [USER, ASSISTANT], "text": "Hi"}, "messages"),
        ({"messages": json.dumps([USER, ASSISTANT])}, "messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
         "conversations"),
        ({"instruction": "Hi", "output": "Hello"}, "alpaca"),
        ({"instruction": "Hi", "context": "", "response": "Hello"}, "alpaca"),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt_completion"),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "prompt_completion"),
        ({"prompt": [USER], "completion": ASSISTANT, "text": "?"}, "prompt_completion"),
        ({"prompt": "Hi", "response": "Hello"}, "prompt_completion"),
        ({"inputs": "Hi", "targets": "Hello"}, "prompt_completion"),
    ],
)  # fmt: skip
def test_the_same_talk_in_every_shape_is_the_same_example(row: dict[str, Any], shape: str) -> None:
    assert detect_shape([row]) == shape
    assert read(row) == Example([USER, ASSISTANT], None, 7)


def test_a_text_is_one_assistant_message() -> None:
    assert detect_shape([{"text": "Once."}]) == "text"
    assert read({"text": "Once."}).messages == [{"role": "assistant", "content": "Once."}]


def test_nothing_is_detected_in_rows_without_known_columns() -> None:
    rows: list[dict[str, object]] = [
        {"headline": "x", "body": "y"},
        {"messages": "none"},
        {"messages": ["Hi"]},
        {},
    ]
    assert detect_shape(rows) is None


def test_the_shape_of_most_rows_counts() -> None:
    rows = [{"text": "a", "prompt": "p", "completion": "c"}, {"text": "b"}, {"text": "c"}]
    assert detect_shape(rows) == "text"
    assert detect_shape(rows[:1]) == "prompt_completion"


def test_messages_keep_everything_that_they_say() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?", "name": "ann"},
        {"role": "assistant", "content": None, "reasoning_content": "Use the tool.",
         "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "user", "content": [{"type": "text", "text": "ok"}, "fine"]},
    ]  # fmt: skip
    example = read({"messages": turns, "tools": [TOOL]})
    assert example.messages == turns
    assert example.tools == [TOOL]
    assert example.n_chars == len("Be brief." + "1 + 1?" + "2" + "ok\nfine")


def test_a_null_key_makes_no_other_example_but_null_content_stays() -> None:
    part = {"type": "text", "text": "Hi"}
    in_json = [{"role": "user", "content": [part]}, {"role": "assistant", "content": "Hello"}]
    in_parquet = [
        {"role": "user", "content": [part | {"image": None}], "tool_calls": None, "name": None},
        {"role": "assistant", "content": "Hello", "tool_calls": None, "name": None},
    ]
    ids = {example_id(read({"messages": turns}).messages) for turns in (in_json, in_parquet)}
    assert len(ids) == 1
    called = read({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": CALL}]}]})
    assert called.messages[1]["content"] is None


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), TOOL, json.dumps(TOOL)])
def test_tools_may_be_a_list_an_object_or_json(tools: object) -> None:
    assert read({"messages": [USER], "tools": tools}).tools == [TOOL]


@pytest.mark.parametrize("tools", [[], "", None, "[]"])
def test_no_tools_are_none(tools: object) -> None:
    assert read({"messages": [USER], "tools": tools}).tools is None


def test_sharegpt_speakers_become_roles() -> None:
    row = {
        "system": "Be brief.",
        "tools": json.dumps([TOOL]),
        "conversations": [
            {"from": "human", "value": "1 + 1?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "Two.", "weight": 1},
            {"from": "function_call", "value": "not JSON"},
        ],
    }
    example = read(row)
    assert example.tools == [TOOL]
    assert example.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None,
         "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two.", "weight": 1},
        {"role": "assistant", "content": "not JSON"},
    ]  # fmt: skip


def test_alpaca_joins_instruction_and_input_and_keeps_system_and_history() -> None:
    row = {"instruction": "Add.", "input": "1 + 2", "output": "3", "system": "Be brief.",
           "history": [["Hi", "Hello"]]}  # fmt: skip
    assert read(row).messages == [
        {"role": "system", "content": "Be brief."},
        USER,
        ASSISTANT,
        {"role": "user", "content": "Add.\n1 + 2"},
        {"role": "assistant", "content": "3"},
    ]


def test_lists_of_texts_that_are_no_turns_stay_unread() -> None:
    assert detect_shape([{"text": "Once.", "data": ["a", "b"]}]) == "text"
    assert detect_shape([{"prompt": "Hi", "response": "Hello", "turns": ["a", "b"]}]) == (
        "prompt_completion"
    )
    assert detect_shape([{"items": ["a", "b"]}]) is None
    assert read({"data": ["Hi", "Hello"]}).messages == [USER, ASSISTANT]


@pytest.mark.parametrize("tools", [repr([TOOL]), "[{'name': 'f', 'description': 'a \\d'}]"])
def test_tools_as_python_writes_them_are_read(tools: str) -> None:
    assert read({"messages": [USER], "tools": tools}).tools


def test_a_column_that_repeats_a_turn_is_no_second_system_text() -> None:
    row = {"instruction": " Hi ", "output": "Hello", "messages": [USER, ASSISTANT]}
    assert read(row).messages == [USER, ASSISTANT]
    row = {"system": "Rule.", "messages": [{"role": "system", "content": "Rule."}, USER]}
    assert [m["role"] for m in read(row).messages] == ["system", "user"]


def test_a_response_may_be_missing() -> None:
    for row in ({"instruction": "Hi"}, {"prompt": "Hi"}, {"instruction": "Hi", "output": ""}):
        assert read(row).messages == [USER]


@pytest.mark.parametrize(
    ("row", "shape", "detail"),
    [
        ({"text": "x"}, "messages", "no list of turns"),
        ({"messages": [USER, {"content": "x"}]}, "messages", "no list of turns"),
        ({"messages": [USER], "tools": "add(a, b)"}, "messages", "`tools`"),
        ({"instruction": ["x"]}, "alpaca", "instruction"),
        ({"instruction": "x", "history": ["y"]}, "alpaca", "`history`"),
        ({"prompt": "x", "chosen": "y"}, "text", "`text`"),
    ],
)
def test_a_row_in_another_shape_is_dropped_with_what_is_missing(
    row: dict[str, Any], shape: str, detail: str
) -> None:
    drop = refused(row, shape)
    assert drop.reason == DropReason.NOT_RECOGNIZED
    assert detail in drop.detail


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}, ASSISTANT]},
        {"messages": [{"role": "user", "content": "<image>What is it?"}], "images": ["a.png"]},
        {"messages": [USER], "image": {"bytes": {"n_bytes": 9}, "path": None}},
    ],
)
def test_images_and_audio_are_a_reason_to_drop(row: dict[str, Any]) -> None:
    assert refused(row).reason == DropReason.IMAGE_OR_AUDIO


def test_a_column_that_names_an_illustration_is_no_reason() -> None:
    assert read({"messages": [USER], "image": "https://example.org/a.png", "audio": None})


@pytest.mark.parametrize(
    "row",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": " \n"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": []}]},
    ],
)
def test_rows_without_text_are_dropped(row: dict[str, Any]) -> None:
    assert refused(row).reason == DropReason.NO_TEXT


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("a", "A"),
        ("a+b", "A\nB"),
        ("a + empty + b", "A\nB"),
        ("empty|b", "B"),
        ("a+empty|none|b", "A\nB"),
        ("none", ""),
        ("meta.title", "T"),
        ("x+y", "own name"),
    ],
)
def test_a_mapping_joins_and_falls_back(expression: str, text: str) -> None:
    row = {"a": "A", "b": "B", "empty": "", "none": None, "n": 3, "list": ["x"],
           "meta": {"title": "T"}, "x+y": "own name"}  # fmt: skip
    cells = joined_cells(row, expression) or []
    assert "\n".join(str(value) for _, value in cells) == text


def test_a_mapping_makes_messages_of_its_columns() -> None:
    row = {"rule": "Be brief.", "input": "", "instruction": "Hi", "output": "Hello"}
    example = read(row, system="rule", prompt="input|instruction", response="output")
    assert example.messages == [{"role": "system", "content": "Be brief."}, USER, ASSISTANT]
    other = refused({"text": "x"}, "mapping", prompt="input|instruction")
    assert other.reason == DropReason.NOT_RECOGNIZED


def test_roles_are_text_and_own_names_play_unasked() -> None:
    row = {"id": 7, "license": "MIT", "language": ["en"], "meta": {"url": "u"}, "empty": "",
           "target": "t", "licence": "unmapped"}  # fmt: skip
    columns = {"licence": "license", "language": "language", "source": "meta.url"}
    found = {r: role_text(row, r, columns) for r in ("id", "target", *columns, "group", "subtask")}
    assert found == {"id": "7", "target": "t", "licence": "MIT", "language": '["en"]',
                     "source": "u", "group": None, "subtask": None}  # fmt: skip
    assert role_text(row, "licence", {}) == "unmapped"
    assert role_text(row, "group", {"group": "empty"}) is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [("", "empty_text"), ("a", "text"), ("007", "text"), ("1e", "text"), ("-1.5e3", "number_text"),
     ("0", "number_text"), (True, "boolean"), (3, "integer"), (2**63, "number"), (0.5, "number"),
     ([], "nested"), ({}, "nested")],
)  # fmt: skip
def test_kinds_of_values(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def test_kinds_do_not_depend_on_how_rows_are_cut_into_batches() -> None:
    rows: list[dict[str, object]] = [{"a": 1}, {"a": None, "b": "x"}, {"b": 2.5}, {"a": "1"}]
    whole, parts = ColumnKinds(), [ColumnKinds(), ColumnKinds()]
    for number, row in enumerate(rows):
        whole.add(row)
        parts[number % 2].add(row)
    parts[0].merge(parts[1])
    expected = {"a": {"integer": 1, "number_text": 1}, "b": {"number": 1, "text": 1}}
    assert whole.to_dict() == parts[0].to_dict() == expected
