"""The same conversations have the same ids, whichever file they come in."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from selection.core.hashing import canonical_json
from selection.data.read import read_pool, read_rows
from selection.records import PoolSource
from tests.fuzz_cases import fuzz

texts = st.text(st.characters(codec="utf-8"), max_size=12)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | st.integers(-(2**40), 2**40),
        "x": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        "s": st.none() | texts,
        "items": st.none() | st.lists(st.integers(0, 9), max_size=3),
        "inner": st.none() | st.fixed_dictionaries({}, optional={"a": st.none() | texts}),
    },
)
calls = st.lists(
    st.builds(
        lambda name, values: {"type": "function", "function": {"name": name, "arguments": values}},
        st.sampled_from(["weigh", "paint"]), arguments,
    ), min_size=1, max_size=2,
)  # fmt: skip
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": texts}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none() | texts},
        optional={"tool_calls": st.none() | calls, "reasoning_content": st.none() | texts,
                  "weight": st.none() | st.integers(0, 1)},
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": texts, "name": texts}),
)  # fmt: skip
tools = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["weigh", "paint"])},
        optional={"description": st.none() | texts, "parameters": arguments},
    ), max_size=2,
)  # fmt: skip
rows = st.lists(
    st.fixed_dictionaries(
        {"messages": st.lists(messages, min_size=1, max_size=4)},
        optional={"tools": st.none() | tools, "system": st.none() | texts},
    ), min_size=1, max_size=4,
)  # fmt: skip

# Arrow has no objects without keys: one row that has them all gives every struct its fields.
_WHOLE: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "whole"},
        {"role": "assistant", "content": "", "reasoning_content": "r", "weight": 1, "name": "n",
         "tool_calls": [{"type": "function", "function": {"name": "weigh", "arguments": {
             "n": 1, "x": 0.5, "s": "s", "items": [1], "inner": {"a": "a"}}}}]},
    ],
    "tools": [{"name": "weigh", "description": "d", "parameters": {
        "n": 1, "x": 0.5, "s": "s", "items": [1], "inner": {"a": "a"}}}],
    "system": "s",
}  # fmt: skip


def shuffled(value: Any, order: random.Random) -> Any:
    """The same value with the keys of its objects in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, order)) for key, item in value.items()]
        return dict(order.sample(items, len(items)))
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


def ids(path: Path) -> list[str]:
    return [i for batch in read_pool(PoolSource(str(path), shape="messages"))
            for i in batch.rows["example_id"].to_pylist()]  # fmt: skip


@fuzz(0.05)
@given(made=rows, seed=st.integers(0, 99))
def test_every_container_gives_the_same_ids(
    tmp_path_factory: Any, made: list[dict[str, Any]], seed: int
) -> None:
    folder, made = tmp_path_factory.mktemp("same"), [_WHOLE, *made]
    lines = [json.dumps(row) for row in made]
    (folder / "a.jsonl").write_text("\n".join(lines))
    expected = ids(folder / "a.jsonl")

    mixed = [shuffled(row, random.Random(seed)) for row in made]
    (folder / "b.json").write_text(json.dumps(mixed, indent=1))
    (folder / "c.json").write_text(json.dumps({"data": mixed}), encoding="utf-16")
    with (folder / "d.csv").open("w", newline="") as file:
        names = ("messages", "tools", "system")
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in mixed:
            cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items() if v}
            # A cell that spells a missing value is one, in a format that has only texts.
            writer.writerow({name: cells.get(name, "") for name in names})
    table = pa.Table.from_pylist(made)
    pq.write_table(table, folder / "e.parquet")
    with pa.ipc.new_stream(str(folder / "f.arrow"), table.schema) as stream:
        stream.write_table(table)
    for name in ("b.json", "c.json", "e.parquet", "f.arrow"):
        assert ids(folder / name) == expected, name
    if not any(row.get("system") in ("nan", "None", "null", "NULL", "NaN") for row in made):
        assert ids(folder / "d.csv") == expected
    source = PoolSource("memory", shape="messages")
    for data in (made, table, pl.from_arrow(table)):
        batches = read_rows(data, source)
        assert [i for b in batches for i in b.rows["example_id"].to_pylist()] == expected


def test_a_bare_definition_of_a_tool_is_the_same_as_one_in_the_form_of_openai() -> None:
    talk = [{"role": "user", "content": "Weigh it."}, {"role": "assistant", "content": "Done."}]
    schema = {"type": "object", "properties": {"grams": {"type": "integer"}}}
    spec = {"name": "weigh", "description": "To weigh.", "parameters": schema}
    anthropic = {"name": "weigh", "description": "To weigh.", "input_schema": schema}
    spellings: list[Any] = [
        [{"type": "function", "function": spec}], [spec], spec, [{"type": "function", **spec}],
        [anthropic], json.dumps([spec]), [json.dumps(spec)], [{"functionDeclarations": [spec]}],
    ]  # fmt: skip
    [batch] = read_rows(
        [{"messages": talk, "tools": tools} for tools in spellings], PoolSource("m")
    )
    assert set(batch.rows["tools"].to_pylist()) == {canonical_json(spellings[0])}
    assert len(set(batch.rows["example_id"].to_pylist())) == 1
