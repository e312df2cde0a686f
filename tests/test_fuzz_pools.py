"""Whatever a pool file holds, it is read or refused with a sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.core.errors import InputError
from selection.core.hashing import example_id
from selection.data.containers.listing import SUFFIXES
from selection.data.look import look_at
from selection.data.read import read_pool
from selection.data.shapes.read_row import SHAPES
from selection.records import PoolSource
from tests.fuzz_cases import fuzz, nothing_written_outside, values, words
from tests.tiny_model import tiny_row

ROWS = [tiny_row(i) for i in range(3)]
blocks = st.dictionaries(
    st.sampled_from(["type", "text", "thinking", "input", "name", "functionCall", "content"]),
    st.sampled_from(["text", "thinking", "tool_use", "tool_result", "image"]) | values, max_size=3,
)  # fmt: skip
parts = st.lists(blocks | values, max_size=3)
messages = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "tool_calls", "from", "value", "parts", "speaker",
                         "replies", "function_call", "weight"]),
        st.sampled_from(["user", "AI", "function_call", "tool"]) | parts | values, max_size=4,
    ), max_size=3,
)  # fmt: skip
keys = st.sampled_from(
    ["messages", "conversations", "instruction", "output", "text", "tools", "id", "prompt",
     "chosen", "rejected", "system", "functions", "history", "data", "body", "answer", "label",
     "parent_id", "role", "contents", "Question"]
)  # fmt: skip
rows = st.one_of(
    st.sampled_from(ROWS),
    values,
    st.dictionaries(keys, st.one_of(messages, values), max_size=4),
    st.builds(lambda row, key, value: {**row, key: value}, st.sampled_from(ROWS), keys, values),
)
SUFFIX = st.sampled_from([*SUFFIXES, ".jsonl.gz", ".csv.gz", ".jsonl.zst", ".txt"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz-pools")


@pytest.fixture(scope="module")
def parquet(folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "good.parquet")
    return (folder / "good.parquet").read_bytes()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(suffix, content): rows as lines or as one list, tables, damage, or noise."""
    suffix = draw(SUFFIX)
    made = draw(st.lists(rows, max_size=4))
    kind = draw(st.integers(0, 9))
    if kind < 5:
        content = b"\n".join(map(as_json, made))
    elif kind == 5:
        content, suffix = as_json(made), ".json"
    elif kind == 6:
        lines = draw(st.lists(st.lists(words, max_size=3), max_size=3))
        content, suffix = (
            "\n".join(",".join(line) for line in lines).encode("utf8", "ignore"),
            ".csv",
        )
    else:
        content = draw(st.binary(max_size=60))
    if draw(st.booleans()) and content:
        at = draw(st.integers(0, len(content) - 1))
        content = (
            content[:at] + draw(st.binary(max_size=3)) + content[at + draw(st.integers(0, 9)) :]
        )
    if suffix.endswith(".gz") and draw(st.booleans()):
        content = gzip.compress(content, 1)
    return suffix, content


def read_or_refused(source: PoolSource, folder: Path) -> None:
    """Every row that is read is what its id says; anything wrong is an InputError."""
    with nothing_written_outside(folder):
        try:
            look_at(source, 5)
            batches = list(read_pool(source))
        except InputError:
            return
    for batch in batches:
        for row in batch.rows.to_pylist():
            tools = json.loads(row["tools"]) if row["tools"] else None
            assert row["example_id"] == example_id(json.loads(row["messages"]), tools)


@fuzz(0.7)
@given(
    file=files(),
    shape=st.sampled_from(["auto", *SHAPES]),
    columns=st.dictionaries(
        st.sampled_from(["id", "source", "prompt", "response", "x"]), words, max_size=2
    ),
    broken=st.sampled_from(["refuse", "drop"]),
)
def test_any_file_is_read_or_refused(
    folder: Path, file: tuple[str, bytes], shape: str, columns: dict[str, str], broken: str
) -> None:
    suffix, content = file
    path = folder / f"pool{suffix}"
    path.write_bytes(content)
    source = PoolSource(str(path), shape=shape, columns=columns, broken_rows=broken)
    read_or_refused(source, folder)


@fuzz(0.3)
@given(data=st.data())
def test_a_damaged_parquet_file_is_read_or_refused(
    folder: Path, parquet: bytes, data: st.DataObject
) -> None:
    content = bytearray(parquet)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    (folder / "pool.parquet").write_bytes(content)
    read_or_refused(PoolSource(str(folder / "pool.parquet"), broken_rows="drop"), folder)
