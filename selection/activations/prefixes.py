"""Prefixes that samples share: a causal model runs each of them once.

What a token of a causal model is depends on nothing but the tokens up to it. Instruction data is
full of samples that begin alike: one system prompt, one task description before many inputs, many
answers to one question. Sorted by their tokens, samples with a shared prefix are neighbors, and
each is run from where it first differs from the one before it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint32]

MIN_SHARED = 8
"""Shorter prefixes are run again: looking keys up costs as much as it saves."""

MOST_READ = 8
"""Tokens of a batch's samples, shared ones in every sample, for each token that may be run: what is
made of a batch, token by token, must fit into memory too."""


def sorted_by_tokens(tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    """Positions (n,) of the lists in lexicographic order; equal ones stay as they came."""
    keys = [each.astype(">u4").tobytes() for each in tokens]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def shared_with_previous(tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    """Tokens (n,) that each list begins with as the one before it; 0 below MIN_SHARED."""
    shared = np.zeros(len(tokens), np.int64)
    for number in range(1, len(tokens)):
        shared[number] = _shared(tokens[number - 1], tokens[number])
    return shared


def positions_in_row(lengths: Sequence[int], shared: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """For each list where its tokens, all of them, are in the row of those that are run.

    lengths: of the lists, in their order. shared: from `shared_with_previous`. The row holds the
    first list, then of every other one what it does not share.
    """
    positions: list[NDArray[np.int64]] = []
    end = 0
    for length, n in zip(lengths, shared.tolist(), strict=True):
        unshared = np.arange(end, end + length - n)
        positions.append(np.concatenate([positions[-1][:n], unshared]) if n else unshared)
        end += length - n
    return positions


def prefix_plan(tokens: Sequence[Tokens], tokens_per_batch: int) -> list[NDArray[np.int64]]:
    """Cut samples into batches of neighbors in the order of their tokens: a pure function of them.

    tokens_per_batch: limit for the tokens that are run, those aside that a batch's first sample
    shares with the batch before; the samples together have at most MOST_READ times as many. A
    longer sample is a batch of its unshared. Samples without tokens are in no batch.
    """
    order = sorted_by_tokens(tokens)
    order = order[[len(tokens[row]) > 0 for row in order]]
    ordered = [tokens[row] for row in order]
    lengths = np.array([len(each) for each in ordered], np.int64)
    reads = np.concatenate([[0], np.cumsum(lengths)])
    runs = np.concatenate([[0], np.cumsum(lengths - shared_with_previous(ordered))])
    batches, start = [], 0
    while start < len(order):
        end = min(
            int(np.searchsorted(sums, sums[start] + most, side="right")) - 1
            for sums, most in ((runs, tokens_per_batch), (reads, MOST_READ * tokens_per_batch))
        )
        end = max(end, start + 1)
        batches.append(order[start:end])
        start = end
    return batches


def _shared(first: Tokens, second: Tokens) -> int:
    n = min(len(first), len(second))
    differ = np.flatnonzero(first[:n] != second[:n])
    length = int(differ[0]) if len(differ) else n
    return length if length >= MIN_SHARED else 0
