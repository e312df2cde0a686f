"""A .json file: a list of rows, an object that holds one list of rows, or JSON lines misnamed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from selection.core.errors import InputError
from selection.data.readers.rows import DECODER, RawRow, checked_row, json_kind, parse_row
from selection.data.readers.streams import open_bytes, open_text

_CHUNK = 1 << 20  # characters read at once
_NEAR_END = 16  # an error this near the end of what was read may be a value cut in two
_SPACE = " \t\r\n"


def iter_json(path: Path, name: str) -> Iterator[RawRow]:
    """The rows of a .json file.

    A list is read element by element, and lines one by one; only an object that holds the list in
    one of its values is read whole. An error inside a list or an object is refused here, whatever
    the source says about broken rows: what follows it cannot be told apart.
    """
    if _is_lines(path, name):
        with open_bytes(path, name) as stream:
            for number, line in enumerate(stream, 1):
                if content := line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield parse_row(content, name, number)
        return
    with open_text(path, name) as text:
        try:
            yield from _Elements(text, name)
        except UnicodeDecodeError as error:
            raise InputError(
                f"not UTF-8 text ({error.reason})", file=name, remedy="Save the file as UTF-8."
            ) from None


def _is_lines(path: Path, name: str) -> bool:
    """Whether the first line is a whole JSON object and another line follows."""
    with open_bytes(path, name) as stream:
        first = b""
        for line in stream:
            if not (content := line.removeprefix(b"\xef\xbb\xbf").strip()):
                continue
            if first:
                return True
            if not content.startswith(b"{") or parse_row(content, name, 1).value is None:
                return False
            first = content
    return False


class _Elements:
    """The elements of a JSON list, read in pieces; or the rows that an object holds."""

    def __init__(self, text: IO[str], name: str) -> None:
        self._text, self._name = text, name
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False
        self._start = 0  # where the value begins that `_value` gave last

    def __iter__(self) -> Iterator[RawRow]:
        first = self._next_character()
        if first == "[":
            self._at += 1
            yield from self._list()
            self._end()
        elif first == "{":
            value = self._value()
            self._end()
            yield from self._rows_of(value)
        elif first:
            raise self._broken("a pool is a list of rows or an object that holds one")

    def _list(self) -> Iterator[RawRow]:
        row = 0
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
        lists = _row_lists(value)
        if len(lists) > 1:
            raise InputError(
                "the object holds several lists of rows",
                file=self._name,
                value=sorted(lists),
                remedy="Keep one of them in the file, as a list.",
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
