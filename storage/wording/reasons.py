"""How a reason is labelled where a reader sees a few of them: in `show`, on pages, in reports.

A reason is a latent, a word or a token that a sample shares with its exemplar. The catalog keeps
it as it is; here it becomes something to read: a token stands in the word in which it is active,
as far as its span was recorded, and signs that say nothing by themselves are counted, not listed.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from selection.core.numbers import spelled, spellings
from selection.core.words import UNSPACED

TOKENS, WORDS = "tokens", "words"
"""Names of the lexical spaces; the reasons of all others are latents."""

_CONTEXT = 16  # characters of a word shown on either side of a piece of it
_LONGEST = 40  # characters of a token or word shown
_LOST = "\ufffd"  # decoders write it for bytes that are no whole character
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_EXAMPLE = ", as in …"  # between the tokens and the example of a description made from both
_KEPT = 1 << 14  # texts whose words are remembered: those of a selection come again and again
_PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {10: "⏎", 9: "⇥", 127: "\u2421"}
_VISIBLE = _PICTURES | spellings((*range(0x80, 0xA0), 0x2028, 0x2029))
_ON = "a latent on "  # what follows is in quotation marks
_SYMBOLS = {"So", "Sm", "Sc"}  # categories: emoji and the like, mathematics, money
_UNSPACED = re.compile(f"[{UNSPACED}]")


class Kind(Enum):
    """What a reader gets from a term."""

    READABLE = "letters, what hangs on them, digits, or a symbol such as an emoji or an arrow"
    SIGN = "punctuation"
    BLANK = "spaces or line breaks"
    BYTES = "bytes that are part of a character"


class Label(NamedTuple):
    """A reason in words, and whether they say something by themselves."""

    words: str
    kind: Kind


class Span(NamedTuple):
    """Characters first to end of a turn's text."""

    turn: int
    first: int
    end: int


def reason_words(
    space: str | None,
    number: int,
    text: str | None,
    turns: Sequence[str] = (),
    spans: Sequence[Span] = (),
) -> Label:
    """One reason in words.

    space, number: of the latent; a lexical space is called `tokens` or `words`.
    text:   the token or word, or the description of a latent; None where there is none.
    turns:  texts of the turns of the sample that has the reason; none where they are not known.
    spans:  where it is active in them, the strongest first; none where that was not recorded. Those
            outside the texts count as none.

    “pupil” is a whole word or a token whose span is not known, “pup[il]” a token within its word.
    Words of a latent say that it is one, unless somebody described it.
    """
    spans = [p for p in spans if p.turn < len(turns) and p.end <= len(turns[p.turn])]
    if space == TOKENS and text is not None:
        return _token_label(text, turns, spans)
    if space == WORDS and text is not None:
        return Label(quoted(text), Kind.READABLE)
    return Label(_latent_text(number, text, turns, spans), Kind.READABLE)


def full_words(space: str | None, text: str | None, label: Label) -> str:
    """The same where everything is listed: a term as it is, and its word where that says more."""
    if space not in (TOKENS, WORDS) or text is None:
        return visible(text or "")
    term = quoted(text)
    bare = quoted(_bare(text).strip())  # a space or its lack says nothing of the word
    says_more = label.kind is Kind.READABLE and label.words not in (term, bare)
    is_in_word = label.words.count("[") > bare.count("[")  # a term may have brackets of its own
    return f"{term} in {label.words}" if says_more and (is_in_word or _LOST in text) else term


def merge_labels(reasons: Sequence[Label], most: int | None = None) -> list[tuple[str, list[int]]]:
    """The first `most` readable reasons, and all that stood between them as one item, last.

    Returns (words, positions of the reasons that the words stand for); nothing that stands behind
    the last readable one counts, where enough of these are there. Tokens of the same words are one
    item, and so are latents, which are counted: they need not be the same thing.
    """
    readable = Kind.READABLE
    shown: dict[str, list[int]] = {}
    others: list[int] = []
    for at, (words, kind) in enumerate(reasons):
        if kind is not readable:
            others.append(at)
        elif words in shown:
            shown[words].append(at)
        else:
            shown[words] = [at]
            if len(shown) == most:
                break
    items = [(_several(words, len(at)), at) for words, at in shown.items()]
    if others:
        items.append((_counted(tuple([reasons[at].kind for at in others])), others))
    return items


@lru_cache(maxsize=_KEPT)
def quoted(text: str) -> str:
    """A term in quotation marks, on one line, cut where it is long."""
    return _in_quotes(_cut(text))


def _bare(term: str) -> str:
    """A token with a space where some tokenizers write a sign for it."""
    return term.replace("\u2581", " ")


def _in_quotes(words: str) -> str:
    """What is cut already, in quotation marks, on one line."""
    return f"“{visible(words)}”"


def visible(text: str) -> str:
    """Line breaks, tabs and other controls as signs, so that a text stays on one line.

    Those that have no sign, and controls of writing direction, are spelled out: ⟨U+2028⟩.
    """
    return text if text.isprintable() else spelled(text.translate(_VISIBLE))


