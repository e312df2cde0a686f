import pickle
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from selection.core.sparse import from_lists, take
from selection.records import SparseRows
from selection.similarity.kernels.dispatch import Method, Trials, make_plan, rows_per_block
from selection.similarity.kernels.forward import forward_sums, row_room_for
from selection.similarity.kernels.inverted import inverted_sums, room_for
from selection.similarity.kernels.layout import (
    CHUNK,
    QueryEntries,
    column_queries,
    fits_narrow,
    row_queries,
)
from selection.similarity.kernels.minima import LANES
from selection.similarity.kernels.rows import row_views, weighted_norms
from selection.similarity.queries import (
    ExemplarReduction,
    exemplar_queries,
    score,
)
from selection.similarity.scorer import Scorer
from tests.oracles import generalized_jaccard, mean_of_fixed_points
from tests.sparse_strategies import Vector, random_rows, to_dense, values

METHODS: list[Method] = ["inverted", "forward"]
WIDE = 400  # Latents; enough that most have no column, and are asked for by bits.
EVERY: list[ExemplarReduction] = ["prototype", "max", "mean"]

few_latents = st.integers(0, 11)
spread_latents = st.integers(0, 39).map(lambda number: number * 10)
some_latents = st.sampled_from([few_latents, spread_latents])


