"""Random controls: by chance alone, or of the same numbers of tokens as a selection."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from selection.core.hashing import content_id


def length_matched(
    picked: NDArray[np.int64],
    lengths: NDArray[np.int64],
    scores: NDArray[np.float64],
    eligible: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """For every pick a random eligible row of nearly its length, each row at most once.

    picked:  (p,) int64 rows of the selection. lengths: (n,) int64 tokens of every row.
    scores:  (n,) float64 random scores, e.g. `random_scores`; they decide among equal lengths.
    Rows are put in order of (length, score); a pick takes the free row whose position is nearest to
    a random position among the rows of its own length, so lengths are as close as the pool allows.
    Returns (min(p, eligible),) int64 rows, in the order of the picks.
    """
    rows = np.flatnonzero(eligible)
    rows = rows[np.lexsort((rows, -scores[rows], lengths[rows]))]
    sorted_lengths = lengths[rows]
    first = np.searchsorted(sorted_lengths, lengths[picked], side="left")
    last = np.searchsorted(sorted_lengths, lengths[picked], side="right")
    # Free positions to the right and to the left, as paths that are shortened when walked.
    n = len(rows)
    right, left = np.arange(n + 2), np.arange(n + 2)  # Places are shifted by one.
    chosen: list[int] = []
    for start, end, wanted in zip(first, last, lengths[picked], strict=True):
        position = _free(right, int(start) + 1) - 1
        if position >= end:  # None of this length is left: the nearest other length.
            before = _free(left, int(start)) - 1
            longer = sorted_lengths[position] - wanted if position < n else None
            shorter = wanted - sorted_lengths[before] if before >= 0 else None
            if longer is None and shorter is None:
                break
            if longer is None or (shorter is not None and shorter <= longer):
                position = before
        chosen.append(int(rows[position]))
        right[position + 1], left[position + 1] = position + 2, position
    return np.array(chosen, np.int64)


def _free(paths: NDArray[np.int64], position: int) -> int:
    """The first free position from `position` on along the paths."""
    end = position
    while paths[end] != end:
        end = int(paths[end])
    while paths[position] != end:
        paths[position], position = end, int(paths[position])
    return end


def seed_of(seed: int, *purpose: str) -> int:
    """Seed of one purpose, for instance a target's random control; no two share their chance."""
    return int(content_id([seed, *purpose]), 16)


def random_scores(example_ids: Iterable[str], seed: int) -> NDArray[np.float64]:
    """Uniform scores in [0, 1), a pure function of example id and seed.

    A candidate keeps its score when the pool grows or is put into another order.
    """
    prefix = f"{seed}:".encode()
    digests = b"".join(
        hashlib.sha256(prefix + example_id.encode()).digest()[:8] for example_id in example_ids
    )
    # 53 bits are what a float64 in [0, 1) holds.
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