@lru_cache(maxsize=_KEPT)
def kind_of(term: str) -> Kind:
    """What a reader gets from a term: letters or digits of any script, a symbol, or neither.

    Signs of mathematics and money within ASCII are those of code, and count as punctuation.
    """
    if any(char.isalnum() or _is_mark(char) for char in _BYTE.sub("", term)):
        return Kind.READABLE
    if _LOST in term or _BYTE.search(term):
        return Kind.BYTES
    if any(unicodedata.category(char) in _SYMBOLS and not char.isascii() for char in term):
        return Kind.READABLE
    return Kind.SIGN if term.strip() else Kind.BLANK


def _is_mark(char: str) -> bool:
    """Whether it hangs on a letter and can be seen: vowel signs of Indic scripts, say."""
    return unicodedata.category(char)[0] == "M" and not "\ufe00" <= char <= "\ufe0f"


def _several(words: str, n: int) -> str:
    """Words of n reasons: what was made of a latent says how many they are."""
    is_latent = n > 1 and words.startswith(_ON)
    return f"{n} latents{words.removeprefix('a latent')}" if is_latent else words


@lru_cache(maxsize=_KEPT)
def _counted(kinds: tuple[Kind, ...]) -> str:
    """Signs and the like as a number of them."""
    n = Counter(kinds)
    n_marks = n[Kind.SIGN] + n[Kind.BLANK]
    if not n[Kind.SIGN]:
        marks = "1 space or line break" if n_marks == 1 else f"{n_marks} spaces or line breaks"
    else:
        marks = f"{n_marks} punctuation mark{'' if n_marks == 1 else 's'}"
        marks += " and spaces" if n[Kind.BLANK] else ""
    n_bytes = n[Kind.BYTES]
    parts = "1 part of a character" if n_bytes == 1 else f"{n_bytes} parts of characters"
    return " and ".join(each for each, count in ((marks, n_marks), (parts, n_bytes)) if count)


def _token_label(term: str, turns: Sequence[str], spans: Sequence[Span]) -> Label:
    """A token within the word in which it stands most often; as it is where no span is recorded."""
    if spans:
        shown = Counter(_in_word(turns[p.turn], p.first, p.end) for p in spans)
        words = next(iter(shown.most_common(1)))[0]
        if words.strip():
            return Label(_in_quotes(words), kind_of(words))
    kind = kind_of(term)
    return Label(quoted(_bare(term).strip() if kind is Kind.READABLE else term), kind)


def _latent_text(
    number: int, description: str | None, turns: Sequence[str], spans: Sequence[Span]
) -> str:
    """What somebody wrote about a latent; else where it is active here; else on which tokens.

    Descriptions made of tokens begin with a quotation mark, and end with an example.
    """
    if description and not description.startswith("“"):
        return visible(description)
    for span in spans:
        words = _in_word(turns[span.turn], span.first, span.end, neighbors=True)
        if kind_of(words) is Kind.READABLE:
            return f"{_ON}{_in_quotes(words)}"
    tokens = (description or "").partition(_EXAMPLE)[0]
    return f"{_ON}{visible(tokens)}" if tokens else f"latent {number}"


def _in_word(text: str, first: int, end: int, *, neighbors: bool = False) -> str:
    """Some characters of a text with the rest of their word, in brackets unless they are all of it.

    Long ones are cut, each part for itself, so that both brackets stay.
    neighbors: where they are signs, with the words that touch them.
    """
    inside = text[first:end].strip()
    if inside:
        first = text.index(inside, first)
        end = first + len(inside)
    elif neighbors and first < end:  # a line break, say: its first character stands for it
        end = first + 1
        inside = text[first]
    else:
        return ""
    left, right = first, end
    # One character more than is shown tells that there are more.
    far_left, far_right = max(0, first - _CONTEXT - 1), min(len(text), end + _CONTEXT + 1)
    if neighbors or _joins(inside[0]):
        while left > far_left and _joins(text[left - 1]):
            left -= 1
    if neighbors or _joins(inside[-1]):
        while right < far_right and _joins(text[right]):
            right += 1
    if left == first and right == end:
        return _cut(inside)
    before, after = text[left:first], text[end:right]
    before = before if len(before) <= _CONTEXT else "…" + before[1 - _CONTEXT :]
    after = after if len(after) <= _CONTEXT else after[: _CONTEXT - 1] + "…"
    return f"{before}[{_cut(inside)}]{after}"


@lru_cache(maxsize=_KEPT)
def _joins(char: str) -> bool:
    """Whether a character belongs to the word beside it: letters, digits, and what hangs on them.

    Scripts without spaces between words have no such thing: there every character stands alone.
    """
    if char.isascii():
        return char.isalnum()
    is_part = char.isalnum() or unicodedata.category(char)[0] == "M" or char in "\u200c\u200d"
    return is_part and not _UNSPACED.match(char)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
