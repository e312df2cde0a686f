import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.explain import EXPLANATION_SCHEMA, REST, explain_pairs
from tests.oracles import generalized_jaccard
from tests.sparse_cases import N_LATENTS, Vector, full_vectors, sparse_rows, vectors, weight_lists


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
