import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.similarity.explain import (
    EXPLANATION_SCHEMA,
    GENERIC,
    PARTS_SCHEMA,
    REST,
    exemplar_parts,
    explain_pairs,
    typical_latents,
)
from selection.similarity.queries import exemplar_queries, score
from tests.oracles import generalized_jaccard
from tests.sparse_strategies import (
    N_LATENTS,
    Vector,
    full_vectors,
    sparse_rows,
    vectors,
    weight_lists,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(vectors, max_size=4),
    st.lists(full_vectors, min_size=1, max_size=4),
    weight_lists,
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_contributions_add_up_to_the_numerator_of_the_nearest_pairs(
    candidates: list[Vector], exemplars: list[Vector], weight: list[int], top: int, n_nearest: int
) -> None:
    table = explain_pairs(
        sparse_rows(candidates),
        sparse_rows(exemplars),
        np.array(weight),
        top=top,
        n_nearest=n_nearest,
    )
    assert table.schema == EXPLANATION_SCHEMA
    rows = table.to_pylist()
    named = dict(enumerate(weight))
    for i, candidate in enumerate(candidates):
        scores = [float(generalized_jaccard(candidate, e, named)) for e in exemplars]
        nearest = sorted(range(len(exemplars)), key=lambda j: (-scores[j], j))[:n_nearest]
        of_candidate = [row for row in rows if row["candidate"] == i]
        shown = list(dict.fromkeys(row["exemplar"] for row in of_candidate))
        assert shown == [j for j in nearest if candidate.keys() & exemplars[j].keys()]
        for j in shown:
            shared = {
                f: weight[f] * min(candidate[f], exemplars[j][f])
                for f in candidate.keys() & exemplars[j].keys()
            }
            pair = [row for row in of_candidate if row["exemplar"] == j]
            listed = [(row["latent"], row["contribution"]) for row in pair if row["latent"] != REST]
            assert listed == sorted(shared.items(), key=lambda item: (-item[1], item[0]))[:top]
            assert sum(row["contribution"] for row in pair) == sum(shared.values())
            assert len(pair) == min(len(shared), top + 1)
            for row in pair:
                assert row["numerator"] == sum(shared.values())
                assert row["share"] == row["contribution"] / row["numerator"]
                assert row["score"] == scores[j]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(vectors, min_size=1, max_size=4),
    st.lists(full_vectors, min_size=1, max_size=6),
    weight_lists,
    st.integers(1, 7),
)
def test_the_parts_of_all_exemplars_add_up_to_the_mean_score(
    candidates: list[Vector], exemplars: list[Vector], weight: list[int], n_nearest: int
) -> None:
    rows, others, weights = sparse_rows(candidates), sparse_rows(exemplars), np.array(weight)
    scores = score(rows, exemplar_queries(others, weights, "mean"))
    table = exemplar_parts(rows, others, weights, n_nearest)
    assert table.schema == PARTS_SCHEMA
    named = dict(enumerate(weight))
    for i, candidate in enumerate(candidates):
        found = [row for row in table.to_pylist() if row["candidate"] == i]
        assert sum(row["n"] for row in found) == len(exemplars)
        assert sum(row["part"] for row in found) / (len(exemplars) * 2**40) == scores[i]
        for row in found[:n_nearest]:
            assert row["similarity"] == row["numerator"] / row["denominator"]
            pair = generalized_jaccard(candidate, exemplars[row["exemplar"]], named)
            assert row["similarity"] == float(pair)
        similar = [row["similarity"] for row in found[:n_nearest]]
        assert similar == sorted(similar, reverse=True)


def test_what_the_pool_has_anyway_comes_last_and_the_generic_as_one() -> None:
    vector: Vector = {1: 10, 2: 20, 3: 30, 4: 40}
    shares = np.zeros(N_LATENTS)
    shares[[1, 2, 3, 4]] = [0.0, 0.1, 0.8, 0.9]
    weights = np.ones(N_LATENTS, np.int64)
    rows = sparse_rows([vector])
    apart = explain_pairs(rows, rows, weights, pool_shares=shares, generic_share=0.85)
    assert apart["latent"].to_pylist() == [2, 1, 3, GENERIC]  # 18, 10 and 6 beyond the pool
    assert apart["contribution"].to_pylist() == [20, 10, 30, 40]
    assert apart["pool_share"].to_pylist() == [0.1, 0.0, 0.8, None]
    folded = explain_pairs(rows, rows, weights, top=1, pool_shares=shares, generic_share=0.8)
    assert folded["latent"].to_pylist() == [2, REST, GENERIC]
    assert folded["contribution"].to_pylist() == [20, 10, 70]


def test_a_latent_of_weight_zero_explains_nothing() -> None:
    weights = np.ones(N_LATENTS, np.int64)
    weights[3] = 0
    table = explain_pairs(sparse_rows([{3: 9, 4: 2}]), sparse_rows([{3: 9, 4: 5}]), weights)
    assert table["latent"].to_pylist() == [4]
    assert table["share"].to_pylist() == [1.0]


def test_no_candidates_give_an_empty_table() -> None:
    table = explain_pairs(sparse_rows([]), sparse_rows([{1: 1}]), np.ones(N_LATENTS, np.int64))
    assert table.num_rows == 0
    assert table.schema == EXPLANATION_SCHEMA


@settings(max_examples=80, deadline=None)
@given(st.lists(full_vectors, min_size=1, max_size=4), weight_lists, st.integers(1, 6))
def test_typical_latents_equal_their_definition(
    exemplars: list[Vector], weight: list[int], top: int
) -> None:
    shares = np.arange(N_LATENTS) / (2 * N_LATENTS)
    found = typical_latents(sparse_rows(exemplars), np.array(weight), shares, top)
    means, counts = dict.fromkeys(range(N_LATENTS), 0.0), dict.fromkeys(range(N_LATENTS), 0)
    for exemplar in exemplars:
        length = sum(weight[f] * a for f, a in exemplar.items())
        for f, a in exemplar.items():
            means[f] += weight[f] * a / length / len(exemplars) if length else 0
            counts[f] += weight[f] * a > 0
    worth = {f: means[f] * (1 - shares[f]) for f in means if means[f]}
    assert len(found[0]) == min(top, len(worth))
    assert np.allclose(found[1], [means[f] for f in found[0].tolist()])
    assert found[2].tolist() == [counts[f] for f in found[0].tolist()]
    listed = [worth[f] for f in found[0].tolist()]
    assert np.allclose(listed, sorted(worth.values(), reverse=True)[: len(listed)])
