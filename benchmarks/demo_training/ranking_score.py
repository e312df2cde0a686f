"""Graded relevance, nDCG and TF-IDF: what a ranking of a labelled pool is judged with."""

import re
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

CUTOFF = 1000
UNJUDGED = -1
WORD = re.compile(r"\w\w+")


def relevance(frame: pl.DataFrame, target: dict[str, Any]) -> np.ndarray:
    """Grade of every row for a target task: 3 same task, 2 same family, 1 same category, 0, or -1.

    Rows whose label is weak are unjudged (-1) unless their task is the target's own.
    """
    same_category = pl.col("category") == target["category"]
    grade = (
        pl.when(pl.col("task").is_in(target["tasks"]))
        .then(3)
        .when(pl.col("label_quality") == "weak")
        .then(UNJUDGED)
        .when(same_category & pl.col("family").is_in(target["families"]))
        .then(2)
        .when(same_category)
        .then(1)
        .otherwise(0)
    )
    return frame.select(grade.alias("grade"))["grade"].to_numpy()


def ndcg(scores: np.ndarray, grades: np.ndarray, cutoff: int = CUTOFF) -> float:
    """Normalized DCG with gain 2^grade - 1; ties to the earlier row, 0 where nothing gains."""
    judged = grades != UNJUDGED
    scores, gains = scores[judged], np.exp2(grades[judged]) - 1.0
    discounts = 1.0 / np.log2(np.arange(2, cutoff + 2))
    ranked = gains[np.argsort(-scores, kind="stable")][:cutoff]
    ideal = np.sort(gains)[::-1][:cutoff]
    best = float(ideal @ discounts[: len(ideal)])
    return float(ranked @ discounts[: len(ranked)]) / best if best > 0 else 0.0


def mean_ndcg(scores: np.ndarray, grades: np.ndarray) -> float:
    """Mean over targets of scores and grades (n_targets, n)."""
    return float(np.mean([ndcg(s, g) for s, g in zip(scores, grades, strict=True)]))


def centroid_cosine(
    vectors: np.ndarray | sparse.csr_matrix, exemplars: np.ndarray | sparse.csr_matrix
) -> np.ndarray:
    """Cosine of every row (n, d) to the mean of the exemplars (m, d); zero rows score 0."""
    centroid = np.asarray(exemplars.mean(axis=0)).ravel()
    centroid = centroid / max(float(np.linalg.norm(centroid)), 1e-12)
    if isinstance(vectors, np.ndarray):
        norms = np.linalg.norm(vectors, axis=1)
    else:
        norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    return np.asarray(vectors @ centroid).ravel() / np.maximum(norms, 1e-12)


def tfidf(texts: list[str], n_fit: int) -> sparse.csr_matrix:
    """L2-normalized TF-IDF rows of lower-cased words; vocabulary and idf from the first `n_fit`."""
    vocabulary: dict[str, int] = {}
    indptr: list[int] = [0]
    indices: list[int] = []
    counts: list[int] = []
    for row, text in enumerate(texts):
        words: dict[int, int] = {}
        for word in WORD.findall(text.lower()):
            column = (
                vocabulary.setdefault(word, len(vocabulary))
                if row < n_fit
                else vocabulary.get(word)
            )
            if column is not None:
                words[column] = words.get(column, 0) + 1
        indices.extend(words.keys())
        counts.extend(words.values())
        indptr.append(len(indices))
    shape = (len(texts), len(vocabulary))
    matrix = sparse.csr_matrix((np.asarray(counts, dtype=np.float64), indices, indptr), shape=shape)
    frequency = np.bincount(matrix[:n_fit].indices, minlength=shape[1])
    idf = np.log((1.0 + n_fit) / (1.0 + frequency)) + 1.0
    weighted = matrix @ sparse.diags(idf)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(norms, 1e-12)) @ weighted)
