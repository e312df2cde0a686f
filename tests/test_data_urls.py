"""Addresses that fsspec opens are read as paths are."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selection.core.errors import InputError
from selection.data.containers.listing import named_apart
from selection.data.coverage import ReadReport
from selection.data.exemplars import read_exemplars
from selection.data.look import look_at
from selection.data.read import read_pool
from selection.records import PoolSource
from storage.pools.prepare import prepare_pool

ROWS = [{"question": f"Is {i} odd?", "answer": "Yes." if i % 2 else "No."} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def memory() -> Any:
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pipe("/pool/train.jsonl", LINES)
    files.pipe("/pool/language=en/test.jsonl", LINES)
    files.pipe("/pool/notes.txt", b"x")
    with files.open("/table.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    with files.open("/table.arrow", "wb") as file, pa.ipc.new_file(
        file, pa.Table.from_pylist(ROWS).schema
    ) as writer:  # fmt: skip
        writer.write_table(pa.Table.from_pylist(ROWS))
    yield files
    files.store.clear()


def ids(path: str, **settings: Any) -> list[str]:
    return [i for batch in read_pool(PoolSource(path, **settings))
            for i in batch.rows["example_id"].to_pylist()]  # fmt: skip


def test_files_at_an_address_are_read_as_local_ones(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_bytes(LINES)
    expected = ids(str(tmp_path / "pool.jsonl"))
    for url in ("memory://pool/train.jsonl", "memory://table.parquet", "memory://table.arrow",
                "memory://pool/*.jsonl", "memory://pool"):  # fmt: skip
        assert ids(url) == expected, url
    assert ids("memory://pool", split="test") == expected
    report = ReadReport()
    list(read_pool(PoolSource("memory://pool"), report))
    said = "\n".join(report.lines())
    assert "not read, split test" in said
    assert "not read, format .txt" in said


def test_pools_and_exemplars_come_from_addresses(memory: Any, tmp_path: Path) -> None:
    pool = prepare_pool([PoolSource("memory://pool/train.jsonl")], tmp_path / "pools")
    assert (pool.n_rows, pool.n_examples) == (5, 5)
    assert pool.files[0]["bytes"] == len(LINES)
    assert read_exemplars(PoolSource("memory://table.parquet")).num_rows == 5
    assert look_at(PoolSource("memory://pool/train.jsonl")).n_rows == 5


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nothing.jsonl", "cannot be read"),
        ("nosuch://bucket/pool.jsonl", "cannot be opened"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused(memory: Any, url: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ids(url)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pool.jsonl").write_bytes(LINES)
    for path in ("~/data/pool.jsonl", "~/data", "~/data/*.jsonl"):
        assert len(ids(path)) == 5
    assert len(ids(str(tmp_path / "data" / "pool.jsonl"))) == 5


def test_sources_of_equal_names_are_told_apart_by_their_paths() -> None:
    def names(*paths: str, **settings: Any) -> list[str]:
        return named_apart([PoolSource(path, **settings) for path in paths])

    assert names("a/train.jsonl", "b/train.jsonl", "c/other.jsonl") == [
        "a/train",
        "b/train",
        "other",
    ]
    assert names("x/a/train.jsonl", "y/a/train.jsonl") == ["x/a/train", "y/a/train"]
    assert names("a/p.jsonl", "a/p.parquet", "b/p.json") == ["a/p.jsonl", "a/p.parquet", "b/p.json"]
    assert names("train.jsonl", "b/train.jsonl") == ["train", "b/train"]
    assert names("a/train.jsonl", "a/train.jsonl") == ["a/train", "a/train"]
    assert names("a/train.jsonl", "b/train.jsonl", name="n") == ["n", "n"]
