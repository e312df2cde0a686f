import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.core.sparse import from_lists, take, to_dense
from selection.records import SparseRows
from selection.similarity.queries import exemplar_queries, score
from selection.similarity.spaces import JoinedSpaces, Space
from selection.similarity.weights import WEIGHT_ONE, SpaceCounts, column_masses, mean_norm
from tests.oracles import (
    generalized_jaccard,
    joined_vector,
    mean_of_fixed_points,
    prototype_jaccard,
)
from tests.sparse_strategies import (
    N_LATENTS,
    Vector,
    random_rows,
    sparse_rows,
    vectors,
    weight_lists,
)

N_WORDS = 7
word_vectors = st.dictionaries(st.integers(0, N_WORDS - 1), st.integers(1, 9), max_size=N_WORDS)
word_weights = st.lists(st.integers(0, 9_000), min_size=N_WORDS, max_size=N_WORDS)
samples = st.tuples(vectors, word_vectors)


def joint_of(
    weights: list[list[int]],
    factors: list[int],
    normalize: bool,
    lengths: tuple[int, ...] = (0, 0, 0),
) -> JoinedSpaces:
    names = ["resid@2", "words", "tokens"]
    spaces = [
        Space(name, np.array(weight, np.int64), factor, mean_norm=length)
        for name, weight, factor, length in zip(names, weights, factors, lengths, strict=False)
    ]
    return JoinedSpaces(spaces, normalize=normalize)


def rows_of(joint: JoinedSpaces, found: list[tuple[Vector, Vector]]) -> SparseRows:
    latents, words = [a for a, _ in found], [b for _, b in found]
    return joint.rows([sparse_rows(latents), from_lists(words, N_WORDS)])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(samples, min_size=1, max_size=4),
    st.lists(samples, min_size=1, max_size=4),
    weight_lists,
    word_weights,
    st.tuples(st.integers(1, 31), st.integers(1, 32)) | st.tuples(*[st.integers(1, 1000)] * 2),
    st.booleans(),
    st.none() | st.tuples(*[st.integers(1, 10) | st.integers(1, 10**9)] * 2),
)
def test_one_jaccard_over_all_spaces_equals_the_exact_fraction(
    candidates: list[tuple[Vector, Vector]],
    exemplars: list[tuple[Vector, Vector]],
    latent_weight: list[int],
    word_weight: list[int],
    factors: tuple[int, int],
    normalize: bool,
    lengths: tuple[int, int] | None,
) -> None:
    columns = [[min(w, (1 << 22) - 1) for w in latent_weight], word_weight]
    if not normalize or sum(factors) >= 64:
        lengths = None
    joint = joint_of(columns, list(factors), normalize, lengths or (0, 0))
    average = None if lengths is None else list(lengths)

    def whole(sample: tuple[Vector, Vector]) -> Vector:
        return joined_vector(list(sample), columns, list(factors), normalize, average)

    known = [e for e in exemplars if whole(e)]
    if not known:
        return
    rows, queries = rows_of(joint, candidates), rows_of(joint, known)
    found = {
        reduction: score(rows, exemplar_queries(queries, joint.weights, reduction))
        for reduction in ("max", "mean", "prototype")
    }
    for i, candidate in enumerate(map(whole, candidates)):
        pairs = [float(generalized_jaccard(candidate, whole(e))) for e in known]
        assert found["max"][i] == max(pairs)
        assert found["mean"][i] == mean_of_fixed_points(pairs)
        assert found["prototype"][i] == float(prototype_jaccard(candidate, [*map(whole, known)]))


def three_spaces(n: int, seed: int, normalize: bool) -> tuple[JoinedSpaces, SparseRows]:
    rng = np.random.default_rng(seed)
    widths, factors = (80, 300, 20), (3, 1, 7)
    spaces = [
        Space(f"s{i}", rng.integers(0, 5_000, width), factor)
        for i, (width, factor) in enumerate(zip(widths, factors, strict=True))
    ]
    joint = JoinedSpaces(spaces, normalize=normalize)
    parts = [random_rows(n, width, 0.1, seed + i) for i, width in enumerate(widths)]
    return joint, joint.rows(parts)


@pytest.mark.parametrize("normalize", [False, True])
def test_splits_threads_and_blocks_do_not_change_a_bit(normalize: bool) -> None:
    joint, rows = three_spaces(200, 5, normalize)
    queries = exemplar_queries(take(rows, np.arange(9)), joint.weights, "mean")
    expected = score(rows, queries)
    for threads, block_rows in [(1, 1), (2, 7), (4, 64)]:
        found = score(rows, queries, threads=threads, block_rows=block_rows)
        np.testing.assert_array_equal(found, expected)
    parts = [take(rows, np.arange(*ends)) for ends in [(0, 33), (33, 200)]]
    found = np.concatenate([score(part, queries) for part in parts])
    np.testing.assert_array_equal(found, expected)


