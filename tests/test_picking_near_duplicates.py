from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.core.shingles import overlap, shingles
from selection.core.sparse import concatenate, take
from selection.picking.rules.diversity import diverse_order
from selection.picking.rules.near_duplicates import DuplicateFinder, KeptVectors
from selection.records import SparseRows
from selection.similarity.queries import score_pairs
from tests.oracles import generalized_jaccard
from tests.sparse_strategies import N_LATENTS, Vector, random_rows, sparse_rows, vectors


@settings(max_examples=60, deadline=None)
@given(
    st.lists(vectors, min_size=2, max_size=8),
    st.lists(st.integers(0, 5), min_size=N_LATENTS, max_size=N_LATENTS),
    st.sampled_from([0.05, 0.3, 0.5, 0.9, 1.0]),
)
def test_everything_close_is_found_with_its_exact_similarity(
    rows: list[Vector], weights: list[int], threshold: float
) -> None:
    kept = KeptVectors(np.array(weights, np.int64), threshold)
    stored = sparse_rows(rows)
    for i in range(len(rows) - 1):
        assert kept.keep(stored, i) == i
    numbers, scores = kept.close_to(stored, len(rows) - 1)
    weight = dict(enumerate(weights))
    exact = [float(generalized_jaccard(rows[-1], row, weight)) for row in rows[:-1]]
    expected = [i for i, score in enumerate(exact) if score >= threshold]
    assert numbers.tolist() == expected
    assert scores.tolist() == [exact[i] for i in expected]


def test_planted_near_duplicates_among_many_are_all_found() -> None:
    rows = random_rows(400, 300, 0.1, seed=4)
    kept = KeptVectors(np.ones(300, np.int64), 0.9)
    for i in range(400):
        kept.keep(rows, i)
    values = np.maximum(rows.values * 0.97, 1).astype(np.uint16)
    changed = type(rows)(rows.indptr, rows.latents, values, rows.n_latents)
    full = np.flatnonzero(np.diff(rows.indptr))
    assert len(full) > 300
    assert all(i in kept.close_to(changed, int(i))[0] for i in full)


@pytest.mark.parametrize("scale", [1, 1 << 26])
def test_nothing_is_missed_among_dense_vectors(scale: int) -> None:
    """Norms from 1 to 2^45: bins that are too small for some of them rule nothing out."""
    rng = np.random.default_rng(5)
    base = random_rows(59, 70, 0.6, seed=5)
    rows = concatenate([concatenate([sparse_rows([{1: 1}], 70), base])] * 5)
    values = np.clip(rows.values * rng.uniform(0.85, 1.15, len(rows.values)), 1, 65_535)
    rows = SparseRows(rows.indptr, rows.latents, values.astype(np.uint16), 70)
    weights = np.where(np.arange(70) % 3 == 0, scale, 1).astype(np.int64)
    kept = KeptVectors(weights, 0.9)
    pairs = np.array([(i, j) for i in range(300) for j in range(i)])
    exact = score_pairs(rows, rows, pairs[:, 0], pairs[:, 1], weights)
    expected = {i: dict[int, float]() for i in range(300)}
    for (i, j), score in zip(pairs.tolist(), exact.tolist(), strict=True):
        if score >= 0.9:
            expected[i][j] = score
    for i in range(300):
        numbers, scores = kept.close_to(rows, i)
        assert dict(zip(numbers.tolist(), scores.tolist(), strict=True)) == expected[i]
        kept.keep(rows, i)
    assert sum(map(len, expected.values())) > 100


def test_words_must_confirm_and_of_a_mutual_pair_one_stays() -> None:
    rows = sparse_rows([{1: 10, 2: 10}, {1: 10, 2: 10}, {1: 10, 2: 10}])
    texts = [
        "add two and two and say the sum of both",
        "name the capital of a country in the south",
        "add two and two and say the sum of them",
    ]
    finder = DuplicateFinder(
        KeptVectors(np.ones(N_LATENTS, np.int64), 0.9),
        lambda wanted: take(rows, wanted),
        lambda wanted: [texts[i] for i in wanted],
        text_overlap=0.6,
        shingle_words=3,
    )
    finder.load(np.arange(3))
    assert finder.duplicate_of(0) is None
    finder.keep(0)
    assert finder.duplicate_of(1) is None  # the same vector, other words
    finder.keep(1)
    assert finder.duplicate_of(2) == (0, 1.0)
    with pytest.raises(ValueError, match="not loaded"):
        finder.duplicate_of(7)


