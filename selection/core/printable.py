"""Texts of others on a terminal: what would move its cursor or turn its lines is spelled out."""

import re

# Controls but for tab and line feed, and marks that turn or hide what follows.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e"
    "\u2060-\u2064\u2066-\u2069\ufeff\ufff9-\ufffb]"
)


def printable(text: str) -> str:
    r"""The text with every control character as its escape, such as `\x1b`; lines stay lines."""
    return _HIDDEN.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)
