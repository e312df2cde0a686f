"""Where in a sample's own turns each token lies, so that a page can mark it without a tokenizer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.rendering.spans import Span


@dataclass(frozen=True, slots=True)
class TurnPositions:
    """Where t tokens lie in the turns of a sample; see `selection.data.messages.turn_texts`.

    turns:        (t,) int64 number of the turn; -1 for a token that is not of any turn's text.
    starts, ends: (t,) int64 characters of that turn's text.
    """

    turns: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def of(self, token: int) -> tuple[int, int, int]:
        """Turn, first character and end of one token."""
        return int(self.turns[token]), int(self.starts[token]), int(self.ends[token])

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "TurnPositions":
        """Some of the tokens."""
        return TurnPositions(self.turns[rows], self.starts[rows], self.ends[rows])


def positions_in_turns(
    text: str, offsets: NDArray[np.int64], spans: Sequence[Span], turns: Sequence[str]
) -> TurnPositions:
    """Find the tokens of a rendered text again in the turns that it was rendered from.

    text:    the rendered conversation.
    offsets: (t, 2) first character and end of each token in it, both non-decreasing.
    spans:   where contents of messages lie in it, in order.
    turns:   text of each message.
    A token that begins before a content, for example with the space in front, is cut to it. What
    the template respelled, for example arguments of a tool call, is found word by word; words that
    are not in the turn have no span.
    """
    where = np.full((3, len(offsets)), -1, np.int64)
    after = [0] * len(turns)  # contents of a message come in the order in which its turn has them
    for span in spans:
        turn = turns[span.message]
        for start, end in _findable(text, span, turn, after[span.message]):
            at = turn.find(text[start:end], after[span.message])
            if at < 0:
                continue
            after[span.message] = at + end - start
            first = int(np.searchsorted(offsets[:, 1], start, side="right"))
            last = int(np.searchsorted(offsets[:, 0], end, side="left"))
            where[0, first:last] = span.message
            where[1:, first:last] = (np.clip(offsets[first:last], start, end) - start + at).T
    return TurnPositions(*where)


def _findable(text: str, span: Span, turn: str, after: int) -> list[tuple[int, int]]:
    """The span if the turn has it, else its words; (start, end) characters of the text."""
    if span.end <= span.start:
        return []
    if text[span.start : span.end] in turn[after:]:
        return [(span.start, span.end)]
    words = re.finditer(r"\w+", text[span.start : span.end])
    return [(span.start + word.start(), span.start + word.end()) for word in words]