def test_overlap_is_shared_over_all_runs() -> None:
    a, b = shingles("a b c d e", 3), shingles("a b c d x", 3)
    assert overlap(a, b) == 2 / 4
    assert overlap(shingles("Yes", 3), shingles("yes!", 3)) == 1
    assert overlap(shingles("", 3), shingles("", 3)) == 1
    assert len(shingles("これは日本語の文です", 3)) > 3


def slow_order(
    rows: list[Vector], scores: list[float], weights: dict[int, int], trade: float, n: int
) -> list[int]:
    """Every candidate against every pick, each time."""
    picks: list[int] = []
    while len(picks) < min(n, len(rows)):
        values = {}
        for i in range(len(rows)):
            near = [float(generalized_jaccard(rows[i], rows[p], weights)) for p in picks]
            values[i] = trade * scores[i] - (1 - trade) * max([0.0, *near])
        left = [i for i in range(len(rows)) if i not in picks]
        picks.append(max(left, key=lambda i: (values[i], -i)))
    return picks


@settings(max_examples=60, deadline=None)
@given(st.lists(vectors, min_size=1, max_size=9), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.data())
def test_lazy_diversity_gives_the_order_of_the_full_comparison(
    rows: list[Vector], trade: float, data: st.DataObject
) -> None:
    scores = sorted(
        data.draw(st.lists(st.floats(0, 1), min_size=len(rows), max_size=len(rows))), reverse=True
    )
    weights = {f: 1 + f % 3 for f in range(N_LATENTS)}
    found = diverse_order(
        sparse_rows(rows),
        np.array(scores),
        np.array([weights[f] for f in range(N_LATENTS)], np.int64),
        trade=trade,
        budget=5,
    )
    assert found.tolist() == slow_order(rows, scores, weights, trade, 5)


def test_diversity_stops_when_the_costs_are_spent() -> None:
    rows, ones = sparse_rows([{i: 1} for i in range(6)]), np.ones(N_LATENTS, np.int64)
    costs = np.full(6, 4)
    order = diverse_order(rows, np.linspace(1, 0, 6), ones, trade=0.5, costs=costs, budget=9)
    assert order.tolist() == [0, 1, 2]  # the third passes the budget; the caller cuts there
    assert Fraction(1, 2) == generalized_jaccard({1: 1}, {1: 2})


def test_what_bins_lose_by_rounding_rules_out_no_equal_vector() -> None:
    """Each of 32 bins loses 7 by rounding down: without slack 224 seem to be missing."""
    rows = sparse_rows([dict.fromkeys(range(32), 4_095)], 32)
    weights = np.where(np.arange(32) == 0, 14_337, 513)  # the norm needs 27 bits: shift 3
    kept = KeptVectors(weights, 1.0)
    kept.keep(rows, 0)
    numbers, scores = kept.close_to(rows, 0)
    assert (numbers.tolist(), scores.tolist()) == ([0], [1.0])


@pytest.mark.parametrize(("shared", "largest", "threshold"), [(63, 70, 0.9), (28, 35, 0.8)])
def test_a_score_of_exactly_the_threshold_is_close(
    shared: int, largest: int, threshold: float
) -> None:
    """As a float, threshold / (1 + threshold) of both norms is above the integer it stands for."""
    assert threshold / (1 + threshold) * (shared + largest) > shared
    rows = sparse_rows([{0: shared}, {0: shared, 1: largest - shared}])
    kept = KeptVectors(np.ones(N_LATENTS, np.int64), threshold)
    kept.keep(rows, 0)
    assert kept.close_to(rows, 1)[0].tolist() == [0]
