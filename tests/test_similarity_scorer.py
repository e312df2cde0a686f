import pickle
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.core.sparse import from_lists
from selection.records import SparseRows
from selection.similarity.kernels.rows import weighted_norms
from selection.similarity.kernels.tables import LANES, LINE_LIMIT, query_tables
from selection.similarity.queries import ExemplarReduction, exemplar_queries, score, score_each
from selection.similarity.scorer import Scorer, Target
from tests.oracles import generalized_jaccard, mean_of_fixed_points
from tests.sparse_strategies import Vector, random_rows, to_dense, values

WIDE = 400  # Latents; most have no column.
EVERY: list[ExemplarReduction] = ["prototype", "max", "mean"]

few_latents = st.integers(0, 11)
spread_latents = st.integers(0, 39).map(lambda number: number * 10)
some_latents = st.sampled_from([few_latents, spread_latents])


def exact_sums(
    candidates: Sequence[Vector], exemplars: Sequence[Vector], weight: int, multiplier: int
) -> list[list[int]]:
    return [
        [sum(min(multiplier * weight * a.get(c, 0), weight * e[c]) for c in e) for e in exemplars]
        for a in candidates
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sums_of_minima_are_exact(data: st.DataObject) -> None:
    latents = data.draw(some_latents)
    candidates = data.draw(st.lists(st.dictionaries(latents, values), min_size=1, max_size=36))
    exemplars = data.draw(
        st.lists(st.dictionaries(latents, values, min_size=1), min_size=1, max_size=5)
    )
    weight = data.draw(st.sampled_from([1, 1_024, 20_000, 65_537]))
    multiplier = data.draw(st.sampled_from([1, 1, 3, 40_000]))
    rows, weights = from_lists(candidates, WIDE), np.full(WIDE, weight)
    entries = exemplar_queries(from_lists(exemplars, WIDE), weights, "max").entries
    entries = entries._replace(multipliers=entries.multipliers * multiplier)
    sums, norms = Scorer(weights, [Target(entries, averaged=False)]).minima(rows)
    assert sums.tolist() == exact_sums(candidates, exemplars, weight, multiplier)
    assert norms.tolist() == [weight * sum(candidate.values()) for candidate in candidates]


@pytest.mark.parametrize("reduction", ["max", "prototype"])
def test_sums_are_exact_over_lines_and_lists(reduction: ExemplarReduction) -> None:
    n_latents = 768
    rows = random_rows(70, n_latents, 0.6, 1)
    exemplars = random_rows(75, n_latents, 0.1, 2)
    weights = np.random.default_rng(3).integers(0, 3_000_000, n_latents)
    weights[::7] = 1
    queries = exemplar_queries(exemplars, weights, reduction)
    amounts = to_dense(rows) * weights
    limits = to_dense(exemplars) * weights
    if reduction == "prototype":
        amounts, limits = amounts * len(exemplars), limits.sum(axis=0, keepdims=True)
    expected = np.stack([np.minimum(amounts, limit).sum(axis=1) for limit in limits], axis=1)
    assert expected.max() > 1 << 32
    tables = query_tables(queries.entries, weights)
    assert len(tables.limits) > 0
    if reduction == "max":
        assert 0 < len(tables.lines) < n_latents
        assert tables.lines.shape[1] == 3 * LANES
        assert tables.limits.max() > LINE_LIMIT
    np.testing.assert_array_equal(score_each(rows, queries)[1], expected)


@pytest.mark.parametrize("how", EVERY)
def test_several_targets_in_one_pass_score_as_each_alone(
    how: ExemplarReduction,
) -> None:
    rows = random_rows(300, 120, 0.1, 1)
    weights = np.random.default_rng(2).integers(1, 9_000, 120)
    exemplars = [random_rows(m, 120, 0.2, m) for m in (1, 7, 40)]
    targets = [exemplar_queries(e, weights, how) for e in exemplars]
    alone = np.stack([score(rows, target) for target in targets])
    norms = weighted_norms(rows, weights)
    together = Scorer(weights, [target.target for target in targets])
    for threads, block_rows in [(1, None), (2, 33), (3, 7), (2, 1 << 20)]:
        scores = together.scores(rows, norms=norms, threads=threads, block_rows=block_rows)
        np.testing.assert_array_equal(scores, alone)
    if how == "mean":
        named = dict(enumerate(weights.tolist()))
        for t, i in [(0, 5), (1, 17), (2, 250)]:
            pairs = [
                float(generalized_jaccard(vector(rows, i), vector(exemplars[t], j), named))
                for j in range(len(exemplars[t]))
            ]
            assert alone[t, i] == mean_of_fixed_points(pairs)


def vector(rows: SparseRows, i: int) -> Vector:
    entries = slice(rows.indptr[i], rows.indptr[i + 1])
    return dict(zip(rows.latents[entries].tolist(), rows.values[entries].tolist(), strict=True))


def test_used_queries_travel_to_another_process() -> None:
    rows, exemplars = random_rows(50, 200, 0.1, 1), random_rows(9, 200, 0.1, 2)
    queries = exemplar_queries(exemplars, np.ones(200, np.int64), "mean")
    expected = score(rows, queries)
    again = pickle.loads(pickle.dumps(queries))
    np.testing.assert_array_equal(score(rows, again), expected)


def test_four_of_the_largest_limits_in_lines_do_not_wrap_around() -> None:
    weight = LINE_LIMIT // 3
    exemplars = from_lists([{latent: 3 for latent in range(n)} for n in (3, 4, 5, 8)], 9)
    weights = np.full(9, weight, np.int64)
    queries = exemplar_queries(exemplars, weights, "max")
    assert (queries.entries.limits == LINE_LIMIT).all()
    assert len(query_tables(queries.entries, weights).lines) == 5
    candidate = from_lists([{latent: 65_535 for latent in range(9)}], 9)
    sums, _ = queries.scorer.minima(candidate)
    assert sums.tolist() == [[n * LINE_LIMIT for n in (3, 4, 5, 8)]]


SCRIPT = """
import hashlib, sys
import numpy as np
from selection.similarity.queries import exemplar_queries, score
from selection.core.sparse import take
from tests.sparse_strategies import random_rows
first, last, threads = map(int, sys.argv[1:])
rows, exemplars = random_rows(400, 300, 0.1, 1), random_rows(9, 300, 0.1, 2)
weights = np.random.default_rng(3).integers(1, 9_000, 300)
part = take(rows, np.arange(first, last))
scores = score(part, exemplar_queries(exemplars, weights, "mean"), threads=threads)
print(scores.tobytes().hex())
"""


def test_another_process_with_another_shard_gives_the_same_bytes() -> None:
    rows, exemplars = random_rows(400, 300, 0.1, 1), random_rows(9, 300, 0.1, 2)
    weights = np.random.default_rng(3).integers(1, 9_000, 300)
    scores = score(rows, exemplar_queries(exemplars, weights, "mean"))
    expected = scores[150:].tobytes().hex()
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, "150", "400", "2"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert found == expected
