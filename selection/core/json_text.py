"""JSON as people write it: what JSON does not have is null, and no key stands twice."""

import json
import math
import secrets
from typing import Any

LONG = 1 << 20
"""Bytes or characters of a text that is held in memory as rarely as possible."""

_PIECE = 1 << 16  # bytes of a long text that are decoded at once


class Typed(str):
    """The text of a date or a decimal of a table; it says nothing of how it is to be written."""

    kind: str

    @classmethod
    def of(cls, value: object, text: str) -> "Typed":
        """A text that remembers what it was."""
        typed = cls(text)
        typed.kind = type(value).__name__.lower()
        return typed


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text of a file. Raises ValueError for no JSON, and for one too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decoded(text: str) -> object:
    """The value of a JSON text that a cell holds.

    Raises ValueError for a text that is no JSON, or in which a key stands twice or a character is
    half; RecursionError for one that is nested too deep.
    """
    value = DECODER.decode(text)
    if "\\u" in text and not is_unicode(value):
        raise ValueError("a text holds half a character")
    return value


def decoded_utf8(line: bytes) -> tuple[Any, str]:
    """The value of a JSON text in UTF-8, and that text; of a long line without its long texts.

    One wide character makes every character of a text take four bytes, so a long text is decoded
    by itself: the line as a whole is never one. Raises as `DECODER` does, UnicodeDecodeError too.
    """
    if len(line) > LONG:
        try:
            return _decoded_long(line)
        except (ValueError, RecursionError):
            pass  # the error that names the place comes from the whole text
    text = line.decode()
    return DECODER.decode(text), text


def _decoded_long(line: bytes) -> tuple[object, str]:
    mark, pieces, at = secrets.token_hex(8), list[str](), 0
    texts: dict[str, str] = {}
    for start, end in _long_strings(line):
        name = f"{mark}{len(texts)}"
        texts[name] = _long_text(line, start, end)
        pieces += [line[at:start].decode(), name]
        at = end
    rest = "".join([*pieces, line[at:].decode()])
    return _filled(DECODER.decode(rest), texts), rest


def _long_strings(line: bytes) -> list[tuple[int, int]]:
    """Where the insides of JSON's long strings begin and end."""
    plain = line.replace(rb"\\", b"__").replace(rb"\"", b"__")  # now every quote begins or ends one
    spans, at = list[tuple[int, int]](), 0
    while start := plain.find(b'"', at) + 1:
        end = plain.find(b'"', start)
        if end - start > LONG:
            spans.append((start, end))
        at = end + 1 or len(plain)
    return spans


def _long_text(line: bytes, start: int, end: int) -> str:
    """The text that a JSON string spells; decoded in pieces that end behind a space."""
    text, size = bytearray(end - start), 0  # its UTF-8 is never longer than its spelling
    while start < end:
        after = line.find(b" ", start + _PIECE, end) + 1 or end
        piece = str(DECODER.decode(f'"{line[start:after].decode()}"')).encode()
        text[size : size + len(piece)] = piece
        start, size = after, size + len(piece)
    return str(memoryview(text)[:size], "utf-8")


def _filled(value: object, texts: dict[str, str]) -> object:
    """The value with the texts in place of their names."""
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, list):
        return [_filled(item, texts) for item in value]
    if isinstance(value, dict):
        return {texts.get(key, key): _filled(item, texts) for key, item in value.items()}
    return value


def is_unicode(value: object) -> bool:
    """Whether all texts of a JSON value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _null(_: str) -> None:
    return None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; a key that stands twice would hide one of its values."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key `{twice}` stands twice in one object")
    return value


DECODER = json.JSONDecoder(parse_constant=_null, parse_float=_finite, object_pairs_hook=_object)
"""The one JSON reader of data: NaN and infinities are null, and no key may stand twice."""