def test_rows_joined_in_parts_are_the_rows_joined_at_once() -> None:
    latents, words = random_rows(40, N_LATENTS, 0.2, 1), random_rows(40, N_WORDS, 0.4, 2)
    ones = [[WEIGHT_ONE] * N_LATENTS, [WEIGHT_ONE] * N_WORDS]
    joint = joint_of(ones, [2, 3], normalize=True)
    whole = to_dense(joint.rows([latents, words]))
    for i in range(40):
        one = joint.rows([take(part, np.array([i])) for part in (latents, words)])
        np.testing.assert_array_equal(to_dense(one)[0], whole[i])


def test_each_space_of_a_normalized_vector_has_its_own_length() -> None:
    joint, rows = three_spaces(60, 8, normalize=True)
    dense = to_dense(rows).astype(np.int64)
    for first, last, space in zip(joint.offsets, joint.offsets[1:], joint.spaces, strict=False):
        part = dense[:, first:last]
        whole = part.sum(axis=1)
        entries = (part > 0).sum(axis=1)
        full = whole[whole > 0]
        assert (full <= space.weight << 20).all()
        assert (full > (space.weight << 20) - space.weight * last).all()
        assert (entries[whole > 0] > 0).all()


def test_a_heavier_text_of_the_same_kind_is_the_same_once_normalized() -> None:
    joint = joint_of([[3] * N_LATENTS, [2] * N_WORDS], [1, 1], normalize=True)
    rows = rows_of(joint, [({1: 4, 5: 12}, {2: 1}), ({1: 40, 5: 120}, {2: 9}), ({9: 1}, {3: 1})])
    scores = score(rows, exemplar_queries(take(rows, np.array([0])), joint.weights, "max"))
    assert scores.tolist() == [1.0, 1.0, 0.0]


def test_by_the_average_length_a_longer_vector_stays_longer_up_to_a_limit() -> None:
    weights = np.full(N_LATENTS, 3, np.int64)
    rows = sparse_rows([{1: 10, 4: 30}, {1: 20, 4: 60}, {1: 60_000, 4: 60_000}])
    length = mean_norm(
        weights, SpaceCounts(np.zeros(0, np.int64), 4, column_masses(rows, np.array([3, 1, 0])))
    )
    assert length == 3 * (3 * 40 + 80) // 4 == 150
    joint = JoinedSpaces([Space("resid@2", weights, mean_norm=length)], normalize=True)
    short, double, huge = (take(joint.rows([rows]), np.array([i])).values for i in range(3))
    assert short.tolist() == [3 * 10 * 2**18 // 150, 3 * 30 * 2**18 // 150]
    assert np.abs(double.astype(np.int64) - 2 * short.astype(np.int64)).max() <= 1
    assert 0.999 * 2**26 < huge.sum() <= 2**26


def test_masses_are_sums_of_values() -> None:
    rows, times = random_rows(40, N_LATENTS, 0.3, seed=3), np.arange(40) % 3
    dense = to_dense(rows).astype(np.int64)
    slow = [sum(int(times[i]) * int(v) for i, v in enumerate(column)) for column in dense.T]
    assert column_masses(rows, times).tolist() == slow


def test_a_single_space_that_is_not_normalized_is_left_as_it_is() -> None:
    rows = random_rows(10, N_LATENTS, 0.3, 3)
    weights = np.arange(N_LATENTS)
    joint = JoinedSpaces([Space("resid@2", weights)], normalize=False)
    np.testing.assert_array_equal(to_dense(joint.rows([rows])), to_dense(rows))
    np.testing.assert_array_equal(joint.weights, weights)


def test_columns_are_found_again_in_their_space() -> None:
    joint, _ = three_spaces(2, 1, normalize=False)
    spaces, columns = joint.locate(np.array([0, 79, 80, 379, 380, 399]))
    assert spaces.tolist() == [0, 0, 1, 1, 2, 2]
    assert columns.tolist() == [0, 79, 0, 299, 0, 19]


def test_what_does_not_fit_is_refused() -> None:
    ones = np.ones(N_LATENTS, np.int64)
    for weight in (0, 1001):
        with pytest.raises(ValueError, match="weight of a is"):
            JoinedSpaces([Space("a", ones, weight)], normalize=True)
    with pytest.raises(ValueError, match="add up to"):
        JoinedSpaces([Space("a", ones, 1000)] * 5, normalize=True)
    with pytest.raises(ValueError, match="add up to 64"):
        JoinedSpaces([Space("a", ones, 32, mean_norm=1)] * 2, normalize=True)
    with pytest.raises(ValueError, match="a column of a weighs"):
        JoinedSpaces([Space("a", ones << 26)], normalize=True)
    joint = JoinedSpaces([Space("a", ones)], normalize=True)
    with pytest.raises(ValueError, match="as many rows"):
        joint.rows([])
    with pytest.raises(ValueError, match="columns of a"):
        joint.rows([random_rows(2, 5, 0.5, 1)])
