"""Baselines against slow definitions."""

import hashlib
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from selection.core.sparse import document_frequency, from_lists, take
from selection.core.words import search_words
from selection.evaluation.baselines.cosine import (
    REDUCTIONS,
    cosine_scores,
    reduce_scores,
    sparse_cosine_scores,
)
from selection.evaluation.baselines.lexical import (
    count_terms,
    dense_queries,
    dsir_scores,
    gram_table,
    length_scores,
    products,
    smooth_idf,
    text_lengths,
    tfidf_values,
)
from selection.evaluation.bm25 import bm25_of_sets, table_values

POOL = [
    "Add two and two. Four!",
    "translate the house into French: la maison",
    "",
    "two two two two",
    "the house of the two, the house",
    "Répondez en français, s'il vous plaît",
]
EXEMPLARS = ["two and two", "the French house", "unseen zebra house"]


def test_tfidf_is_cosine_of_sublinear_counts() -> None:
    vocabulary: dict[str, int] = {}
    pool = count_terms(POOL, vocabulary, grow=True)
    idf = smooth_idf(document_frequency(pool), len(pool))
    mine = count_terms(EXEMPLARS, vocabulary, grow=False)
    queries = dense_queries(mine, tfidf_values(mine, idf, unit=True))
    found = products(pool, tfidf_values(pool, idf, unit=True), queries)

    def vector(text: str) -> dict[str, float]:
        counts = Counter(word for word in search_words(text) if word in vocabulary)
        df = {word: sum(word in search_words(other) for other in POOL) for word in counts}
        raw = {
            w: (1 + math.log(c)) * (math.log((1 + len(POOL)) / (1 + df[w])) + 1)
            for w, c in counts.items()
        }
        norm = math.sqrt(sum(value**2 for value in raw.values())) or 1.0
        return {word: value / norm for word, value in raw.items()}

    for row, text in enumerate(POOL):
        for column, exemplar in enumerate(EXEMPLARS):
            other = vector(exemplar)
            expected = sum(value * other.get(word, 0) for word, value in vector(text).items())
            assert found[row, column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_bm25_of_the_table_is_the_streaming_bm25(how: str) -> None:
    vocabulary: dict[str, int] = {}
    pool = count_terms(POOL, vocabulary, grow=True)
    mine = count_terms(EXEMPLARS, vocabulary, grow=False)
    values = table_values(pool, text_lengths(pool)).astype(np.float32)
    matrix = products(pool, values, dense_queries(mine, mine.values.astype(np.float32)))
    found = reduce_scores(matrix, how, np.arange(len(POOL)))  # type: ignore[arg-type]
    each, _ = bm25_of_sets(POOL, EXEMPLARS, np.split(np.arange(len(EXEMPLARS)), len(EXEMPLARS)))
    expected = each.mean(axis=1) if how == "mean" else each.max(axis=1)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 50.0])
@pytest.mark.parametrize("per_gram", [False, True])
def test_dsir_is_the_log_importance_weight_of_hashed_grams(
    smoothing: float, per_gram: bool
) -> None:
    def grams(text: str) -> list[int]:
        tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
        both = tokens + [f"{a} {b}" for a, b in itertools.pairwise(tokens)]
        return [int(hashlib.sha256(g.encode()).hexdigest(), 16) % 10_000 for g in both]

    def shares(texts: list[str]) -> Counter[int]:
        return Counter(gram for text in texts for gram in grams(text))

    p, q = shares(EXEMPLARS), shares(POOL)
    n_p, n_q = p.total(), q.total()

    def gain(gram: int) -> float:
        mine = (p[gram] + smoothing * q[gram] / n_q) / (n_p + smoothing)
        return math.log(mine + 1e-8) - math.log(q[gram] / n_q + 1e-8)

    found = dsir_scores(
        gram_table(POOL), gram_table(EXEMPLARS), smoothing=smoothing, per_gram=per_gram
    )
    for row, text in enumerate(POOL):
        expected = sum(map(gain, grams(text)))
        if per_gram:
            expected /= max(len(grams(text)), 1)
        assert found[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_lengths_near_the_exemplars_score_higher() -> None:
    scores = length_scores(np.array([10, 100, 1000]), [90, 110])
    assert scores.argmax() == 1


def test_round_robin_takes_each_exemplars_best_in_turn_with_ties_by_id() -> None:
    matrix = np.array([[5.0, 1.0], [4.0, 9.0], [4.0, 9.0], [0.0, 0.0]])
    id_order = np.array([3, 2, 1, 0])  # row 2 has a smaller id than row 1
    places = reduce_scores(matrix, "round_robin", id_order)
    # Exemplar 0 takes row 0, exemplar 1 takes row 2 (tie by id), then row 1, then row 3.
    assert np.argsort(-places).tolist() == [0, 2, 1, 3]
    with pytest.raises(ValueError, match="centroid"):
        reduce_scores(matrix, "centroid", id_order)


def test_cosines_of_centroid_and_exemplars_are_their_definitions() -> None:
    rng = np.random.default_rng(3)
    pool, exemplars = rng.normal(size=(7, 5)), rng.normal(size=(3, 5))
    found = cosine_scores(
        pool.astype(np.float32),
        exemplars.astype(np.float32),
        ("centroid", "max", "mean"),
        np.arange(7),
    )

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    for row in range(7):
        each = [cosine(pool[row], exemplar) for exemplar in exemplars]
        assert found["max"][row] == pytest.approx(max(each), abs=1e-6)
        assert found["mean"][row] == pytest.approx(sum(each) / 3, abs=1e-6)
        center = cosine(pool[row], exemplars.mean(axis=0))
        assert found["centroid"][row] == pytest.approx(center, abs=1e-6)


def test_cosines_of_sparse_blocks_are_those_of_their_weighted_dense_rows() -> None:
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 4, (11, 9)).astype(np.uint16)
    dense[3] = 0
    exemplars = rng.integers(0, 3, (3, 9)).astype(np.uint16)
    exemplars[:, 4] = 0  # A column that no exemplar has still counts in a candidate's length.
    weights = rng.integers(0, 5, 9)
    order = np.arange(11)
    rows = from_lists(list(map(_as_dict, dense)), 9)
    blocks = [take(rows, np.arange(0, 5)), take(rows, np.arange(5, 11))]
    found = sparse_cosine_scores(
        blocks, from_lists(list(map(_as_dict, exemplars)), 9), weights, REDUCTIONS, order
    )
    expected = cosine_scores(
        (dense * weights).astype(np.float32),
        (exemplars * weights).astype(np.float32),
        REDUCTIONS,
        order,
    )
    for how in REDUCTIONS:
        assert found[how] == pytest.approx(expected[how], abs=1e-6)


def _as_dict(row: NDArray[np.uint16]) -> dict[int, int]:
    return {int(column): int(row[column]) for column in np.flatnonzero(row)}
