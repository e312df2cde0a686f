"""Word counts of a pool, taken once, and the two lexical baselines for any number of targets.

The pool's whole vocabulary is counted, so that TF-IDF and BM25 of every part of the pool come of
one pass over the texts; a test holds BM25 to the scores of the main job.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from selection.baselines import words


def vocabulary_of(texts: Iterable[str]) -> tuple[dict[str, int], sparse.csr_matrix]:
    """Vocabulary in order of first use, and word counts (n, n_words)."""
    vocabulary: dict[str, int] = {}
    return vocabulary, _counts(texts, vocabulary, grow=True)


def count_known(texts: Iterable[str], vocabulary: dict[str, int]) -> sparse.csr_matrix:
    """Counts (n, n_words) of the words that the vocabulary has; others are left out."""
    return _counts(texts, vocabulary, grow=False)


def _counts(texts: Iterable[str], vocabulary: dict[str, int], *, grow: bool) -> sparse.csr_matrix:
    indptr, columns, values = [0], [], []
    for text in texts:
        for word, n in Counter(words(text)).items():
            column = vocabulary.setdefault(word, len(vocabulary)) if grow else vocabulary.get(word)
            if column is not None:
                columns.append(column)
                values.append(n)
        indptr.append(len(columns))
    arrays = np.array(values, np.float32), np.array(columns, np.int32), np.array(indptr, np.int64)
    return sparse.csr_matrix(arrays, shape=(len(indptr) - 1, len(vocabulary)))


def tfidf_centroid(
    counts: sparse.csr_matrix, exemplars: Sequence[sparse.csr_matrix]
) -> NDArray[np.float64]:
    """Cosine of TF-IDF rows to the mean of each target's unit rows: (n_targets, n).

    counts:    (n, n_words) of the ranked rows; idf = ln((1 + n) / (1 + df)) + 1 is of these rows.
    exemplars: per target (m, n_words) counts.
    """
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = np.log((1.0 + counts.shape[0]) / (1.0 + frequency)) + 1.0
    rows = _unit_rows(counts, idf)
    centroids = [np.asarray(_unit_rows(part, idf).mean(axis=0)).ravel() for part in exemplars]
    return np.stack([rows @ (c / max(float(np.linalg.norm(c)), 1e-12)) for c in centroids])


def _unit_rows(counts: sparse.csr_matrix, idf: NDArray[np.float64]) -> sparse.csr_matrix:
    weighted = sparse.csr_matrix(counts.multiply(idf[None, :]))
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(norms, 1e-12)) @ weighted)


def bm25_mean(
    counts: sparse.csr_matrix,
    lengths: NDArray[np.float64],
    exemplars: Sequence[sparse.csr_matrix],
    k1: float = 1.5,
    b: float = 0.75,
) -> NDArray[np.float64]:
    """Mean over a target's exemplars of Lucene's BM25, each exemplar a query: (n_targets, n).

    lengths: (n,) words of the ranked rows.
    """
    n = counts.shape[0]
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = np.log1p((n - frequency + 0.5) / (frequency + 0.5))
    factor = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1e-12))
    row = np.repeat(np.arange(n), np.diff(counts.indptr))
    amounts = idf[counts.indices] * counts.data / (counts.data + factor[row])
    terms = sparse.csr_matrix((amounts, counts.indices, counts.indptr), shape=counts.shape)
    return np.stack([terms @ np.asarray(part.mean(axis=0)).ravel() for part in exemplars])
