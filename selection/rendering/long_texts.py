"""Texts far longer than what a sample keeps: their middle is cut out before they are tokenized.

The tokens that are kept are those of the whole text: a cut lies at white space, `MARGIN` characters
or more away from every kept token, and a tokenizer looks no further than the word around a token.
Who uses this checks the margin (`is_safe`) and tries again with more room where it is not there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selection.rendering.spans import Part, Span

CHARACTERS_PER_TOKEN = 64
"""Room for each token that may be kept; texts of more characters a token are tried again."""

MARGIN = 256
_SEARCHED = 4096  # characters in which a white space is looked for

Cut = tuple[int, int]


def cuts_of(text: str, spans: Sequence[Span], room: int, truncation: str) -> list[Cut]:
    """Ranges (start, end) of characters of a text that truncation is sure to remove.

    room: characters that stay: with `end` the first ones, with `start` the last ones, and with
    `keep_response` the first ones of a response and the last ones of any other content. A text of
    at most twice as many is left whole.
    """
    if len(text) <= 2 * room or not spans:
        return []
    if truncation == "end":
        return [(_after_space(text, room), len(text))]
    if truncation == "start":
        return [(spans[0].start + 2 * MARGIN, _after_space(text, len(text) - room))]
    cuts = []
    for span in spans:
        if span.end - span.start > 2 * room:
            first, last = _after_space(text, span.start + room), span.end - room
            is_response = span.part == Part.RESPONSE
            cuts.append(
                (first, span.end)
                if is_response
                else (span.start + 2 * MARGIN, _after_space(text, last))
            )
    return cuts


def _after_space(text: str, at: int) -> int:
    """The first position from `at` on before which white space stands; `at` where there is none."""
    for position in range(at, min(len(text), at + _SEARCHED)):
        if text[position - 1].isspace() and not text[position].isspace():
            return position
    return at


def hides_response(spans: Sequence[Span], cuts: Sequence[Cut]) -> bool:
    """Whether a response, or a part of one, was cut out."""
    return any(
        span.part == Part.RESPONSE and span.start < end and start < span.end
        for span in spans
        for start, end in cuts
    )


def without(text: str, cuts: Sequence[Cut]) -> str:
    """The text without the ranges."""
    pieces, at = [], 0
    for start, end in cuts:
        pieces.append(text[at:start])
        at = end
    return "".join([*pieces, text[at:]])


def restored(offsets: NDArray[np.int64], cuts: Sequence[Cut]) -> NDArray[np.int64]:
    """(t, 2) positions in the shortened text as positions in the whole text."""
    whole = offsets.copy()
    for start, end in cuts:
        whole[:, 0] += np.where(whole[:, 0] >= start, end - start, 0)
        whole[:, 1] += np.where(whole[:, 1] > start, end - start, 0)
    return whole


def is_safe(offsets: NDArray[np.int64], cuts: Sequence[Cut]) -> bool:
    """Whether no kept token lies within `MARGIN` characters of a cut.

    offsets: (t, 2) of the kept tokens, in the whole text.
    """
    return not any(
        ((offsets[:, 1] > start - MARGIN) & (offsets[:, 0] < end + MARGIN)).any()
        for start, end in cuts
    )
