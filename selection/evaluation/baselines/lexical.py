"""Lexical baselines on arrays: TF-IDF, bag of words, DSIR, length; BM25 is `evaluation.bm25`.

All read one table of word counts, made once per pool and text setting. Scores against each exemplar
are a matrix (n, m); `selection.evaluation.baselines.cosine` makes one score of them.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selection.core.sparse import concatenate
from selection.core.words import search_words
from selection.records import SparseRows
from selection.representation.lexical import count_rows

DSIR_BUCKETS = 10_000
_DSIR_TOKEN = re.compile(r"\w+|[^\w\s]+")
_BATCH = 4096  # Texts counted at once.
_TINY = 1e-8  # as in the published implementation: keeps the logarithm finite


def count_terms(texts: Iterable[str], vocabulary: dict[str, int], *, grow: bool) -> SparseRows:
    """Counts of the words of each text, by number of the word.

    vocabulary: word -> number; new words are added where `grow`, else left out.
    """

    def numbers(text: str) -> NDArray[np.int64]:
        in_text = search_words(text)
        if grow:
            return np.array([vocabulary.setdefault(w, len(vocabulary)) for w in in_text], np.int64)
        return np.array([vocabulary[w] for w in in_text if w in vocabulary], np.int64)

    return _count(map(numbers, texts), lambda: len(vocabulary))


def _count(columns: Iterable[NDArray[np.int64]], width: Callable[[], int]) -> SparseRows:
    """Rows of counts, made in batches. width: number of columns so far."""
    parts, iterator = [], iter(columns)
    while batch := list(islice(iterator, _BATCH)):
        parts.append(count_rows(batch, width()))
    wide = [replace(part, n_latents=width()) for part in parts]
    return concatenate(wide) if wide else count_rows([], width())


def tfidf_values(
    counts: SparseRows, idf: NDArray[np.float64], *, unit: bool
) -> NDArray[np.float32]:
    """(p,) value of each entry, (1 + ln tf) idf; with `unit` every text has norm 1."""
    values = (1 + np.log(counts.values.astype(np.float64))) * idf[counts.latents]
    if unit:
        row = np.repeat(np.arange(len(counts)), np.diff(counts.indptr))
        values /= np.sqrt(np.bincount(row, values**2, len(counts)))[row]
    return values.astype(np.float32)


def smooth_idf(frequency: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """ln((1 + n) / (1 + df)) + 1."""
    return np.log((1 + n) / (1.0 + frequency)) + 1


def text_lengths(counts: SparseRows) -> NDArray[np.int64]:
    """(n,) words of each text."""
    sums = np.concatenate([[0], np.cumsum(counts.values.astype(np.int64))])
    return sums[counts.indptr[1:]] - sums[counts.indptr[:-1]]


def products(
    counts: SparseRows, values: NDArray[np.float32], queries: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Inner product of every text with every query, (n, m) float64.

    values:  (p,) value of each entry of the table.
    queries: (v, m) dense.
    """
    out = np.zeros((len(counts), queries.shape[1]))
    _products(counts.indptr, counts.latents, values, np.ascontiguousarray(queries), out)
    return out


@njit(nogil=True, cache=True)
def _products(
    indptr: NDArray[np.int64],
    terms: NDArray[np.int32],
    values: NDArray[np.float32],
    queries: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    for row in range(len(out)):
        for entry in range(indptr[row], indptr[row + 1]):
            for query in range(out.shape[1]):
                out[row, query] += values[entry] * queries[terms[entry], query]


def dense_queries(counts: SparseRows, values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of a small table as columns, (v, m) float32."""
    table = np.zeros((counts.n_latents, len(counts)), np.float32)
    row = np.repeat(np.arange(len(counts)), np.diff(counts.indptr))
    table[counts.latents, row] = values
    return table


def hashed_ngrams(text: str, n_buckets: int = DSIR_BUCKETS) -> NDArray[np.int64]:
    """Bucket of each word and each pair of neighboring words, lower-cased, punctuation included.

    A gram's bucket is its SHA-256 modulo the number of buckets, as in DSIR; equal grams of the
    same text are hashed once.
    """
    tokens = _DSIR_TOKEN.findall(text.lower())
    grams = tokens + [f"{a} {b}" for a, b in itertools.pairwise(tokens)]
    return np.array([_bucket(gram, n_buckets) for gram in grams], np.int64)


def _bucket(gram: str, n_buckets: int, known: dict[str, int] = {}) -> int:  # noqa: B006 - a cache
    """Bucket of a gram; the commonest are kept, since hashing is what DSIR's time goes to."""
    bucket = known.get(gram)
    if bucket is None:
        bucket = int.from_bytes(hashlib.sha256(gram.encode()).digest(), "big") % n_buckets
        if len(known) < 500_000:
            known[gram] = bucket
    return bucket


def gram_table(texts: Iterable[str], n_buckets: int = DSIR_BUCKETS) -> SparseRows:
    """Hashed uni- and bigram counts of each text."""
    return _count((hashed_ngrams(text, n_buckets) for text in texts), lambda: n_buckets)


def dsir_scores(
    pool: SparseRows, exemplars: SparseRows, *, smoothing: float, per_gram: bool
) -> NDArray[np.float64]:
    """DSIR's log importance weight of every text, (n,), without its Gumbel noise.

    w = sum over grams of count (ln P - ln Q), P and Q the gram shares of exemplars and pool.
    smoothing: pseudo-counts that P gets, spread as Q is. With a handful of exemplars most grams
               have P = 0 and ln 1e-8: every further gram then lowers w, and the shortest texts
               win whatever they say. That is DSIR's length trap; its default against it, dropping
               texts under 100 words, drops most instructions.
    per_gram:  divide w by the text's number of grams, so that length no longer adds up.
    """
    q = _shares(pool)
    counts = np.bincount(exemplars.latents, exemplars.values, exemplars.n_latents)
    p = (counts + smoothing * q) / (counts.sum() + smoothing)
    gain = (np.log(p + _TINY) - np.log(q + _TINY)).astype(np.float32)
    values = pool.values.astype(np.float32)
    weights = products(pool, values, gain[:, None])[:, 0]
    return weights / np.maximum(text_lengths(pool), 1) if per_gram else weights


def _shares(counts: SparseRows) -> NDArray[np.float64]:
    total = np.bincount(counts.latents, counts.values, counts.n_latents)
    return total / max(total.sum(), 1)


def length_scores(
    lengths: NDArray[np.int64], exemplar_lengths: Sequence[int]
) -> NDArray[np.float64]:
    """The nearer a text's length in words to the exemplars' mean log length, the higher; (n,)."""
    center = np.log1p(np.asarray(exemplar_lengths, np.float64)).mean()
    return -np.abs(np.log1p(lengths.astype(np.float64)) - center)
