import json
import logging
from pathlib import Path
from typing import Any

import pytest

from selection.core.errors import InputError
from selection.core.hashing import example_id
from selection.data.exemplars import read_exemplars
from selection.records import POOL_SCHEMA, PoolSource

ADD = {"instruction": "Add.", "input": "1 + 2", "output": "3", "id": "a-0", "license": "MIT"}
GREET = {"instruction": "Greet.", "input": "", "output": "Hi", "id": "g-0", "license": "CC0"}
TARGETS = [
    {"target": "math", "kind": "x", "exemplars": [ADD, ADD | {"id": "a-1", "input": "1 + 1"}]},
    {"target": "talk", "exemplars": [{"messages": [{"role": "user", "content": "Hi"}]}]},
]


def write(path: Path, rows: list[Any]) -> PoolSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PoolSource(str(path))


def refusal(source: PoolSource, targets: list[str] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read_exemplars(source, targets)
    return caught.value


def test_a_targets_file_gives_each_targets_rows_in_file_order(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", TARGETS)
    with pytest.raises(InputError, match="no column `licence`"):
        read_exemplars(PoolSource(source.path, columns={"licence": "licence"}))
    table = read_exemplars(PoolSource(source.path, columns={"licence": "license"}))
    assert table.schema == POOL_SCHEMA
    assert table["target"].to_pylist() == ["math", "math", "talk"]
    assert table["own_id"].to_pylist() == ["a-0", "a-1", None]
    assert table["row"].to_pylist() == [1, 1, 2]
    assert table["licence"].to_pylist() == ["MIT", "MIT", None]
    assert json.loads(table["raw"][0].as_py()) == ADD
    messages = [{"role": "user", "content": "Add.\n1 + 2"}, {"role": "assistant", "content": "3"}]
    assert table["example_id"][0].as_py() == example_id(messages)


def test_only_the_wanted_targets_are_given(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", TARGETS)
    assert read_exemplars(source, ["talk"])["target"].to_pylist() == ["talk"]
    error = refusal(source, ["math", "maths"])
    assert (error.field, error.value) == ("targets", "maths")
    assert "Targets in this file: math, talk." in error.remedy


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_plain_file_belongs_to_the_default_target_or_to_its_own(
    tmp_path: Path, suffix: str
) -> None:
    rows = [ADD, GREET | {"target": "talk", "subtask": "hello"}]
    path = tmp_path / f"e.{suffix}"
    path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    table = read_exemplars(PoolSource(str(path)), default_target="mine")
    assert table["target"].to_pylist() == ["mine", "talk"]
    assert table["subtask"].to_pylist() == [None, "hello"]
    assert table["own_id"].to_pylist() == ["a-0", "g-0"]
    only = read_exemplars(PoolSource(str(path)), ["talk"], "mine")
    assert only["own_id"].to_pylist() == ["g-0"]


def test_a_targets_file_in_one_line_named_json_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(TARGETS[0], indent=1))
    assert read_exemplars(PoolSource(str(path)))["target"].to_pylist() == ["math", "math"]


def test_a_mapping_holds_for_the_rows_of_a_targets_file(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [{"target": "t", "exemplars": [ADD, GREET]}])
    columns = {"prompt": "input|instruction", "response": "output"}
    table = read_exemplars(PoolSource(source.path, shape="mapping", columns=columns))
    prompts = [json.loads(text)[0]["content"] for text in table["messages"].to_pylist()]
    assert prompts == ["1 + 2", "Greet."]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"target": "t", "exemplars": []}], "line 1: `exemplars`: target t has no exemplars"),
        ([TARGETS[0], TARGETS[0]], "line 2: `target`: the target stands in two lines"),
        ([TARGETS[0], {"exemplars": [ADD]}], "line 2: `target`: a target needs a name"),
        ([TARGETS[0], {"target": "t", "exemplars": ["Hi"]}], "`exemplars[0]`: an exemplar must"),
        ([{"target": "t", "exemplars": [{"frage": 1}]}], "line 1: `shape`: no row among the first"),
        ([{"target": "t", "exemplars": [ADD, {"text": "x"}]}], "`exemplars[1]`: this exemplar"),
        ([{"target": "t", "exemplars": [{"text": " "}]}], "cannot be used: no text"),
        ([ADD, {"instruction": ""}], "line 2: this exemplar cannot be used: no text"),
        ([ADD, {"text": "x"}], "line 2: this exemplar cannot be used: not recognized"),
        ([{"frage": "x"}], "has one of the known shapes (found: ['frage'])"),
        ([], "the file is empty"),
    ],
)
def test_exemplars_that_cannot_be_used_are_refused(
    tmp_path: Path, rows: list[Any], words: str
) -> None:
    source = write(tmp_path / "e.jsonl", rows)
    error = refusal(source)
    assert words in str(error)
    assert source.path in str(error)


def test_a_broken_line_of_a_targets_file_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(TARGETS[0]) + "\n{oops\n")
    assert "line 2: broken row" in str(refusal(PoolSource(str(path))))


def test_no_wanted_target_is_no_exemplars(tmp_path: Path) -> None:
    assert "there are no exemplars" in str(refusal(write(tmp_path / "t.jsonl", TARGETS), []))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(PoolSource(str(tmp_path / "no.jsonl"))))


def test_copies_among_exemplars_are_kept_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "e.jsonl", [ADD, GREET, ADD | {"id": "again"}])
    with caplog.at_level(logging.WARNING):
        assert read_exemplars(source).num_rows == 3
    assert "1 exemplars are exact copies" in caplog.text
