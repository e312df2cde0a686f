"""JSON files: lines, a list of rows, an object that holds one list of rows, objects in a row."""

import json
from collections.abc import Iterator
from typing import IO, BinaryIO

from selection.core.errors import InputError
from selection.core.json_text import DECODER
from selection.data.containers.listing import SPLITS
from selection.data.containers.rows import RawRow, checked_row, json_kind, parse_row
from selection.data.containers.streams import BOM, DataFile, open_text, open_utf8

_CHUNK = 1 << 20  # characters read at once
_NEAR_END = 16  # an error this near the end of what was read may be a value cut in two
_SPACE = " \t\r\n\ufeff"  # files joined by `cat` have a byte order mark between them


def iter_json(
    file: DataFile, encoding: str | None = None, split: str | None = None
) -> Iterator[RawRow]:
    """The rows of a JSON file, whatever its suffix says of lines.

    A list is read element by element, and lines one by one; only an object that holds the list in
    one of its values is read whole. An error inside a list or an object is refused here, whatever
    the source says about broken rows: what follows it cannot be told apart.
    split: which list counts in an object of several splits.
    """
    if _is_lines(file, encoding):
        with open_utf8(file, encoding) as stream:
            yield from iter_lines(stream, file.name)
        return
    with open_text(file, encoding) as text:
        try:
            yield from _Elements(text, file.name, split)
        except UnicodeDecodeError as error:
            raise InputError(
                f"not UTF-8 text ({error.reason})",
                file=file.name,
                field="encoding",
                remedy="Save the file as UTF-8, or name its encoding, e.g. `encoding: cp1252`.",
            ) from None


