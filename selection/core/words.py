"""Words of a text in any language."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

UNSPACED = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
"""Kana, Han, Thai, Lao, Myanmar, Khmer: ranges for the inside of brackets."""


_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
_STOP_WORDS = frozenset(re.findall("[a-z]+", _ENGLISH))
_PIECE = 1 << 20  # characters whose words are in memory at once
_ASCII_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """Words of any language: case-folded runs of letters, marks and digits.

    Where a script has no spaces between words, overlapping pairs of characters stand for words.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    pattern, unspaced = _patterns()
    in_text: list[str] = []
    for run in pattern.findall(unicodedata.normalize("NFKC", text).casefold()):
        if len(run) > 2 and unspaced.match(run):
            in_text.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            in_text.append(run)
    return in_text


def search_words(text: str) -> list[str]:
    """Words that a search looks for: no English stop words, no single letters or digits.

    As `bm25s.tokenize` takes them by default; the stop words are Lucene's.
    """
    return [w for w in words(text) if w not in _STOP_WORDS and (len(w) > 1 or not w.isascii())]


def text_pieces(text: str) -> Iterator[str]:
    """A text in pieces that have all its words: a long one is cut behind spaces."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + _PIECE) + 1 or len(text)
        yield text[start:end]
        start = end


def word_spans(text: str) -> list[tuple[int, int, str]]:
    """(first character, end, word) of the words of a text, where they stand in it as it is.

    The words are those of `words`, but for runs that normalization makes longer or shorter in a
    script without spaces: these have no span.
    """
    pattern, _ = _patterns()
    spans: list[tuple[int, int, str]] = []
    for run in pattern.finditer(text):
        own, first = words(run.group()), run.start()
        if len(own) == 1:
            spans.append((first, run.end(), own[0]))
        elif len(own) == run.end() - first - 1:
            spans += [(first + i, first + i + 2, pair) for i, pair in enumerate(own)]
    return spans


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    r"""Runs of one kind of script, and the start of an unspaced run.

    Python's \w leaves out combining marks, which would cut words of Indic scripts and of Arabic
    with vowel signs into pieces.
    """
    marks = "".join(
        chr(code) for code in range(0x300, 0xFFFF) if unicodedata.category(chr(code))[0] == "M"
    )
    spaced = f"(?:[^\\W_{UNSPACED}]|(?![{UNSPACED}])[{marks}])+"
    return re.compile(f"[{UNSPACED}]+|{spaced}"), re.compile(f"[{UNSPACED}]")
