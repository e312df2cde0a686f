"""How a reason is worded where a reader sees a few of them: in `show`, on pages, in reports.

A reason is a latent, a word or a token that a sample shares with its exemplar. The catalog keeps
it as it is; here it becomes something to read: a token that is a piece of a word stands in its
word, and signs that say nothing by themselves are counted instead of listed.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from selection.core.words import UNSPACED
from storage.wording.numbers import spelled, spellings

TOKENS, WORDS = "tokens", "words"
"""Names of the lexical spaces; the reasons of all others are latents."""

_CONTEXT = 16  # characters of a word shown on either side of a piece of it
_LONGEST = 40  # characters of a token or word shown
_LOST = "\ufffd"  # decoders write it for bytes that are no whole character
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_AS_IN = "”, as in …"  # between the tokens and the example of a description made from both
_BEFORE = 24  # such an example has at most so many characters before its token
_KEPT = 1 << 14  # texts whose words are remembered: those of a selection come again and again
_PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {10: "⏎", 9: "⇥", 127: "\u2421"}
_VISIBLE = _PICTURES | spellings((*range(0x80, 0xA0), 0x2028, 0x2029))
_ON, _AS = "a latent on ", "a latent as in "  # what follows is in quotation marks
_SYMBOLS = {"So", "Sm", "Sc"}  # categories: emoji and the like, mathematics, money
_UNSPACED = re.compile(f"[{UNSPACED}]")


class Kind(Enum):
    """What a reader gets from a term."""

    READABLE = "letters, what hangs on them, digits, or a symbol such as an emoji or an arrow"
    SIGN = "punctuation"
    BLANK = "spaces or line breaks"
    BYTES = "bytes that are part of a character"


class Worded(NamedTuple):
    """A reason in words, and whether they say something by themselves."""

    words: str
    kind: Kind


class Spot(NamedTuple):
    """Characters first to end of a turn's text."""

    turn: int
    first: int
    end: int


def reason_words(
    space: str | None,
    number: int,
    text: str | None,
    turns: Sequence[str] = (),
    places: Sequence[Spot] = (),
) -> Worded:
    """One reason in words.

    space, number: of the latent; a lexical space is called `tokens` or `words`.
    text:   the token or word, or the description of a latent; None where there is none.
    turns:  texts of the turns of the sample that has the reason; none where they are not known.
    places: where it fired in them, the strongest first; none where that was not recorded. Those
            outside the texts count as none.

    “pupil” is a whole word, “pup[il]” a token within its word, “…il” one whose word is not known,
    “phot…” the beginning of one. Words of a latent say that it is one, unless
    somebody described it.
    """
    places = [p for p in places if p.turn < len(turns) and p.end <= len(turns[p.turn])]
    if space == TOKENS and text is not None:
        return _token_words(text, turns, places)
    if space == WORDS and text is not None:
        return Worded(quoted(text), Kind.READABLE)
    return Worded(_latent_words(number, text, turns, places), Kind.READABLE)


def full_words(space: str | None, text: str | None, worded: Worded) -> str:
    """The same where everything is listed: a term as it is, and its word where that says more."""
    if space not in (TOKENS, WORDS) or text is None:
        return visible(text or "")
    term = quoted(text)
    bare = quoted(_bare(text).strip())  # a space or its lack says nothing of the word
    says_more = worded.kind is Kind.READABLE and worded.words not in (term, bare)
    is_in_word = worded.words.count("[") > bare.count("[")  # a term may have brackets of its own
    if says_more and (is_in_word or _LOST in text):
        return f"{term} in {worded.words}"
    return f"{term}, maybe a piece of a word" if says_more and "…" in worded.words else term


def folded(reasons: Sequence[Worded], most: int | None = None) -> list[tuple[str, list[int]]]:
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
    items = [(_several(words, len(places)), places) for words, places in shown.items()]
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
    for made in (_ON, _AS):
        if n > 1 and words.startswith(made):
            return f"{n} latents{words.removeprefix('a latent')}"
    return words


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


def _token_words(term: str, turns: Sequence[str], places: Sequence[Spot]) -> Worded:
    """A token within its word: where it fired, else where it must stand, else as a piece."""
    if places:
        shown = Counter(_in_word(turns[p.turn], p.first, p.end) for p in places)
        words = next(iter(shown.most_common(1)))[0]
        if words.strip():
            return Worded(_in_quotes(words), kind_of(words))
    kind = kind_of(term)
    if kind is not Kind.READABLE:
        return Worded(quoted(term), kind)
    term = _bare(term)
    return Worded(_in_quotes(_found(term, turns) or _piece(term, turns)), kind)


def _found(term: str, turns: Sequence[str]) -> str | None:
    """The word that a token has in a text, as far as the text alone leaves no doubt; else None.

    Where the text does not have it as it is, letters of either case will do, and a token that
    begins with ## is looked for inside words: encoders read so.
    """
    found = _word_of(term, turns, turns)
    lower = _lower(term.strip(), turns)
    return _word_of(term, lower, turns) if found is None and lower is not turns else found


