import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selection.core.errors import InputError
from selection.core.hashing import example_id
from selection.data.containers import huggingface
from selection.data.containers.rows import RawRow
from selection.records import DropReason, PoolSource
from storage.files import external_sort, parquet_parts
from storage.files.atomic import free_bytes
from storage.files.external_sort import Buckets, digits_for
from storage.files.parquet_parts import PartReader, PartWriter
from storage.pools import prepare
from storage.pools.pool import PreparedPool, open_pool
from storage.pools.prepare import OCCURRENCE_SCHEMA, prepare_pool

COLUMNS = {"licence": "license", "source": "from"}


def pool_rows() -> list[dict[str, Any]]:
    """60 rows: 40 talks, each third one three times over; two without text, three of no shape."""
    generator = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for n in range(40):
        talk = [
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": "word " * int(generator.integers(1, 30))},
        ]
        tool = {"type": "function", "function": {"name": "f"}}
        row = {"messages": talk, "id": n, "license": "MIT" if n % 2 else "CC0", "extra": {"n": n}}
        rows.append(row | ({"tools": [tool]} if n % 5 == 0 else {}))
        if n % 4 == 0:
            rows.append(row | {"id": f"{n}-again", "license": "GPL", "from": "elsewhere"})
            rows[-1]["tools"] = rows[-2].get("tools")
    rows += [{"messages": []}] * 2 + [{"text": "?"}] * 3
    return [rows[i] for i in generator.permutation(len(rows))]


def write(path: Path, rows: Sequence[object]) -> PoolSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PoolSource(str(path), columns=COLUMNS, shape="messages")


def sha256s(pool: PreparedPool, pattern: str = "*") -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(pool.folder.glob(pattern))
    }


@pytest.fixture
def source(tmp_path: Path) -> PoolSource:
    return write(tmp_path / "rows.jsonl", pool_rows())


@pytest.fixture
def pool(tmp_path: Path, source: PoolSource) -> PreparedPool:
    return prepare_pool([source], tmp_path / "pools")


