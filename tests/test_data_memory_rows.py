"""Rows in memory are read as a file of them is."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from selection.core.errors import InputError
from selection.core.hashing import canonical_json, example_id
from selection.data.read import read_pool, read_rows
from selection.records import PoolSource

ROWS: list[dict[str, Any]] = [
    {"id": 1, "messages": [{"role": "user", "content": "Hi"},
                           {"role": "assistant", "content": "Hello"}], "licence": "MIT"},
    {"id": 2, "messages": [{"role": "user", "content": " "}], "licence": None},
]  # fmt: skip


def ids(data: object) -> tuple[list[str], list[str]]:
    [batch] = read_rows(data, PoolSource("memory"))
    return batch.rows["example_id"].to_pylist(), batch.drops["reason"].to_pylist()


def test_every_kind_of_table_gives_the_rows_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    [batch] = read_pool(PoolSource(str(path)))
    expected = batch.rows["example_id"].to_pylist(), batch.drops["reason"].to_pylist()
    assert expected[1] == ["no_text"]
    table = pa.Table.from_pylist(ROWS)
    tables = [ROWS, iter(ROWS), table, table.to_batches()[0], table.to_reader(), pl.DataFrame(ROWS)]
    for data in [*tables, pl.DataFrame(ROWS).lazy()]:
        assert ids(data) == expected, type(data)


def test_frames_of_pandas_have_nulls_for_their_missing_values() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    assert ids(frame) == ids(ROWS)
    [batch] = read_rows(frame, PoolSource("memory"))
    assert batch.rows["licence"].to_pylist() == ["MIT"]


def test_a_row_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(InputError, match="memory, line 2"):
        list(read_rows([ROWS[0], "text"], PoolSource("memory")))


def test_a_long_line_is_held_in_memory_as_few_times_as_it_takes(tmp_path: Path) -> None:
    answer = "Write it down. " * 200_000 + "🙂"  # four bytes a character in memory, one in the file
    row = {"prompt": "Say it.", "completion": answer}
    line = json.dumps(row, ensure_ascii=False)
    path = tmp_path / "pool.jsonl"
    short = json.dumps({**row, "completion": "Short."}) + "\n"
    path.write_text(line + "\n" + short)
    (tmp_path / "short.jsonl").write_text(short)
    list(read_pool(PoolSource(str(tmp_path / "short.jsonl"))))  # what is imported late
    tracemalloc.start()
    try:
        [batch] = read_pool(PoolSource(str(path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.2 * 4 * len(answer)
    messages = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": answer}]
    assert batch.rows["example_id"][0].as_py() == example_id(messages)
    assert batch.rows["messages"][0].as_py() == canonical_json(messages)
    assert batch.rows["raw"][0].as_py() == line
    assert batch.n_chars[0].as_py() == len(answer) + len("Say it.")
