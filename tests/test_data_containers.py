import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from selection.core.errors import InputError
from selection.data.containers.json_files import _CHUNK
from selection.data.containers.listing import source_name
from selection.data.containers.rows import RawRow
from selection.data.coverage import ReadReport
from selection.data.look import look_at
from selection.data.read import open_files, read_pool
from selection.records import PoolSource

ROWS: list[dict[str, object]] = [
    {"instruction": "Add.", "input": "1 + 2", "output": "3", "id": 7},
    {"instruction": "Grüße übersetzen", "input": "", "output": "Regards\nline two", "extra": [1]},
    {"instruction": "Say “hi”", "input": '\u2028 "quoted"', "output": "hi\\", "extra": None},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def raw_rows(path: str, **settings: Any) -> list[RawRow]:
    source = PoolSource(path, **settings)
    return [row for _, rows in open_files(source, ReadReport()) for row in rows]


def read(path: Path, **settings: Any) -> list[dict[str, object]]:
    return [row.value or {} for row in raw_rows(str(path), **settings)]


def refusal(path: Path | str, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        list(read_pool(PoolSource(str(path), **settings)))
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.ndjson", b"\xef\xbb\xbf\n" + LINES.encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode())),
        ("a.JSONL.ZST", zstandard.compress(LINES.encode())),
        ("frames.jsonl.zst", b"".join(zstandard.compress(f"{json.dumps(row)}\n".encode())
                                      for row in ROWS)),
        ("a.json", json.dumps(ROWS).encode()),
        ("pretty.json", json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
        ("lines.json", LINES.encode()),
        ("object.json", json.dumps({"version": 1, "tags": ["a"], "data": ROWS}, indent=1).encode()),
    ],
)  # fmt: skip
def test_every_text_format_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    assert read(write(tmp_path / name, content)) == ROWS


def test_parquet_gives_its_rows_as_json(tmp_path: Path) -> None:
    values = [
        {"text": "a", "n": float("nan"), "b": b"\xff\x00"},
        {"text": "b", "n": 2.0, "b": None},
    ]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "a.parquet", row_group_size=1)
    expected = [{"text": "a", "n": None, "b": {"n_bytes": 2}}, {"text": "b", "n": 2.0, "b": None}]
    assert read(tmp_path / "a.parquet") == expected


def test_csv_fields_stay_text_and_may_hold_line_breaks(tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["text", "n"], ["one\ntwo", "007"], ["x" * 200_000, ""]])
    path = write(tmp_path / "a.csv", text.getvalue())
    assert read(path) == [{"text": "one\ntwo", "n": "007"}, {"text": "x" * 200_000, "n": ""}]
    rows = raw_rows(str(path))
    assert [(row.row, row.line) for row in rows] == [(1, 3), (2, 4)]


@pytest.mark.parametrize("n_characters", [1, 2, 7, 64])
def test_a_json_list_may_be_cut_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_characters: int
) -> None:
    monkeypatch.setattr("selection.data.containers.json_files._CHUNK", n_characters)
    path = write(tmp_path / "a.json", json.dumps([-12.5e3, *ROWS, True, None, "\\u00e4"]))
    rows = raw_rows(str(path))
    assert [row.value for row in rows[1:4]] == ROWS
    assert [row.row for row in rows] == list(range(1, 8))
    assert all("must be a JSON object" in row.error for row in (rows[0], *rows[4:]))


def test_a_json_list_longer_than_one_piece_is_read_whole(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"{n} " + "y" * (n * 997)} for n in range(80)]
    content = json.dumps(rows, indent=1)
    assert len(content) > 2 * _CHUNK
    assert read(write(tmp_path / "a.json", content)) == rows


def test_a_single_row_with_messages_is_not_taken_for_a_list_of_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "hi"}]}
    assert read(write(tmp_path / "a.json", json.dumps(row, indent=1))) == [row]


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/10.jsonl", "a.jsonl", "README.md", ".hidden/x.jsonl", "c/z.csv"):
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "pool" / name, "text\nx\n" if name.endswith("csv") else '{"text": "x"}\n')
    rows = list(raw_rows(f"{tmp_path}/pool/"))
    names = ["a.jsonl", "b/10.jsonl", "b/2.jsonl", "c/z.csv"]
    assert [row.file for row in rows] == [f"{tmp_path}/pool/{name}" for name in names]
    assert source_name(PoolSource(f"{tmp_path}/pool/")) == "pool"


