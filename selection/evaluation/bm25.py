"""Scores that know nothing of latents: chance, and words. They pass the same rank and cut.

BM25 is the Lucene form. Only terms of the exemplars can contribute, so one pass over the texts
keeps the counts of those terms (10 bytes each) and each text's length; the vocabulary of the
pool is never held.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.core.words import words

_BATCH = 4096  # Texts whose counts are compacted at once.


def bm25_of_sets(
    texts: Iterable[str],
    exemplar_texts: Sequence[str],
    sets: Sequence[NDArray[np.integer]],
    *,
    k1: float = 1.5,
    b: float = 0.75,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """BM25 of every text, and of every exemplar as if it were one, against sets of exemplars.

    Each exemplar is a query: score = sum over its words of idf tf / (tf + k1 (1 - b + b length /
    mean length)), idf = ln(1 + (n - df + 0.5) / (df + 0.5)); a word counts as often as the query
    has it. BM25 is linear in the query, so the mean over a set of exemplars is one query's score.
    sets: positions in `exemplar_texts`. Frequencies and lengths are those of the texts alone.
    One pass over the texts. Returns (n, len(sets)) and (m, len(sets)) float64, 0 where no word is
    shared.
    """
    vocabulary, profiles = _profiles(exemplar_texts)
    queries = np.array([profiles[rows].sum(axis=0) / max(len(rows), 1) for rows in sets])
    batches, lengths = _count(texts, vocabulary)
    idf, mean_length = _statistics(batches, lengths, len(vocabulary))

    def scored(batches: list[_Counts], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = np.zeros((len(lengths), len(queries)))
        for first, batch, amounts in _amounts(batches, lengths, idf, k1, b, mean_length):
            part = scores[first : first + _BATCH]
            for query, column in zip(queries, part.T, strict=True):
                column += np.bincount(batch.texts, amounts * query[batch.words], len(part))
        return scores

    return scored(batches, lengths), scored(*_count(exemplar_texts, vocabulary))


def bm25_of_targets(
    texts: Iterable[str], exemplar_texts: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) BM25 of every text against all of its exemplars, in one pass."""
    every = [text for part in exemplar_texts.values() for text in part]
    ends = np.cumsum([len(part) for part in exemplar_texts.values()])
    scores, _ = bm25_of_sets(texts, every, np.split(np.arange(len(every)), ends[:-1]))
    return dict(zip(exemplar_texts, np.ascontiguousarray(scores.T), strict=True))


def _profiles(exemplar_texts: Sequence[str]) -> tuple[dict[str, int], NDArray[np.float64]]:
    """(word -> column, (m, v) how often each exemplar has each word)."""
    queries = [words(text) for text in exemplar_texts]
    vocabulary = {word: i for i, word in enumerate(sorted({w for q in queries for w in q}))}
    profiles = np.zeros((len(queries), len(vocabulary)))
    for query, profile in zip(queries, profiles, strict=True):
        np.add.at(profile, [vocabulary[word] for word in query], 1)
    return vocabulary, profiles


class _Counts(NamedTuple):
    """Words of the exemplars in one batch of texts, in order of text, then word.

    texts:  (p,) uint16 number of the text within the batch.
    words:  (p,) int32 position in the vocabulary.
    counts: (p,) uint32 how often the text has the word.
    """

    texts: NDArray[np.uint16]
    words: NDArray[np.int32]
    counts: NDArray[np.uint32]


def _statistics(
    batches: list[_Counts], lengths: NDArray[np.int64], n_words: int
) -> tuple[NDArray[np.float64], float]:
    """(idf of each word, mean length) over all texts."""
    n, frequency = len(lengths), np.zeros(n_words)
    for batch in batches:
        frequency += np.bincount(batch.words, minlength=n_words)
    idf = np.log1p((n - frequency + 0.5) / (frequency + 0.5))
    return idf, float(lengths.mean()) if lengths.any() else 1.0


def _amounts(
    batches: list[_Counts],
    lengths: NDArray[np.int64],
    idf: NDArray[np.float64],
    k1: float,
    b: float,
    mean_length: float,
) -> Iterator[tuple[int, _Counts, NDArray[np.float64]]]:
    """(first text, batch, what each of its words gives to a query that has it once)."""
    length_factor = k1 * (1 - b + b * lengths / mean_length)
    for first, batch in zip(range(0, len(lengths), _BATCH), batches, strict=True):
        factor = length_factor[first : first + _BATCH]
        yield first, batch, idf[batch.words] * batch.counts / (batch.counts + factor[batch.texts])


def _count(
    texts: Iterable[str], vocabulary: dict[str, int]
) -> tuple[list[_Counts], NDArray[np.int64]]:
    """Counts of the vocabulary's words, one record per _BATCH texts, and all lengths in words."""
    batches: list[_Counts] = []
    lengths: list[int] = []
    occurrences: list[int] = []  # text within the batch * len(vocabulary) + word
    for text in texts:
        in_text = words(text)
        offset = len(lengths) % _BATCH * len(vocabulary)
        occurrences.extend(offset + vocabulary[word] for word in in_text if word in vocabulary)
        lengths.append(len(in_text))
        if len(lengths) % _BATCH == 0:
            batches.append(_compact(occurrences, len(vocabulary)))
            occurrences.clear()
    if len(lengths) % _BATCH:
        batches.append(_compact(occurrences, len(vocabulary)))
    return batches, np.array(lengths, np.int64)


def _compact(occurrences: list[int], n_words: int) -> _Counts:
    """Count equal entries of one batch."""
    entries, counts = np.unique(np.array(occurrences, np.int64), return_counts=True)
    text, word = np.divmod(entries, max(n_words, 1))
    return _Counts(text.astype(np.uint16), word.astype(np.int32), counts.astype(np.uint32))
