"""Raw rows: what a file holds before anyone asks what it means."""

import json
import math
import re
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from selection.core.json_text import DECODER, LONG, Typed, decoded_utf8, is_unicode

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_JSON = re.compile(r"\b(NaN|Infinity)\b")
_BEFORE_KEY = re.compile(r"[\s{,]*")
_BEFORE_VALUE = re.compile(r"[\s:]*")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in a file.

    file:  the file as the user named it.
    row:   1-based line (JSONL) or row number (everything else; a CSV header is not counted).
    value: the row, or None when it is not readable; then `error` says why, as a clause.
    text:  the row's own JSON where it has one, else None; kept so that raw rows stay unchanged.
           The bytes of it where it is long: a text may take four times as many in memory.
    line:  1-based line in the file where it is known, for messages.
    missing: columns whose cell spells a missing value (`nan`), in a format that has only texts.
    """

    file: str
    row: int
    value: dict[str, object] | None
    error: str = ""
    text: str | bytes | None = None
    line: int | None = None
    missing: tuple[str, ...] = ()

    def raw_json(self) -> str | bytes:
        """The row as JSON, UTF-8 where it is bytes: its own text, or its values in their order."""
        return json.dumps(self.value, ensure_ascii=False) if self.text is None else self.text

    def n_bytes(self) -> int:
        """Size of its JSON as UTF-8."""
        text = self.raw_json()
        return len(text) if isinstance(text, bytes) else len(text.encode())

    def spelling(self, name: str) -> str:
        """The JSON of one cell: as the file spells it if the row is JSON itself, else written."""
        text, at = self.text, 0
        text = text.decode() if isinstance(text, bytes) else text
        while text and self.line is not None:
            at = _end(_BEFORE_KEY, text, at)
            if text[at] == "}":
                break
            key, at = DECODER.raw_decode(text, at)
            start = _end(_BEFORE_VALUE, text, at)
            _, at = DECODER.raw_decode(text, start)
            if key == name:
                return text[start:at]
        return json.dumps((self.value or {})[name], ensure_ascii=False)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def parse_row(line: bytes, file: str, row: int) -> RawRow:
    """Read one line of a JSONL file.

    NaN and infinities, which JSON does not have but Python writes, are read as null.
    """
    try:
        value, text = decoded_utf8(line)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} is not UTF-8 text"
        return RawRow(file, row, None, problem, line=row)
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at column {error.colno}"
        return RawRow(file, row, None, problem, line=row)
    except (RecursionError, ValueError) as error:  # nested too deep; a number with too many digits
        return RawRow(
            file,
            row,
            None,
            str(error) if "twice" in str(error) else f"not JSON that can be read: {error}",
            line=row,
        )
    checked = checked_row(value, text, file, row, row)
    is_long = len(line) > LONG and checked.text is not None
    return replace(checked, text=line) if is_long else checked


def checked_row(value: object, text: str, file: str, row: int, line: int | None) -> RawRow:
    """Make a row of a parsed JSON value; one that is no object, or no valid text, is an error.

    text: the JSON it was read from; kept as the row's own where it is valid and on one line.
    """
    if not isinstance(value, dict):
        problem = f"a row must be a JSON object, but this is {json_kind(value)}"
        return RawRow(file, row, None, problem, line=line)
    if "\\u" in text and _SURROGATE.search(text) and not is_unicode(value):
        problem = r"a text holds half a character (a lone \ud800-\udfff escape)"
        return RawRow(file, row, None, problem, line=line)
    has_no_json = ("NaN" in text or "Infinity" in text) and _NOT_JSON.search(text)
    own_text = None if "\n" in text or has_no_json else text
    return RawRow(file, row, value, text=own_text, line=line)


def json_kind(value: object) -> str:
    """What JSON calls a value, with its article: `a list`, `a text`, `null`."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def jsonable(value: object) -> object:
    """A value of a table (Parquet, a dataset) as JSON has it.

    Dates become ISO text, decimals and unknown objects text, NaN and infinities null. Bytes that
    are UTF-8 are text, as some writers store it; others become `{"n_bytes": n}` (a pool is text;
    media rows are dropped).
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, datetime | date | time):
        return Typed.of(value, value.isoformat())
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray):
        return _text_of_bytes(bytes(value))
    return Typed.of(value, str(value)) if isinstance(value, Decimal) else _unknown(value)


def _text_of_bytes(value: bytes) -> object:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return {"n_bytes": len(value)}
    return {"n_bytes": len(value)} if "\0" in text else text


def _unknown(value: object) -> object:
    """Arrays and scalars of numpy by their own lists; anything else by its text."""
    as_list = getattr(value, "tolist", None)
    return jsonable(as_list()) if callable(as_list) else str(value)