def test_a_pattern_reads_what_it_matches(tmp_path: Path) -> None:
    for name in ("a-1.jsonl", "a-2.jsonl", "b.jsonl"):
        write(tmp_path / name, json.dumps({"text": name}) + "\n")
    assert read(tmp_path / "a-*.jsonl") == [{"text": "a-1.jsonl"}, {"text": "a-2.jsonl"}]


def test_lines_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\n{"text": "x"}\n\n{"text": "y"}')
    assert [row.row for row in raw_rows(str(path))] == [2, 4]


def test_raw_text_is_kept_to_the_letter_unless_it_is_no_json(tmp_path: Path) -> None:
    odd = '{"text" :  "x", "n": 1.50, "big": 12345678901234567890123}'
    path = write(tmp_path / "a.jsonl", f'{odd}\n{{"text": "NaN stays", "n": NaN}}\n')
    rows = [row.raw_json() for row in raw_rows(str(path))]
    assert rows == [odd, '{"text": "NaN stays", "n": null}']


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "x"', "not JSON"),
        (b'{"text": "\xff"}', "byte 11 is not UTF-8"),
        (b'["x"]', "must be a JSON object, but this is a list"),
        (b"3", "but this is a number"),
        (b'{"text": "\\ud83d"}', "half a character"),
        (b'{"text": ' + b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_line_is_refused_with_its_number_or_dropped_on_request(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line + b'\n{"text": "too"}\n')
    error = str(refusal(path))
    assert f"{path}, line 2: " in error
    assert problem in error
    assert "broken_rows: drop" in error
    (batch,) = read_pool(PoolSource(str(path), broken_rows="drop"))
    assert batch.rows["row"].to_pylist() == [1, 3]
    (drop,) = batch.drops.to_pylist()
    assert (drop["row"], drop["reason"], problem in drop["detail"]) == (2, "broken_row", True)


def test_a_broken_line_far_from_the_start_is_refused_with_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' * 900 + "oops\n")
    assert "line 901: broken row: not JSON" in str(refusal(path))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[{"text": "x"},\n\n{"text": oops}]', 3),
        ('[\n{"text": "x"}\n{"text": "y"}]', 3),
        ('[{"text": "x"},\n{"text": "y"', 2),
        ('{"data": [\n{"a": 1},\n]}', 3),
        ('[{"text": "x"}]\n[', 2),
    ],
)
def test_a_broken_json_list_is_refused_with_its_line(
    tmp_path: Path, content: str, line: int
) -> None:
    path = write(tmp_path / "a.json", content)
    assert f"{path}, line {line}: not JSON" in str(refusal(path))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.csv", b"", "the file is empty"),
        ("a.json", b"[]", "holds no rows"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.csv", b"text,n\n", "holds no rows"),
        ("a.txt", b"hello", "format is not known"),
        ("a.json", b"3", "a pool is a list of rows"),
        ("a.json", b'{"a": [{"x": 1}], "b": [{"y": 1}]}', "several lists of rows"),
        ("a.csv", b"text,,n\n1,2,3\n", "the first line must name every column once"),
        ("a.csv", b"text,text\n1,2\n", "the first line must name every column once"),
        ("a.csv", b'text\n"open\n', "not readable as a table"),
        ("a.csv", b"text\n\xff\xfe\n", "not UTF-8"),
        ("a.jsonl.gz", b"plain text", "damaged or not what its name says"),
        ("a.jsonl.gz", gzip.compress(os.urandom(9000))[:-20], "damaged"),
        ("a.jsonl.zst", b"plain text", "damaged or not what its name says"),
        ("a.jsonl.zst", zstandard.compress(LINES.encode() * 50)[:-9], "it ends in the middle"),
        ("a.parquet", b"PAR1 no", "not readable as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    error = refusal(write(tmp_path / name, content), broken_rows="drop")
    assert problem in str(error)
    assert str(tmp_path / name) in str(error)
    assert error.remedy.endswith(".")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file, folder or pattern" in str(refusal(tmp_path / "no.jsonl"))
    assert "no such file, folder or pattern" in str(refusal(tmp_path / "no-*.jsonl"))
    (tmp_path / "empty").mkdir()
    assert "holds no file" in str(refusal(tmp_path / "empty"))


def test_a_csv_row_of_the_wrong_length_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,n\nx,1\ny\n")
    assert "line 3: broken row: 1 fields, but the first line names 2" in str(refusal(path))


def test_a_csv_without_a_header_is_refused_with_what_was_found(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "a.csv", "What is two?,2\nWhat is three?,3\n"))
    assert "['What is two?', '2']" in str(error)
    assert "first line must name the columns" in str(error)


def test_rows_in_no_shape_are_refused_with_their_columns(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "a.jsonl", '{"frage": "x", "antwort": "y"}\n' * 3))
    assert "no row among the first 3 has one of the known shapes" in str(error)
    assert "['frage', 'antwort']" in str(error)
    assert "prompt_completion" in str(error)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_unknown_mapped_column_is_refused_with_the_known_ones(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": ["x"], "license": ["MIT"]}), path)
    else:
        write(path, 'text,license\nx,"MIT"' if suffix == "csv" else '{"text": "x", "license": 1}')
    error = str(refusal(path, columns={"licence": "licence"}))
    assert f"{path}: `columns.licence`: there is no column `licence`" in error
    assert "Columns: text, license." in error
    error = str(refusal(path, columns={"prompt": "question|frage", "response": "text"}))
    assert "there is no column `question`" in error


def test_a_mapped_column_may_come_late(tmp_path: Path) -> None:
    lines = ['{"text": "x"}\n'] * 500 + ['{"text": "y", "licence": "MIT"}\n']
    path = write(tmp_path / "a.jsonl", "".join(lines))
    (batch,) = read_pool(PoolSource(str(path), columns={"licence": "licence"}))
    assert batch.rows["licence"].to_pylist() == [None] * 500 + ["MIT"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"shape": "sharegpt"}, "shape"),
        ({"shape": "mapping"}, "columns"),
        ({"columns": {"license": "x"}}, "columns.license"),
        ({"shape": "text", "columns": {"prompt": "text"}}, "columns.prompt"),
        ({"broken_rows": "ignore"}, "broken_rows"),
        ({"split": "train"}, "split"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(
    tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    error = refusal(write(tmp_path / "a.jsonl", '{"text": "x"}\n'), **settings)
    assert error.field == field


def test_each_file_of_a_folder_has_its_own_shape(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "x"}\n')
    write(tmp_path / "b.jsonl", '{"instruction": "p", "output": "r"}\n{"text": "not here"}\n')
    batches = list(read_pool(PoolSource(str(tmp_path))))
    messages = [text for batch in batches for text in batch.rows["messages"].to_pylist()]
    assert [len(json.loads(text)) for text in messages] == [1, 2]
    assert [drop["reason"] for drop in batches[1].drops.to_pylist()] == ["not_recognized"]


def test_batches_end_at_their_rows_or_at_their_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' * 5000)
    sizes = [batch.rows.num_rows for batch in read_pool(PoolSource(str(path)))]
    assert sizes == [4096, 904]
    path = write(tmp_path / "b.jsonl", json.dumps({"text": "x" * 3_000_000}) + "\n")
    path.write_bytes(path.read_bytes() * 4)
    sizes = [batch.rows.num_rows for batch in read_pool(PoolSource(str(path)))]
    assert sizes == [2, 2]


def test_a_look_says_shape_columns_size_and_roles(tmp_path: Path) -> None:
    row = '{"id": "%03d", "text": "some words", "license": "MIT", "dataset": "d"}\n'
    path = write(tmp_path / "a.jsonl", "".join(row % n for n in range(1000)))
    look = look_at(PoolSource(str(path)), 50)
    assert (look.shape, look.columns) == ("text", ("id", "text", "license", "dataset"))
    assert (look.n_rows, look.is_exact, look.n_looked) == (1000, False, 50)
    assert look.roles == {"id": "id", "licence": "license", "source": "dataset"}
    assert look.examples[0][0] == [{"role": "assistant", "content": "some words"}]
    short = look_at(PoolSource(str(path)), 2000)
    assert (short.n_rows, short.is_exact, short.n_examples) == (1000, True, 1000)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.jsonl", "\n", "holds no rows"), ("a.jsonl", '{"x": 1}\n', "known shapes"),
     ("a.csv", "text\nx\n", "no column `licence`"), ("a.jsonl", "{\n", "line 1: broken row")],
)  # fmt: skip
def test_a_look_refuses_what_reading_would(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    columns = {"licence": "licence"} if "column" in words else {}
    with pytest.raises(InputError, match=words):
        look_at(PoolSource(str(write(tmp_path / name, content)), columns=columns))


def test_a_line_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selection.data.containers.json_files.LONGEST_LINE", 1000)
    long = json.dumps({"instruction": "Add.", "output": "x" * 1000})
    fits = json.dumps({"instruction": "Add.", "output": "x" * 900})
    path = write(tmp_path / "pool.jsonl.gz", gzip.compress(f"{fits}\n{fits}\n{long}".encode()))
    with pytest.raises(InputError, match=r"line 3: a line is longer"):
        raw_rows(str(path))
    write(path, gzip.compress(f"{fits}\n{fits}\n".encode()))
    assert len(raw_rows(str(path))) == 2
