"""JSON as people write it: what JSON does not have is null, and no key stands twice."""

import json
import math


def decoded(text: str) -> object:
    """The value of a JSON text that a cell holds.

    Raises ValueError for a text that is no JSON, or in which a key stands twice or a character is
    half; RecursionError for one that is nested too deep.
    """
    value = DECODER.decode(text)
    if "\\u" in text and not is_unicode(value):
        raise ValueError("a text holds half a character")
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
