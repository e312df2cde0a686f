"""Content hashes: the same content has the same id in every process, on every machine."""

import hashlib
import json
from pathlib import Path

_PIECE = 1 << 16  # characters of a long text that are written at once


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces and UTF-8 text: one spelling for one value.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_id(value: object, n_hex: int = 16) -> str:
    """First `n_hex` hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:n_hex]


def example_id(messages: object, tools: object = None) -> str:
    """Id of an example: 32 hex digits of SHA-256 over canonical JSON of messages and tools.

    Examples with equal messages and tools are exact duplicates and share the id, whatever file,
    source or own id they come with.
    """
    return example_id_of_json(canonical_json(messages), canonical_json(tools))


def canonical_bytes(value: object) -> bytes:
    """`canonical_json` as UTF-8, of values with long texts: these are written piece by piece."""
    if isinstance(value, str) and len(value) > _PIECE:
        starts = range(0, len(value), _PIECE)
        pieces = (canonical_json(value[at : at + _PIECE])[1:-1].encode() for at in starts)
        return b'"%b"' % b"".join(pieces)
    if isinstance(value, list):
        return b"[%b]" % b",".join(map(canonical_bytes, value))
    if isinstance(value, dict):
        items = (b"%b:%b" % (canonical_bytes(k), canonical_bytes(value[k])) for k in sorted(value))
        return b"{%b}" % b",".join(items)
    return canonical_json(value).encode()


def example_id_of_json(messages: str | bytes, tools: str) -> str:
    """The id of an example whose messages and tools are written as canonical JSON already."""
    digest = hashlib.sha256(b'{"messages":')
    for piece in (messages, ',"tools":', tools, "}"):
        digest.update(piece.encode() if isinstance(piece, str) else piece)
    return digest.hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