def sums_of(
    method: Method, rows: SparseRows, queries: QueryEntries, weights: NDArray[np.int64],
    dense: NDArray[np.bool_],
) -> NDArray[np.int64]:  # fmt: skip
    n, arrays = len(rows), row_views(rows)
    longest = int(np.diff(rows.indptr).max(initial=0))
    sums = np.full((len(queries.norms), -(-n // LANES) * LANES), -1, np.int64)
    if method == "inverted":
        lookup, columns = column_queries(queries, weights, dense)
        room = room_for(n, len(rows.latents), longest, columns)
        inverted_sums(arrays, lookup, columns, 0, n, room, sums)
    else:
        lookup, by_row = row_queries(queries, weights)
        norms = weighted_norms(rows, weights)
        forward_sums(arrays, lookup, by_row, norms, 0, n, row_room_for(longest, by_row), sums)
    return sums[:, :n].T


def exact_sums(
    candidates: Sequence[Vector], exemplars: Sequence[Vector], weight: int, multiplier: int
) -> list[list[int]]:
    return [
        [sum(min(multiplier * weight * a.get(c, 0), weight * e[c]) for c in e) for e in exemplars]
        for a in candidates
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_both_kernels_give_exact_sums_whatever_is_dense(data: st.DataObject) -> None:
    latents = data.draw(some_latents)
    candidates = data.draw(st.lists(st.dictionaries(latents, values), min_size=1, max_size=36))
    exemplars = data.draw(
        st.lists(st.dictionaries(latents, values, min_size=1), min_size=1, max_size=5)
    )
    weight = data.draw(st.sampled_from([1, 1_024, 20_000, 65_537]))
    multiplier = data.draw(st.sampled_from([1, 1, 3, 40_000]))
    rows, weights = from_lists(candidates, WIDE), np.full(WIDE, weight)
    dense = np.zeros(WIDE, bool)
    dense[data.draw(st.lists(latents))] = True
    queries = exemplar_queries(from_lists(exemplars, WIDE), weights, "max").entries
    queries = queries._replace(multipliers=queries.multipliers * multiplier)
    expected = exact_sums(candidates, exemplars, weight, multiplier)
    for method in METHODS:
        if method == "forward" or fits_narrow(queries):
            assert sums_of(method, rows, queries, weights, dense).tolist() == expected


@pytest.mark.parametrize("reduction", ["max", "prototype"])
def test_both_kernels_agree_over_many_chunks_lines_and_lists(reduction: ExemplarReduction) -> None:
    n_latents = 3 * CHUNK
    rows, exemplars = random_rows(70, n_latents, 0.6, 1), random_rows(75, n_latents, 0.3, 2)
    weights = np.random.default_rng(3).integers(0, 300_000, n_latents)
    queries = exemplar_queries(exemplars, weights, reduction).target.entries
    amounts = to_dense(rows) * weights
    limits = to_dense(exemplars) * weights
    if reduction == "prototype":
        amounts, limits = amounts * len(exemplars), limits.sum(axis=0, keepdims=True)
    expected = np.stack([np.minimum(amounts, limit).sum(axis=1) for limit in limits], axis=1)
    assert expected.max() > 1 << 32
    for share in (0.0, 0.2, 1.0):
        dense = np.random.default_rng(4).random(n_latents) < share
        for method in METHODS:
            found = sums_of(method, rows, queries, weights, dense)
            np.testing.assert_array_equal(found, expected)


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
    for method in METHODS:
        for threads, block_rows in [(1, None), (2, 33), (3, 7)]:
            together = Scorer(weights, [target.target for target in targets])
            found = together.scores(
                rows, norms=norms, threads=threads, block_rows=block_rows, method=method
            )
            np.testing.assert_array_equal(found, alone)
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


def test_both_kernels_are_tried_and_whichever_wins_the_bits_are_the_same() -> None:
    rows, exemplars = random_rows(900, 200, 0.1, 1), random_rows(9, 200, 0.1, 2)
    queries = exemplar_queries(exemplars, np.ones(200, np.int64), "mean")
    expected = score(rows, queries, method="forward")
    np.testing.assert_array_equal(score(rows, queries, block_rows=128), expected)
    seconds = queries.scorer._trials.seconds
    assert len(seconds["inverted"]) >= 1
    assert len(seconds["forward"]) >= 3
    for method in METHODS:
        seconds[method][:] = [0.0] * 3
        assert queries.scorer._trials.faster() == ("inverted" if method == "inverted" else None)
        other: Method = "forward" if method == "inverted" else "inverted"
        seconds[other][:] = [1.0] * 3
        assert queries.scorer._trials.faster() == method
        np.testing.assert_array_equal(score(rows, queries, block_rows=64), expected)
        seconds["inverted"][:], seconds["forward"][:] = [], []
    assert Trials().faster() is None


def test_used_queries_travel_to_another_process() -> None:
    rows, exemplars = random_rows(50, 200, 0.1, 1), random_rows(9, 200, 0.1, 2)
    queries = exemplar_queries(exemplars, np.ones(200, np.int64), "mean")
    expected = score(rows, queries)
    again = pickle.loads(pickle.dumps(queries))
    np.testing.assert_array_equal(score(rows, again), expected)


def test_a_plan_is_made_anew_when_many_more_rows_come() -> None:
    rows, exemplars = random_rows(600, 200, 0.1, 1), random_rows(9, 200, 0.1, 2)
    queries = exemplar_queries(exemplars, np.ones(200, np.int64), "max")
    first = score(take(rows, np.arange(3)), queries)
    assert queries.scorer._plan is not None
    assert queries.scorer._plan.n_sampled == 3
    whole = score(rows, queries)
    assert queries.scorer._plan.n_sampled == 256
    np.testing.assert_array_equal(whole[:3], first)


def test_blocks_suit_postings_sums_and_threads() -> None:
    rows, exemplars = random_rows(600, 2_000, 0.02, 1), random_rows(9, 2_000, 0.02, 2)
    entries = exemplar_queries(exemplars, np.ones(2_000, np.int64), "max").entries
    plan = make_plan(entries, np.ones(2_000, np.int64), rows)
    assert 0 < plan.queries.n_dense < plan.queries.n_columns
    listed = plan.queries.n_columns - plan.queries.n_dense
    assert 0 < plan.postings_per_row < listed / 40
    assert rows_per_block(1 << 20, 9, plan, threads=1) == 4096
    assert rows_per_block(1_000, 9, plan, threads=2) == 128
    assert rows_per_block(1 << 20, 1 << 13, plan, threads=1) == 128
    assert rows_per_block(1, 1 << 21, None, threads=1) == LANES


def test_more_rows_than_a_posting_can_name_are_not_one_block() -> None:
    n = (1 << 16) + 50
    latents = np.arange(n, dtype=np.int32) % 97
    rows = SparseRows(np.arange(n + 1), latents, np.ones(n, np.uint16), 97)
    exemplar = from_lists([{c: c + 1 for c in range(9)}], 97)
    queries = exemplar_queries(exemplar, np.ones(97, np.int64), "max")
    found = score(rows, queries, block_rows=1 << 20, method="inverted")
    np.testing.assert_array_equal(found, np.where(latents < 9, 1 / 45, 0.0))


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
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert found == expected