def _lower(core: str, turns: Sequence[str]) -> Sequence[str]:
    """The texts in which a token is looked for: in lower letters where they lack it as it is."""
    if any(core in text for text in turns):
        return turns
    lower = [text.lower() for text in turns]
    same = all(len(one) == len(two) for one, two in zip(lower, turns, strict=True))
    return lower if same else turns


def _word_of(term: str, looked: Sequence[str], turns: Sequence[str]) -> str | None:
    """The word in `turns` of a token that is looked for in `looked`, texts of the same lengths.

    A token with a space before it begins a word, and a word that is a token is not cut: where it
    stands alone, it is that word. Otherwise all places have to give the same word.
    """
    core, begins = term.strip(), term[:1].isspace()
    continues = _continues(term) and not any(core in text for text in looked)
    core = core[2:] if continues else core
    found: set[str] = set()
    for own, at in _occurrences(core, looked, turns):
        is_inside = at > 0 and _joins(own[at - 1])
        is_spaced = at == 0 or own[at - 1].isspace()
        if (is_spaced or not begins) and (is_inside or not continues):
            word = _in_word(own, at, at + len(core))
            if begins and word == _cut(own[at : at + len(core)]):
                return word
            found.add(word)
            if len(found) > 1 and not begins:
                return None
    return found.pop() if len(found) == 1 else None


def _occurrences(
    core: str, looked: Sequence[str], turns: Sequence[str]
) -> Iterator[tuple[str, int]]:
    """Every place of some characters in `looked`: the text of `turns` there, and their first."""
    for text, own in zip(looked, turns, strict=True):
        at = text.find(core)
        while at >= 0:
            yield own, at
            at = text.find(core, at + 1)


def _continues(term: str) -> bool:
    """Whether an encoder's token goes on with a word."""
    return term.startswith("##") and len(term) > 2 and _joins(term[2])


def _piece(term: str, turns: Sequence[str]) -> str:
    """A token whose word is not known, with dots where the word may go on.

    Many tokenizers give the first token of a word no space: one that stands at the start of a word
    in `turns` has no dots before it, and one that is a word there has none at all.
    """
    core = term[2:] if _continues(term) else term.strip()
    starts, is_whole = term[:1].isspace(), False
    if not starts and not _continues(term):
        starts, is_whole = _stands(core, turns)
    before = "…" if core[0] == _LOST or (_joins(core[0]) and not starts) else ""
    goes_on = before == "" and not is_whole and _joins(core[-1])
    after = "…" if core[-1] == _LOST or goes_on else ""
    return f"{before}{_cut(core.strip(_LOST))}{after}"


def _stands(core: str, turns: Sequence[str]) -> tuple[bool, bool]:
    """Whether characters stand at the start of a word somewhere, and whether they are one."""
    starts = False
    for own, at in _occurrences(core, _lower(core, turns), turns):
        end = at + len(core)
        if at == 0 or not _joins(own[at - 1]):
            starts = True
            if end == len(own) or not _joins(own[end]):
                return True, True
    return starts, False


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


def _latent_words(
    number: int, text: str | None, turns: Sequence[str], places: Sequence[Spot]
) -> str:
    """What somebody wrote about a latent; else where it fired here; else where it fires elsewhere.

    Descriptions made of tokens begin with a quotation mark.
    """
    if text and not text.startswith("“"):
        return visible(text)
    for place in places:
        said = _in_word(turns[place.turn], place.first, place.end, neighbors=True)
        if kind_of(said) is Kind.READABLE:
            return f"{_ON}{_in_quotes(said)}"
    example = _example(text) if text else ""
    return f"{_AS}{_in_quotes(example)}" if example else f"latent {number}"


def _example(description: str) -> str:
    """The example of a description, cut down to its token and the word around it; empty if none.

    Brackets are around the token, but the text may have some as well: those that hold one of the
    named tokens count, else those where the token stands in an example of full length.
    """
    head, is_there, example = description.partition(_AS_IN)
    if not is_there:
        return ""
    example = example.removesuffix("…")
    tokens = re.findall("“(.*?)(?:” |$)", head)
    starts = [
        m.start() for m in re.finditer(r"\[", example) if example.find("]", m.start() + 2) > 0
    ]
    pairs = [(first, example.index("]", first + 2)) for first in starts]
    named = [pair for pair in pairs if example[pair[0] + 1 : pair[1]] in tokens]
    usual = [pair for pair in pairs if pair[0] == _BEFORE]
    for first, end in [*named, *usual, *pairs][:1]:
        inside, after = example[first + 1 : end], example[end + 1 :]
        text = example[:first] + inside + after
        if _LOST in inside:
            return ""
        said = _in_word(text.replace("⏎", "\n"), first, first + len(inside), neighbors=True)
        return said if kind_of(said) is Kind.READABLE else ""
    return ""
