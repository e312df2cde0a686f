"""Which tokens a sample keeps, and whose they are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selection.rendering.spans import Part, Span


def token_parts(offsets: NDArray[np.int64], spans: Sequence[Span]) -> NDArray[np.uint8]:
    """Part of each token, (t,) uint8: that of the last span that it shares a character with.

    offsets: (t, 2) first character and end of each token, both non-decreasing.
    """
    parts = np.zeros(len(offsets), dtype=np.uint8)
    bounds = np.array([(span.start, span.end) for span in spans], dtype=np.int64).reshape(-1, 2)
    first = np.searchsorted(offsets[:, 1], bounds[:, 0], side="right")
    last = np.searchsorted(offsets[:, 0], bounds[:, 1], side="left")
    for span, start, end in zip(spans, first.tolist(), last.tolist(), strict=True):
        if span.end > span.start:
            parts[start:end] = span.part
    return parts


def kept_positions(
    parts: NDArray[np.uint8], limit: int, truncation: str, n_prefix: int
) -> NDArray[np.int64]:
    """Positions that truncation to `limit` tokens leaves, in order, (kept,) int64.

    end:           the first `limit` tokens.
    start:         the first `n_prefix` tokens (BOS) and the last ones.
    keep_response: contents of prompt turns go first, the earliest before the later ones; only
                   when none are left is the end cut. Role headers between them stay.
    """
    positions = np.arange(len(parts), dtype=np.int64)
    excess = len(parts) - limit
    if excess <= 0:
        return positions
    if truncation == "end":
        return positions[:limit]
    if truncation == "start":
        return np.delete(positions, slice(n_prefix, n_prefix + excess))
    dropped = np.flatnonzero((parts == Part.PROMPT) | (parts == Part.EXCLUDED))[:excess]
    return np.delete(positions, dropped)[:limit]
