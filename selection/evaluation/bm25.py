"""BM25 in its Lucene form: scores of texts that know nothing of latents.

Only words of the exemplars can contribute, so one pass over the texts keeps the counts of those
words and each text's length in words; the vocabulary of the pool is never held.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import document_frequency, to_dense
from selection.core.words import search_words, text_pieces
from selection.records import SparseRows
from selection.representation.lexical import count_rows

_BATCH = 4096  # Texts whose words are counted at once.


def bm25_of_targets(
    texts: Iterable[str], exemplar_texts: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) BM25 of every text against all of its exemplars, in one pass."""
    every = [text for part in exemplar_texts.values() for text in part]
    ends = np.cumsum([len(part) for part in exemplar_texts.values()])
    scores, _ = bm25_of_sets(texts, every, np.split(np.arange(len(every)), ends[:-1]))
    return dict(zip(exemplar_texts, np.ascontiguousarray(scores.T), strict=True))


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
    known = sorted({word for text in exemplar_texts for word in search_words(text)})
    vocabulary = {word: i for i, word in enumerate(known)}
    of_exemplars, exemplar_lengths = _count(exemplar_texts, vocabulary)
    profiles = np.concatenate([to_dense(rows) for rows in of_exemplars]).astype(np.float64)
    queries = np.array([profiles[rows].sum(axis=0) / max(len(rows), 1) for rows in sets])
    of_texts, lengths = _count(texts, vocabulary)
    frequency = np.zeros(len(vocabulary))
    for rows in of_texts:
        frequency += document_frequency(rows)
    idf = _idf(frequency, len(lengths))
    mean_length = float(lengths.mean()) if lengths.any() else 1.0

    def scored(batches: list[SparseRows], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = np.zeros((len(lengths), len(queries)))
        for first, rows in zip(range(0, len(lengths), _BATCH), batches, strict=True):
            part, chunk = scores[first : first + _BATCH], lengths[first : first + _BATCH]
            text = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
            amounts = _values(rows, chunk, idf, mean_length, k1, b)
            for query, column in zip(queries, part.T, strict=True):
                column += np.bincount(text, amounts * query[rows.latents], len(part))
        return scores

    return scored(of_texts, lengths), scored(of_exemplars, exemplar_lengths)


def table_values(
    counts: SparseRows, lengths: NDArray[np.int64], k1: float = 1.5, b: float = 0.75
) -> NDArray[np.float64]:
    """(p,) what each entry of a table of counts gives to a query that has its word once.

    lengths: (n,) words of each text, those that the table does not hold included.
    """
    mean_length = max(float(lengths.mean()), 1e-12)
    return _values(
        counts, lengths, _idf(document_frequency(counts), len(counts)), mean_length, k1, b
    )


def _idf(frequency: NDArray[Any], n: int) -> NDArray[np.float64]:
    return np.log1p((n - frequency + 0.5) / (frequency + 0.5))


def _values(
    rows: SparseRows,
    lengths: NDArray[np.int64],
    idf: NDArray[np.float64],
    mean_length: float,
    k1: float,
    b: float,
) -> NDArray[np.float64]:
    """(p,) idf tf / (tf + k1 (1 - b + b length / mean length)) of every entry."""
    factor = k1 * (1 - b + b * lengths / mean_length)
    text = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    return np.asarray(idf[rows.latents] * rows.values / (rows.values + factor[text]))


def _count(
    texts: Iterable[str], vocabulary: Mapping[str, int]
) -> tuple[list[SparseRows], NDArray[np.int64]]:
    """Counts of the vocabulary's words, _BATCH texts together, and all lengths in words."""
    batches: list[SparseRows] = []
    lengths: list[int] = []
    iterator = iter(texts)
    while batch := [_numbers(text, vocabulary) for text in islice(iterator, _BATCH)]:
        lengths += [n_words for _, n_words in batch]
        batches.append(count_rows([numbers for numbers, _ in batch], len(vocabulary)))
    return batches, np.array(lengths, np.int64)


def _numbers(text: str, vocabulary: Mapping[str, int]) -> tuple[NDArray[np.int64], int]:
    """Numbers of those words of a text that the vocabulary has, and how many words it has."""
    numbers, n_words = list[int](), 0
    for piece in text_pieces(text):
        of_piece = search_words(piece)
        numbers += [vocabulary[word] for word in of_piece if word in vocabulary]
        n_words += len(of_piece)
    return np.array(numbers, np.int64), n_words