def iter_lines(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    """Rows of JSON lines; blank lines are no rows, but they count as lines.

    A byte order mark may begin any line: joined files have one in the middle.
    """
    number = 0
    while line := _next_line(stream, name, number := number + 1):
        content = line.removeprefix(BOM).strip()
        del line  # the row is kept while others work on it; a line may be long
        if content:
            row = [parse_row(content, name, number)]
            del content
            yield row.pop()


def _next_line(stream: BinaryIO, name: str, number: int) -> bytes:
    """One line; empty at the end. Raises InputError for one that would fill the memory."""
    line = stream.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise InputError(
            f"a line is longer than {LONGEST_LINE >> 20} MB",
            file=name,
            line=number,
            remedy="A row is one line. Is this another kind of file, or an archive made to fill"
            " the memory?",
        )
    return line


LONGEST_LINE = 1 << 28
"""Bytes of a line of JSON: more than any sample has."""


def _is_lines(file: DataFile, encoding: str | None) -> bool:
    """Whether the file is lines of one value each: JSONL, unless its lines begin with a list.

    A file that is named .json is lines if its first is a whole object and another one follows.
    """
    is_named = file.suffix != ".json"
    with open_utf8(file, encoding) as stream:
        first, number = b"", 0
        while line := _next_line(stream, file.name, number := number + 1):
            if not (content := line.removeprefix(BOM).strip()):
                continue
            if first or (is_named and not content.startswith(b"[")):
                return True
            if not content.startswith(b"{") or parse_row(content, file.name, 1).value is None:
                return False
            first = content
    return is_named


class _Elements:
    """The elements of a JSON list, read in pieces; or the rows that an object holds."""

    def __init__(self, text: IO[str], name: str, split: str | None) -> None:
        self._text, self._name, self._split = text, name, split
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False
        self._start = 0  # where the value begins that `_value` gave last

    def __iter__(self) -> Iterator[RawRow]:
        first = self._next_character()
        if first == "[":
            row = 0
            while self._next_character() == "[":  # joined files hold one list after another
                self._at += 1
                for element in self._list(row):
                    row = element.row
                    yield element
            self._end()
        elif first == "{":
            line, value = self._line_here(), self._value()
            if self._next_character() == "{":
                yield from self._objects(value, line)
            else:
                self._end()
                yield from self._rows_of(value)
        elif first:
            raise self._broken("a pool is a list of rows or an object that holds one")

    def _objects(self, value: object, line: int) -> Iterator[RawRow]:
        """Objects one after another, each over as many lines as it likes."""
        row = 1
        yield checked_row(value, json.dumps(value), self._name, row, line)
        while self._next_character():
            row, line = row + 1, self._line_here()
            value = self._value()
            yield checked_row(value, self._buffer[self._start : self._at], self._name, row, line)
            if self._next_character() == ",":
                self._at += 1

    def _list(self, row: int) -> Iterator[RawRow]:
        if self._next_character() == "]":
            self._at += 1
            return
        while True:
            self._next_character()
            row += 1
            line = self._line_here()
            value = self._value()
            text = self._buffer[self._start : self._at]
            yield checked_row(value, text, self._name, row, line)
            after = self._next_character()
            if after == "]":
                self._at += 1
                return
            if after != ",":
                raise self._broken("expected a comma or the end of the list")
            self._at += 1

    def _end(self) -> None:
        if self._next_character():
            raise self._broken("more text follows the end")

    def _rows_of(self, value: object) -> Iterator[RawRow]:
        if conversion := _by_columns(value):
            raise InputError(
                "the file holds columns or numbered rows, not a list of rows",
                file=self._name,
                value=list(value)[:4] if isinstance(value, dict) else None,
                remedy=f"Convert it: {conversion}",
            )
        lists = _row_lists(value)
        if self._split in lists:
            lists = {self._split: lists[self._split]}
        if len(lists) > 1:
            split = next((f" or set e.g. `split: {key}`" for key in lists if key in SPLITS), "")
            raise InputError(
                "the object holds several lists of rows",
                file=self._name,
                value=sorted(lists),
                remedy=f"Keep one of them in the file, as a list,{split or ''}.".replace(",.", "."),
            )
        rows = next(iter(lists.values()), [value])
        for row, item in enumerate(rows, 1):
            yield checked_row(item, json.dumps(item), self._name, row, None)

    def _value(self) -> object:
        """The value that starts here; reads on while it may be cut off."""
        while True:
            self._start = self._at
            try:
                value, end = DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._buffer) - _NEAR_END
                if self._ended or not (cut or error.msg.startswith("Unterminated string")):
                    self._at = error.pos
                    raise self._broken(error.msg) from None
            except (RecursionError, ValueError) as error:
                raise self._broken(str(error)) from None
            else:
                if end < len(self._buffer) or self._ended:  # else a number may go on
                    self._at = end
                    return value
            self._read_more(max(_CHUNK, len(self._buffer)))

    def _next_character(self) -> str:
        """Skip spaces; the character found, or "" at the end of the file."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _SPACE:
                    return self._buffer[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._read_more(_CHUNK)

    def _read_more(self, n_characters: int) -> None:
        piece = self._text.read(n_characters)
        self._ended = not piece
        self._line += self._buffer.count("\n", 0, self._at)
        self._buffer, self._at = self._buffer[self._at :] + piece, 0

    def _line_here(self) -> int:
        return self._line + self._buffer.count("\n", 0, self._at)

    def _broken(self, problem: str) -> InputError:
        return InputError(
            f"not JSON: {problem}",
            file=self._name,
            line=self._line_here(),
            remedy="Repair the file; a pool with one row a line (.jsonl) can skip broken rows.",
        )


def _by_columns(value: object) -> str:
    """How to convert an object that pandas wrote by columns or by numbers; "" for any other."""
    if not isinstance(value, dict) or len(value) < 1:
        return ""
    read, write = "import pandas as pd; pd.", '.to_json("pool.jsonl", orient="records", lines=True)'
    inner = list(value.values())
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return f'{read}read_json(FILE, orient="split"){write}'
    if all(isinstance(item, dict) and item for item in inner):
        if all(key.isdigit() for key in value):
            return f'{read}read_json(FILE, orient="index"){write}'
        if all(key.isdigit() for item in inner for key in item):
            return f"{read}read_json(FILE){write}"
    lists = [item for item in inner if isinstance(item, list) and not _all_objects(item)]
    if len(lists) == len(inner) > 1 and len({len(item) for item in lists}) == 1:
        return f"{read}DataFrame(json.load(open(FILE))){write}"
    return ""


def _row_lists(value: object) -> dict[str, list[object]]:
    """The lists of objects that an object holds, unless it is itself a row.

    A row is what has turns (`messages: [{role: ...}]`) or exemplars of a target.
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {json_kind(value)}")
    lists = {k: v for k, v in value.items() if isinstance(v, list) and v and _all_objects(v)}
    has_turns = any("role" in v[0] or "from" in v[0] for v in lists.values())
    return {} if has_turns or "target" in value else lists


def _all_objects(values: list[object]) -> bool:
    return all(isinstance(value, dict) for value in values)