def examples_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Slow and obvious: example id -> the 1-based rows that say it."""
    found = defaultdict(list)
    for number, row in enumerate(rows, 1):
        if row.get("messages"):
            found[example_id(row["messages"], row.get("tools") or None)].append(number)
    return dict(sorted(found.items()))


def all_rows(pool: PreparedPool) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(pool.n_examples)


def test_every_row_is_an_occurrence_or_a_drop(pool: PreparedPool) -> None:
    assert pool.n_rows == 55
    assert pool.n_examples == len(examples_of(pool_rows())) == 40
    assert pool.n_occurrences == 50
    assert pool.drops == {DropReason.NO_TEXT: 2, DropReason.NOT_RECOGNIZED: 3}
    drops = pq.read_table(pool.folder / "drops.parquet").to_pylist()
    assert Counter(drop["reason"] for drop in drops) == pool.drops
    kept = pool.occurrences_at(all_rows(pool))["row"].to_pylist()
    assert sorted(kept + [drop["row"] for drop in drops]) == list(range(1, 56))


def test_examples_are_in_the_order_of_their_ids(pool: PreparedPool) -> None:
    expected = list(examples_of(pool_rows()))
    assert pool.example_ids().astype(str).tolist() == expected
    (batch,) = pool.iter_examples()
    assert batch["example_id"].to_pylist() == expected
    for row in batch.to_pylist():
        messages, tools = json.loads(row["messages"]), row["tools"] and json.loads(row["tools"])
        assert example_id(messages, tools) == row["example_id"]
        assert row["n_chars"] == sum(len(message["content"]) for message in messages)


def test_every_occurrence_is_kept_with_its_raw_row_unchanged(pool: PreparedPool) -> None:
    rows = pool_rows()
    table = pool.occurrences_at(all_rows(pool))
    assert table.schema.names == OCCURRENCE_SCHEMA.names
    found = defaultdict(list)
    for occurrence in table.to_pylist():
        raw = rows[occurrence["row"] - 1]
        assert json.loads(occurrence["raw"]) == raw
        assert occurrence["own_id"] == str(raw["id"])
        assert occurrence["licence"] == raw["license"]
        assert occurrence["source"] == raw.get("from", "rows")
        assert pool.example_ids()[occurrence["example_row"]].decode() == occurrence["example_id"]
        found[occurrence["example_id"]].append(occurrence["row"])
    assert dict(found) == examples_of(rows)  # order of rows included


def test_order_of_rows_does_not_change_the_examples(tmp_path: Path, pool: PreparedPool) -> None:
    other = prepare_pool([write(tmp_path / "back.jsonl", pool_rows()[::-1])], tmp_path / "pools")
    assert other.pool_id != pool.pool_id
    assert sha256s(other, "examples-*") == sha256s(pool, "examples-*")


def test_neither_buckets_nor_batches_change_a_byte(
    tmp_path: Path, source: PoolSource, pool: PreparedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "digits_for", lambda n_bytes: 2)
    monkeypatch.setattr(external_sort, "_BUFFER_BYTES", 3000)
    monkeypatch.setattr("selection.data.read._BATCH_ROWS", 7)
    again = prepare_pool([source], tmp_path / "other")
    assert sha256s(again) == sha256s(pool)
    assert {"examples-00000.parquet", "manifest.json"} < sha256s(pool).keys()


def test_a_pool_is_prepared_once(
    tmp_path: Path, source: PoolSource, pool: PreparedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "read_pool", None)
    assert prepare_pool([source], tmp_path / "pools").pool_id == pool.pool_id
    assert open_pool(pool.folder).files == pool.files
    assert [path.name for path in (tmp_path / "pools").iterdir()] == [pool.pool_id]


@pytest.mark.parametrize("change", ["a byte", "a setting", "a second source", "the shape"])
def test_the_pool_id_names_content_and_settings(
    tmp_path: Path, source: PoolSource, pool: PreparedPool, change: str
) -> None:
    sources = [source]
    if change == "a byte":
        write(tmp_path / "rows.jsonl", [*pool_rows()[:-1], pool_rows()[0]])
    elif change == "a setting":
        sources = [PoolSource(source.path, columns=COLUMNS | {"group": "id"}, shape="messages")]
    elif change == "the shape":
        sources = [PoolSource(source.path, columns=COLUMNS)]
    else:
        sources.append(PoolSource(write(tmp_path / "more.jsonl", pool_rows()[:3]).path))
    assert prepare_pool(sources, tmp_path / "pools").pool_id != pool.pool_id


def test_several_sources_share_their_examples(tmp_path: Path, source: PoolSource) -> None:
    three = [row for row in pool_rows() if row.get("id") == 3]
    more = PoolSource(write(tmp_path / "more.jsonl", three * 2).path)
    pool = prepare_pool([source, more], tmp_path / "pools")
    assert (pool.n_rows, pool.n_examples, pool.n_occurrences) == (57, 40, 52)
    table = pool.occurrences_at(all_rows(pool)).to_pylist()
    of_three = [(x["source"], x["row"]) for x in table if x["own_id"] == "3"]
    at = next(number for number, row in enumerate(pool_rows(), 1) if row.get("id") == 3)
    assert of_three == [("more", 1), ("more", 2), ("rows", at)]  # by file, then row
    assert [file["source"] for file in pool.files] == ["rows", "more"]
    assert pool.files[0]["sha256"] == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()


def test_examples_come_back_in_the_order_asked(pool: PreparedPool) -> None:
    rows = np.array([7, 0, 39, 7])
    ids = pool.example_ids()[rows].astype(str).tolist()
    assert pool.examples_at(rows)["example_id"].to_pylist() == ids
    assert pool.examples_at(np.array([], np.int64)).num_rows == 0
    assert (
        pool.examples_at(np.array([], np.int64)).schema.names == pool.examples_at(rows).schema.names
    )
    with pytest.raises(IndexError, match="row 40"):
        pool.examples_at(np.array([40]))
    with pytest.raises(IndexError, match="row -1"):
        pool.occurrences_at(np.array([-1]))


def test_occurrences_of_some_examples_are_in_order(pool: PreparedPool) -> None:
    by_id = list(examples_of(pool_rows()).values())
    table = pool.occurrences_at(np.array([20, 3, 20]))
    assert table["example_row"].to_pylist() == [3] * len(by_id[3]) + [20] * len(by_id[20])
    assert table["row"].to_pylist() == by_id[3] + by_id[20]
    assert pool.occurrences_at(np.array([], np.int64)).num_rows == 0


@pytest.mark.parametrize(
    "where", ["licence = 'MIT'", "licence = 'GPL'", "source = 'elsewhere' AND n_chars > 60",
              "id >= '2'", "\"row\" < 20", "license = 'CC0' OR extra IS NULL"]
)  # fmt: skip
def test_an_example_is_eligible_if_any_occurrence_passes(pool: PreparedPool, where: str) -> None:
    rows = pool_rows()

    def passes(number: int) -> bool:
        row = rows[number - 1]
        n_chars = sum(len(message["content"]) for message in row["messages"])
        return {
            "licence = 'MIT'": row["license"] == "MIT",
            "licence = 'GPL'": row["license"] == "GPL",
            "id >= '2'": str(row["id"]) >= "2",
            '"row" < 20': number < 20,
            "license = 'CC0' OR extra IS NULL": row["license"] == "CC0",
        }.get(where, row.get("from") == "elsewhere" and n_chars > 60)

    by_id = examples_of(rows).values()
    passing = [[number for number in numbers if passes(number)] for numbers in by_id]
    assert pool.eligible(where).tolist() == [bool(numbers) for numbers in passing]
    assert 0 < pool.eligible(where).sum() < pool.n_examples
    table = pool.passing_occurrences(all_rows(pool), where)
    assert table["row"].to_pylist() == [number for numbers in passing for number in numbers]
    first = [rows[numbers[0] - 1].get("from", "rows") for numbers in passing if numbers]
    counted = pool.source_counts(np.ones(pool.n_examples, np.bool_), where)
    assert counted == Counter(first)


def test_without_a_condition_everything_is_eligible(pool: PreparedPool) -> None:
    assert pool.eligible(None).all()
    only = np.zeros(pool.n_examples, np.bool_)
    only[5] = True
    assert sum(pool.source_counts(only).values()) == 1


def test_a_condition_on_an_unknown_column_is_refused(pool: PreparedPool) -> None:
    with pytest.raises(InputError, match="no column `quality`") as caught:
        pool.eligible("quality > 3")
    assert "extra, from, id, license, messages" in caught.value.remedy


def test_reading_in_pieces_is_reading_at_once(
    tmp_path: Path, source: PoolSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_parts, "GROUP_ROWS", 3)
    monkeypatch.setattr(parquet_parts, "PART_ROWS", 9)
    pool = prepare_pool([source], tmp_path / "pools")
    names = [path.name for path in sorted(pool.folder.glob("examples-*"))]
    assert names == [f"examples-{n:05d}.parquet" for n in range(5)]
    ids = pool.example_ids().astype(str).tolist()
    assert ids == list(examples_of(pool_rows()))
    for start in (0, 1, 8, 9, 17, 39, 40):
        for batch_rows in (1, 4):
            batches = list(pool.iter_examples(start, batch_rows))
            assert [i for batch in batches for i in batch["example_id"].to_pylist()] == ids[start:]
            assert all(batch.num_rows <= batch_rows for batch in batches)
    asked = np.array([38, 0, 11, 38, 9])
    assert pool.examples_at(asked)["example_id"].to_pylist() == [ids[row] for row in asked]
    by_id = list(examples_of(pool_rows()).values())
    found = pool.occurrences_at(np.array([0, 17, 39]))["row"].to_pylist()
    assert found == by_id[0] + by_id[17] + by_id[39]
    counts = pool.source_counts(np.ones(40, np.bool_), "licence <> 'MIT'")
    assert sum(counts.values()) == pool.eligible("licence <> 'MIT'").sum()


def test_parts_do_not_depend_on_how_rows_are_handed_over(tmp_path: Path) -> None:
    table = pa.table({"n": np.arange(5000), "text": [str(n % 7) for n in range(5000)]})
    contents = []
    for step in (1, 1023, 1024, 5000):
        folder = tmp_path / str(step)
        folder.mkdir()
        writer = PartWriter(folder, "x", table.schema)
        for start in range(0, 5000, step):
            writer.add(table.slice(start, step))
        writer.close()
        contents.append((folder / "x-00000.parquet").read_bytes())
    assert len(set(contents)) == 1
    assert pa.Table.from_batches(PartReader(folder, "x").iter_batches()).equals(table)


def test_buckets_sort_by_id_then_by_the_other_keys_then_as_rows_came(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    keys = [f"{key:04x}" for key in generator.integers(0, 1 << 16, 500)] * 2
    table = pa.table({"key": keys, "b": generator.integers(0, 3, 1000), "came": np.arange(1000)})
    for digits in (0, 1, 3):
        scattered = Buckets(tmp_path / str(digits), table.schema, "key", digits)
        for batch in table.to_batches(64):
            scattered.add(batch)
        found = pa.concat_tables(scattered.sorted_tables("b")).to_pylist()
        expected = sorted(table.to_pylist(), key=lambda row: (row["key"], row["b"], row["came"]))
        assert found == expected
        assert not list((tmp_path / str(digits)).iterdir())


def test_the_number_of_buckets_keeps_each_small() -> None:
    size = external_sort.BUCKET_BYTES
    assert [digits_for(n) for n in (0, size, size + 1, 16 * size, 17 * size)] == [0, 0, 1, 1, 2]
    assert digits_for(1 << 60) == 3


def test_a_pool_of_which_every_row_is_dropped_is_refused(tmp_path: Path) -> None:
    source = PoolSource(write(tmp_path / "a.jsonl", [{"messages": []}] * 3).path)
    with pytest.raises(InputError, match="every row was dropped") as caught:
        prepare_pool([source], tmp_path / "pools")
    assert "3 no_text" in str(caught.value)
    assert source.path in str(caught.value)
    assert list((tmp_path / "pools").iterdir()) == []


def test_a_refused_source_leaves_nothing_behind(tmp_path: Path, source: PoolSource) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "x"}\nnot JSON\n')
    with pytest.raises(InputError, match=r"broken\.jsonl, line 2: broken row"):
        prepare_pool([source, PoolSource(str(broken))], tmp_path / "pools")
    assert list((tmp_path / "pools").iterdir()) == []
    with pytest.raises(InputError, match="there is no pool"):
        prepare_pool([], tmp_path / "pools")
    with pytest.raises(InputError, match="no prepared pool"):
        open_pool(tmp_path / "pools" / "nothing")


def test_too_little_disk_is_refused_before_reading(
    tmp_path: Path, source: PoolSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_DISK_FACTOR", 2 * free_bytes(tmp_path))
    with pytest.raises(InputError, match="preparing the pool will need about"):
        prepare_pool([source], tmp_path / "pools")


def test_a_pool_of_another_format_is_refused(pool: PreparedPool) -> None:
    manifest = json.loads((pool.folder / "manifest.json").read_text())
    (pool.folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(InputError, match="another version of saelect") as caught:
        open_pool(pool.folder)
    assert caught.value.value == 99


def test_progress_adds_up_to_the_rows(
    tmp_path: Path, source: PoolSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selection.data.read._BATCH_ROWS", 10)
    told: list[int] = []
    prepare_pool([source], tmp_path / "pools", told.append)
    assert sum(told) == 55
    assert len(told) == 6


def test_a_dataset_of_the_hub_is_pinned_to_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def iter_dataset(source: PoolSource) -> list[RawRow]:
        asked.append(source.revision)
        return [RawRow(source.path, 1, {"text": "x"})]

    monkeypatch.setattr(huggingface, "dataset_commit", lambda source: "c" * 40)
    monkeypatch.setattr(huggingface, "iter_dataset", lambda source: iter(iter_dataset(source)))
    monkeypatch.setattr(prepare, "_UNKNOWN_BYTES", 1000)
    pool = prepare_pool([PoolSource("org/data", revision="main")], tmp_path / "pools")
    assert asked == ["c" * 40]
    (file,) = pool.files
    assert file["sha256"] == f"git:{'c' * 40}"
    assert pool.occurrences_at(np.array([0]))["source"].to_pylist() == ["org/data"]
