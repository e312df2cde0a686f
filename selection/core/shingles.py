"""Runs of consecutive words as 64-bit hashes: how texts are compared without keeping them.

A hash is the same in every process and on every machine. Two different runs share a hash with a
probability of 2^-64; nothing here guards against that.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from selection.core.words import text_pieces, words

_BASE = np.uint64(0x9E3779B97F4A7C15)  # Odd, so that every word keeps its weight mod 2^64.


def word_hashes(text: str) -> NDArray[np.uint64]:
    """(t,) one hash per word of the text, in order."""
    pieces = [
        np.array([_hash(word) for word in words(piece)], np.uint64) for piece in text_pieces(text)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)


@lru_cache(maxsize=1 << 19)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def ngram_hashes(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """(t - n + 1,) hash of every run of n words; none where there are fewer words."""
    if len(hashes) < n:
        return np.zeros(0, np.uint64)
    runs = np.full(len(hashes) - n + 1, n, np.uint64)  # Runs of unequal length never meet.
    with np.errstate(over="ignore"):
        for i in range(n):
            runs = runs * _BASE + hashes[i : len(hashes) - n + 1 + i]
    return runs ^ (runs >> np.uint64(29))


def shingles(text: str, n: int) -> NDArray[np.uint64]:
    """(s,) sorted different runs of n words; a shorter text is one run of all its words."""
    hashes = word_hashes(text)
    return np.unique(ngram_hashes(hashes, min(n, len(hashes)))) if len(hashes) else hashes


def overlap(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Shared over all different runs of two sorted sets; 1 for two empty ones."""
    if not len(a) and not len(b):
        return 1.0
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def joined(parts: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """All words of several texts in one array, and the text that each belongs to."""
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.concatenate([*parts, np.zeros(0, np.uint64)]), owner
