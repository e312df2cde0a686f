"""How templates write a content or a tool call, and what is left of one that was rewritten.

Positions are (start, end) characters within the text that is searched.
"""

import json
from collections.abc import Iterator, Sequence


def spellings(content: str) -> Iterator[str]:
    """How templates write a content: unchanged, trimmed, or as a JSON string."""
    yield content
    yield content.rstrip()
    yield content.lstrip()
    yield content.strip()
    yield content.strip("\n")
    yield content.lstrip("\n")
    yield content.rstrip("\n")
    yield json.dumps(content, ensure_ascii=False)[1:-1]
    yield json.dumps(content)[1:-1]


def content_pieces(region: str, content: str) -> list[tuple[int, int]]:
    """What is left of a content: all of it, a part of it, or those of its lines that appear."""
    kept = region.strip()
    if kept and kept in content:
        at = region.index(kept)
        return [(at, at + len(kept))]
    return _in_order(region, [content.strip()]) or _in_order(region, content.splitlines())


def call_pieces(region: str, name: str, arguments: object) -> list[tuple[int, int]]:
    """Name and arguments of a tool call, in whichever serialization the template chose."""
    pieces = _in_order(region, [name])
    for spelling in _argument_spellings(arguments):
        spans = _in_order(region, [spelling])
        if spans:
            return sorted(pieces + spans)
    start = pieces[-1][1] if pieces else 0
    leaves = _in_order(region[start:], list(_leaves(arguments)))
    return pieces + [(start + a, start + b) for a, b in leaves]


def _argument_spellings(arguments: object) -> Iterator[str]:
    for separators in (None, (",", ":")):
        for ensure_ascii in (False, True):
            yield json.dumps(arguments, ensure_ascii=ensure_ascii, separators=separators)
    yield json.dumps(arguments, ensure_ascii=False, indent=2)
    yield json.dumps(arguments, ensure_ascii=False, indent=4)
    yield json.dumps(json.dumps(arguments, ensure_ascii=False), ensure_ascii=False)


def _leaves(value: object) -> Iterator[str]:
    """Keys and scalar values of JSON data, in order."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _in_order(region: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of those pieces that appear, each after the one before."""
    spans: list[tuple[int, int]] = []
    at = 0
    for piece in pieces:
        sought = piece.strip()
        start = region.find(sought, at) if sought else -1
        if start >= 0:
            at = start + len(sought)
            spans.append((start, at))
    return spans
