"""Files and folders as people have them."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import zstandard

from tests.cases.case import Case, Row, files, jsonl, lines, raw, table
from tests.cases.talks import Talk, assistant, openai, pairs, question, user, with_tools

BOM = b"\xef\xbb\xbf"


def _rows(talks: Sequence[Talk]) -> list[Row]:
    return [{"messages": openai(talk)} for talk in talks]


def _columns(talks: Sequence[Talk]) -> list[Row]:
    return [{"instruction": talk[0]["text"], "output": talk[1]["text"]} for talk in talks]


def arrow(rows: Sequence[Row], name: str) -> Callable[[Path], Path]:
    """Writes rows as Parquet, Arrow or Feather."""

    def write(folder: Path) -> Path:
        data = pa.Table.from_pylist(list(rows))
        path = folder / name
        if path.suffix == ".parquet":
            pq.write_table(data, path)
        elif path.suffix == ".feather":
            pa.feather.write_feather(data, str(path))
        else:
            with pa.ipc.new_stream(str(path), data.schema) as stream:
                stream.write_table(data)
        return path

    return write


def _maps(talks: Sequence[Talk]) -> Callable[[Path], Path]:
    """Writes turns as maps of Arrow, which are no structs."""

    def write(folder: Path) -> Path:
        kind = pa.list_(pa.map_(pa.string(), pa.string()))
        turns = [[list(turn.items()) for turn in openai(talk)] for talk in talks]
        pq.write_table(pa.table({"messages": pa.array(turns, kind)}), folder / "pool.parquet")
        return folder / "pool.parquet"

    return write


def saved(rows: Sequence[Row], *, splits: bool) -> Callable[[Path], Path]:
    """Writes what `datasets` saves to disk."""

    def write(folder: Path) -> Path:
        from datasets import Dataset, DatasetDict, disable_progress_bars

        disable_progress_bars()
        data = Dataset.from_list(list(rows))
        kept = data.select(range(2))
        (DatasetDict({"train": data, "test": kept}) if splits else data).save_to_disk(
            str(folder / "pool")
        )
        return folder / "pool"

    return write


def _compressed() -> list[Case]:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress,
    }  # fmt: skip
    cases = []
    for number, (suffix, pack) in enumerate(packers.items()):
        talks = pairs(8000 + 10 * number)
        content = pack(lines(_rows(talks)))
        cases.append(Case(f"compressed {suffix}", raw(content, f"pool.jsonl.{suffix}"), talks))
    talks = pairs(8040)
    content = gzip.compress(lines(_rows(talks[:3]))) + gzip.compress(lines(_rows(talks[3:])))
    cases.append(Case("gzip joined and padded", raw(content + bytes(64), "p.jsonl.gz"), talks))
    return cases


def _json() -> list[Case]:
    talks = pairs(8100)
    joined = BOM + lines(_rows(talks[:3])) + BOM + lines(_rows(talks[3:]))
    cases = [Case("a mark in the middle", raw(joined, "pool.jsonl"), talks)]
    talks = pairs(8110)
    text = json.dumps(_rows(talks), ensure_ascii=False)
    cases.append(Case("UTF-16", raw(text.encode("utf-16"), "pool.json"), talks))
    talks = pairs(8120)
    pretty = "\n".join(json.dumps(row, indent=2) for row in _rows(talks))
    cases.append(Case("pretty objects in a row", raw(pretty.encode(), "pool.json"), talks))
    talks = pairs(8130)
    text = json.dumps(_columns(talks))
    cases.append(Case("a list named jsonl", raw(text.encode(), "pool.jsonl"), talks))
    columns = {key: [row[key] for row in _columns(talks)] for key in ("instruction", "output")}
    numbered = {str(i): row for i, row in enumerate(_columns(talks))}
    by_number = {key: {str(i): v for i, v in enumerate(vs)} for key, vs in columns.items()}
    split = {"columns": ["instruction"], "index": [0], "data": [["x"]]}
    for name, value in {"columns": columns, "index": numbered, "frame": by_number,
                        "split": split}.items():  # fmt: skip
        write = raw(json.dumps(value).encode(), "pool.json")
        cases.append(Case(f"pandas {name}", write, refused="Convert it"))
    splits = json.dumps({"train": _columns(talks), "test": _columns(pairs(8140, 2))}).encode()
    cases.append(Case("splits in one object", raw(splits, "p.json"), refused="split: t"))
    cases.append(Case("a chosen split of an object", raw(splits, "p.json"), talks,
                      settings={"split": "train"}))  # fmt: skip
    strangers = {"Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                 "gzip": gzip.compress(b"{}"), "HTML": b"<!DOCTYPE html><html>",
                 "Parquet": b"PAR1\x15\x04"}  # fmt: skip
    for name, content in strangers.items():
        write = raw(content, "pool.jsonl")
        cases.append(Case(f"named jsonl: {name}", write, refused=name))
    broken = lines(_rows(talks)) + b'{"messages": [], "messages": []}\n'
    cases.append(Case("a key twice", raw(broken, "pool.jsonl"), refused="stands twice"))
    cases.append(Case("a key twice, dropped", raw(broken, "pool.jsonl"), talks,
                      drops={"broken_row": 1}, settings={"broken_rows": "drop"}))  # fmt: skip
    rows = [*_rows(pairs(8150)), *_columns(pairs(8160))]
    cases.append(Case("two shapes in one file", jsonl(rows), [*pairs(8150), *pairs(8160)],
                      says=("several shapes",)))  # fmt: skip
    return cases


def _tables() -> list[Case]:
    talks = pairs(8200)
    cases = [Case("semicolons", table(_columns(talks), delimiter=";"), talks)]
    cases.append(Case("a line that names the separator",
                      raw(b"sep=;\r\nquestion;answer\r\nWhy, then?;So.\r\n", "pool.csv"),
                      [[user("Why, then?"), assistant("So.")]]))  # fmt: skip
    talks = pairs(8280)
    plain = "question,answer,,\n" + "".join(f'"{t[0]["text"]}","{t[1]["text"]}",,\n' for t in talks)
    cases.append(Case("empty columns at the end", raw(plain.encode(), "pool.csv"), talks))
    cases.append(Case("a column without a name", raw(plain.encode() + b"q,a,,x\n", "pool.csv"),
                      refused="4 fields"))  # fmt: skip
    plain = 'question,answer\n"Say \\"hi\\"","Hi"\n'
    talks = [[user('Say "hi"'), assistant("Hi")]]
    cases.append(Case("marks behind a backslash", raw(plain.encode(), "pool.csv"),
                      refused="quoting: backslash"))  # fmt: skip
    cases.append(Case("marks behind a backslash, named", raw(plain.encode(), "pool.csv"), talks,
                      settings={"quoting": "backslash"}))  # fmt: skip
    text = "[{'role': 'user', 'content': 'q'}\n {'role': 'assistant', 'content': 'a'}]"
    for number, spelled in enumerate((text, f"array({text}, dtype=object)")):
        cases.append(Case(f"messages as numpy writes them {number}",
                          table([{"messages": spelled}]), refused="spells a list"))  # fmt: skip
    talks = [[user(f"Étage {i} ?"), assistant(f"Là-haut, à {i} m.")] for i in range(8210, 8216)]
    old = table(_columns(talks), encoding="cp1252")
    cases.append(Case("an old encoding", old, refused="encoding: cp1252"))
    cases.append(Case("a named encoding", old, talks, settings={"encoding": "cp1252"}))
    talks = pairs(8220)
    rows = [{"": i, **row} for i, row in enumerate(_columns(talks))]
    cases.append(Case("an index without a name", table(rows), talks, says=("Unnamed: 0",)))
    talks = pairs(8230)
    rows = [{**row, "input": "nan"} for row in _columns(talks)]
    cases.append(Case("nan in an input", table(rows), talks, says=("`input` say nan",)))
    rows = [*_columns(talks), {"instruction": "Why?", "output": "None"}]
    cases.append(Case("None for an answer", table(rows), talks, drops={"missing_value": 1}))
    quoted = [[user("Say hi"), assistant('"Hi" is enough')], *pairs(8240)]
    plain = "instruction\toutput\n" + "".join(
        f"{t[0]['text']}\t{t[1]['text']}\n" for t in quoted
    )  # fmt: skip
    cases.append(Case("quotation marks of their own", raw(plain.encode(), "pool.tsv"), quoted))
    talks = pairs(8250, 8)
    for at, mark in ((2, '"{}'), (5, '{}"')):
        talks[at][1]["text"] = mark.format(talks[at][1]["text"])
    plain = "instruction\toutput\n" + "".join(f"{t[0]['text']}\t{t[1]['text']}\n" for t in talks)
    cases.append(Case("a lone quotation mark", raw(plain.encode(), "pool.tsv"), talks))
    odd = plain + '"a\nb"\tc\n'
    cases.append(Case("a mark that swallows rows", raw(odd.encode(), "pool.tsv"),
                      refused="swallows"))  # fmt: skip
    talks = pairs(8260)
    rows = [{"messages": json.dumps(row["messages"])} for row in _rows(talks)]
    cases.append(Case("messages as JSON in a table", table(rows), talks))
    talks = pairs(8270)
    rows = [{"messages": repr(row["messages"])} for row in _rows(talks)]
    cases.append(Case("messages as Python writes them", table(rows), talks))
    return cases


def _odd_values() -> list[Case]:
    """Values inside texts that JSON does not have, or that hide another one."""
    talks = pairs(8900)
    rows = [{"messages": json.dumps(row["messages"])} for row in _rows(talks)]
    odd = ['[{"role": "user", "content": "q", "weight": NaN, "n": 1e999}, '
           '{"role": "assistant", "content": "a"}]']  # fmt: skip
    talks = [*talks, [user("q"), assistant("a")]]
    cells = [*(row["messages"] for row in rows), *odd]
    cases = [Case("numbers that JSON lacks inside a cell",
                  table([{"messages": cell} for cell in cells]), talks)]  # fmt: skip
    odd = [
        '[{"role": "user", "content": "q", "content": "hidden"}]',
        "[{'role': 'user', 'content': 'q', 'content': 'hidden', 'x': None}]",
        '[{"role": "user", "content": "q \\ud800"}]',
        "[{'role': 'user', 'content': 'q', 'x': {1, 2}}]",
        "[" * 4000 + "]" * 4000,
    ]
    cells = [*(row["messages"] for row in rows), *odd]
    cases.append(Case("texts that spell no turns", table([{"messages": cell} for cell in cells]),
                      talks[:-1], drops={"not_recognized": 5}))  # fmt: skip
    half = '{"name": "f", "arguments": {"a": "\\ud800"}}'
    turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": half}]
    cases.append(Case("a call with half a character", jsonl([{"conversations": turns}]),
                      [[user("q"), assistant(half)]]))  # fmt: skip
    line = (
        b'{"id": 1e999, "messages": [{"role": "user", "content": "q", "n": -1e999},'
        b' {"role": "assistant", "content": "a"}]}\n'
    )
    large = [[user("q"), assistant("a")]]
    cases.append(Case("numbers too large", raw(line, "pool.jsonl"), large))
    return cases


def _arrow() -> list[Case]:
    cases = []
    for number, name in enumerate(("pool.parquet", "pool.arrow", "pool.feather")):
        talks, tools = with_tools(8300 + 10 * number)
        rows = [{"messages": openai(talk), "tools": [{"type": "function", "function": f}
                                                     for f in functions]}
                for talk, functions in zip(talks, tools, strict=True)]  # fmt: skip
        cases.append(Case(f"tools in {name}", arrow(rows, name), talks, tools))
    talks = pairs(8330)
    rows = [{key: text.encode() for key, text in row.items()} for row in _columns(talks)]
    cases.append(Case("texts stored as bytes", arrow(rows, "pool.parquet"), talks))
    talks = pairs(8360)
    cases.append(Case("maps in a table", _maps(talks), talks))
    for value, said in ((date(2020, 2, 29), "date 2020-02-29"), (Decimal("0.50"), "decimal 0.50"),
                        (time(7, 30), "time 07:30:00")):  # fmt: skip
        dated: list[Row] = [{"question": question(1), "answer": value}]
        cases.append(Case(f"answers of a {said}", arrow(dated, "pool.parquet"),
                          refused=f"`answer` is the {said}, not a text"))  # fmt: skip
    talks = pairs(8340)
    cases.append(Case("a saved dataset", saved(_rows(talks), splits=False), talks))
    talks = pairs(8350)
    cases.append(Case("a saved dataset of splits", saved(_rows(talks), splits=True), talks,
                      says=("split test",)))  # fmt: skip
    return cases


def _folders() -> list[Case]:
    talks = pairs(8400)
    contents = {"pool/part-0.jsonl": lines(_rows(talks)), "pool/part-1.jsonl": b"",
                "pool/part-2.jsonl": b"\n\n", "pool/stats.json": b'{"rows": 6}',
                "pool/.hidden.jsonl": b"{}", "pool/notes.txt": b"x"}  # fmt: skip
    says = ("not read, empty", "no rows", "one object that is no row", "hidden", "format .txt")
    cases = [Case("parts without rows", files(contents), talks, says=says)]
    contents = {"pool/train.jsonl": lines(_rows(pairs(8410))),
                "pool/validation.jsonl": lines(_rows(pairs(8420)))}  # fmt: skip
    cases.append(Case("a folder of splits", files(contents), pairs(8410),
                      says=("split validation",)))  # fmt: skip
    cases.append(Case("a chosen split", files(contents), pairs(8420),
                      settings={"split": "validation"}))  # fmt: skip
    contents = {"pool/test.jsonl": lines(_rows(pairs(8430))),
                "pool/dev.jsonl": lines(_rows(pairs(8440)))}  # fmt: skip
    cases.append(Case("splits without train", files(contents), refused="`split` to one"))
    contents = {"pool/a.jsonl": lines(_columns(pairs(8450))),
                "pool/b.jsonl": lines(_rows(pairs(8460)))}  # fmt: skip
    cases.append(Case("two shapes in a folder", files(contents), [*pairs(8450), *pairs(8460)]))
    contents = {f"pool/language={code}/part.jsonl": lines(_rows(pairs(8470 + 10 * n)))
                for n, code in enumerate(("de", "en"))}  # fmt: skip
    cases.append(Case("partitions", files(contents), [*pairs(8470), *pairs(8480)],
                      says=("language",)))  # fmt: skip
    cases.append(
        Case(
            "links",
            _links,
            pairs(8490),
            says=("linked folder", "link to nothing", "link that was copied"),
        )
    )
    return cases


def _archives() -> list[Case]:
    def packed(name: str, contents: Mapping[str, bytes]) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            if name.endswith(".zip"):
                with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
                    for member, content in contents.items():
                        archive.writestr(member, content)
            else:
                with tarfile.open(folder / name, "w:gz" if name.endswith("z") else "w") as archive:
                    for member, content in contents.items():
                        info = tarfile.TarInfo(member)
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
            return folder / name

        return write

    talks = pairs(8700)
    cases = [Case("a zipped file", packed("pool.jsonl.zip", {"pool.jsonl": lines(_rows(talks))}),
                  talks)]  # fmt: skip
    for number, name in enumerate(("pool.zip", "pool.tar", "pool.tar.gz", "pool.tgz")):
        first, second = pairs(8710 + 20 * number), pairs(8720 + 20 * number)
        contents = {
            "data/train.jsonl.gz": gzip.compress(lines(_rows(first))),
            "data/language=en/part.json": json.dumps(_columns(second)).encode(),
            "data/test.jsonl": lines(_rows(pairs(8700, 2))),
            "data/empty.jsonl": b"", "__MACOSX/._a.jsonl": b"x", "notes.txt": b"x",
        }  # fmt: skip
        says = ("split test", "empty: 1 files", "hidden", "format .txt", "language")
        cases.append(Case(f"archive {name}", packed(name, contents), [*first, *second], says=says))
        kept = pairs(8700, 2)
        cases.append(Case(f"a split of {name}", packed(name, contents), kept,
                          settings={"split": "test"}))  # fmt: skip
    cases.append(Case("no archive", raw(b"{}", "pool.zip"), refused="archive is damaged"))
    cases.append(Case("no archive, packed", raw(b"{}", "p.tar.gz"), refused="archive is damaged"))
    return cases


def _patterns() -> list[Case]:
    def of(pattern: str, write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        return lambda folder: write(folder).parent / pattern

    talks = pairs(8800)
    folder = files(
        {"pool/language=en/part.jsonl": lines(_rows(talks)),
         "pool/language=en/part.txt": b"x", "pool/language=en/more/x.jsonl": b"{}",
         "pool/language=en/no.jsonl": b"", "pool/language=en/test.jsonl": lines(_rows(talks))}
    )  # fmt: skip
    says = ("language", "format .txt", "folder that the pattern matches", "empty", "split test")
    cases = [Case("a pattern", of("pool/lang*/*", folder), talks, says=says)]
    linked = ("in a linked folder", "link to nothing", "link that was copied")
    cases.append(Case("a pattern at every depth", of("pool/**/*.jsonl", _links), pairs(8490),
                      says=linked))  # fmt: skip
    return cases


def _links(folder: Path) -> Path:
    for name in ("pool", "elsewhere"):
        (folder / name).mkdir()
    (folder / "pool/part-1.jsonl").write_bytes(lines(_rows(pairs(8490))))
    (folder / "elsewhere/part-2.jsonl").write_bytes(lines(_rows(pairs(8500))))
    (folder / "pool/sub").symlink_to(folder / "elsewhere")
    (folder / "pool/part-3.jsonl").symlink_to(folder / "gone.jsonl")
    (folder / "pool/part-4.jsonl").write_text("../elsewhere/part-2.jsonl")
    return folder / "pool"


def _weights() -> list[Case]:
    talks = [[user("Draft it."), assistant(f"Wrong {i}."), user("Again."), assistant(f"Right {i}.")]
             for i in range(8600, 8606)]  # fmt: skip
    cases = []
    for key, off in (("weight", 0), ("train", False), ("weight", 0.0)):
        rows = [{"messages": openai(talk)} for talk in talks]
        for row in rows:
            row["messages"][1][key] = off
        cases.append(Case(f"a turn of {key} {off}", jsonl(rows), talks))
    return cases


CONTAINER_CASES = [
    *_compressed(), *_json(), *_tables(), *_odd_values(), *_arrow(), *_folders(), *_archives(),
    *_patterns(), *_weights(),
]  # fmt: skip
