"""Weights of each target's own, from scores to explanations and held-out exemplars."""

from fractions import Fraction
from math import floor

import numpy as np
import polars as pl
import pytest

from selection.core.sparse import concatenate, take
from selection.evaluation.held_out import folds_of, share_above
from selection.evaluation.label_free import check_held_out
from selection.records import SparseRows
from selection.similarity.explain import exemplar_parts, explain_pairs
from selection.similarity.queries import ExemplarReduction
from selection.similarity.ranking_input import RankingInput, ranking_input
from selection.similarity.sources import MemoryVectors, PoolSpaces
from selection.similarity.spaces import SpaceRule, join_for_targets
from selection.similarity.weights import document_frequencies, latent_weights
from tests.oracles import generalized_jaccard, mean_of_fixed_points, prototype_jaccard
from tests.planted_duplicates import planted

N, M = 80, 6
MADE = planted(N, 20, M)
OTHERS = take(MADE.pool, np.flatnonzero(~MADE.is_relevant)[:4])  # exemplars of another target
TARGETS = {"t": MADE.exemplars, "other": OTHERS}
Row = dict[int, int]


def dicts(rows: SparseRows) -> list[Row]:
    parts = [slice(a, b) for a, b in zip(rows.indptr, rows.indptr[1:], strict=False)]
    return [
        dict(zip(rows.latents[p].tolist(), rows.values[p].tolist(), strict=True)) for p in parts
    ]


POOL = dicts(MADE.pool)


def slow_weights(exemplars: list[Row]) -> Row:
    """Shares as fractions, rounded half up."""
    weights = {}
    for latent in {latent for row in exemplars for latent in row}:
        mine = Fraction(sum(latent in row for row in exemplars), len(exemplars))
        gap = mine - Fraction(sum(latent in row for row in POOL), len(POOL))
        weights[latent] = max(0, floor(1024 * gap + Fraction(1, 2)))
    return weights


def slow_score(reduction: str, row: Row, exemplars: list[Row], weights: Row) -> float:
    if reduction == "prototype":
        return float(prototype_jaccard(row, exemplars, weights))
    pairs = [float(generalized_jaccard(row, each, weights)) for each in exemplars]
    return mean_of_fixed_points(pairs) if reduction == "mean" else max(pairs)


def made_input(kind: str = "target_unique") -> RankingInput:
    vectors = PoolSpaces(("made",), (MemoryVectors(MADE.pool),))
    counts, _ = document_frequencies(vectors)
    spaces, join = join_for_targets([SpaceRule("made", kind)], counts)  # type: ignore[arg-type]
    ids = {name: np.array([f"{name}-{i}" for i in range(len(r))]) for name, r in TARGETS.items()}
    parts = {name: [rows] for name, rows in TARGETS.items()}
    return ranking_input(vectors, spaces, counts, ids, parts, join=join)


@pytest.mark.parametrize("reduction", ["mean", "max", "prototype"])
def test_every_target_is_scored_with_its_own_weights_exactly(reduction: ExemplarReduction) -> None:
    ranking = made_input()
    scores = ranking.scorer(reduction).with_threads(2).scores(ranking.vectors)
    for target, rows in TARGETS.items():
        exemplars = dicts(rows)
        weights = slow_weights(exemplars)
        expected = [slow_score(reduction, row, exemplars, weights) for row in POOL]
        assert scores[target].tolist() == expected
    assert ranking.of("t").spaces.sha256() != ranking.of("other").spaces.sha256()


def test_turns_are_taken_with_a_target_s_own_weights() -> None:
    ranking = made_input()
    scores = ranking.scorer("round_robin").scores(ranking.vectors)["other"]
    weights, exemplars = slow_weights(dicts(OTHERS)), dicts(OTHERS)
    expected = [[float(generalized_jaccard(r, e, weights)) for e in exemplars] for r in POOL]
    assert scores.tolist() == expected


def test_weights_that_targets_share_stay_one_pass() -> None:
    ranking = made_input("idf")
    assert ranking.join is None
    assert ranking.of("t") is ranking
    assert not ranking.scorer("mean").apart


def test_a_latent_of_every_sample_weighs_nothing_and_of_no_other_sample_the_whole() -> None:
    latents = np.array([0, 1], np.int32)
    one = SparseRows(np.array([0, 2], np.int64), latents, np.array([5, 5], np.uint16), 3)
    both = concatenate([one, one])
    counts = np.array([10, 0, 0])
    assert latent_weights("target_unique", counts, 10, exemplars=both).tolist() == [0, 1024, 0]
    with pytest.raises(ValueError, match="3 latents"):
        latent_weights("target_unique", counts[:2], 10, exemplars=both)


def test_an_explanation_adds_up_with_the_weights_of_its_target() -> None:
    ranking = made_input()
    own = ranking.of("t")
    picked = np.argsort(-ranking.scorer("mean").scores(ranking.vectors)["t"])[:3]
    rows, exemplars, weights = own.joined(picked), own.exemplars["t"].rows, own.spaces.weights
    why = pl.DataFrame(explain_pairs(rows, exemplars, weights, top=5, pool_shares=own.shares))
    sums = why.group_by("candidate").agg(pl.sum("contribution"), pl.first("numerator"))
    assert sums["contribution"].equals(sums["numerator"], check_names=False)
    parts = pl.DataFrame(exemplar_parts(rows, exemplars, weights, 2))
    whole = parts.group_by("candidate", maintain_order=True).agg(pl.sum("part"), pl.sum("n"))
    scores = whole["part"] / (whole["n"] * 2**40)
    mine = slow_weights(dicts(MADE.exemplars))
    expected = [slow_score("mean", POOL[i], dicts(MADE.exemplars), mine) for i in picked]
    assert scores.to_list() == expected


@pytest.mark.parametrize("reduction", ["mean", "round_robin", "prototype"])
def test_a_held_out_exemplar_has_no_say_in_the_weights(reduction: ExemplarReduction) -> None:
    ranking, ids = made_input(), np.array([f"{i:032d}" for i in range(N)], "S32")
    texts = {name: ["a"] * len(rows) for name, rows in TARGETS.items()}
    found = check_held_out(
        ranking, reduction, np.arange(N), ids, lambda rows: ["a"] * len(rows), texts, n_folds=3
    )
    for target, rows in TARGETS.items():
        exemplars = dicts(rows)
        folds = folds_of(ranking.exemplars[target].ids.tolist(), 3, 0)
        for i, fold in enumerate(folds):
            rest = [each for each, own in zip(exemplars, folds, strict=True) if own != fold]
            weights = slow_weights(rest)
            samples = [slow_score(reduction, row, rest, weights) for row in POOL]
            own = slow_score(reduction, exemplars[i], rest, weights)
            above = share_above(np.array(samples), own, np.zeros(N, np.bool_))
            assert found[target]["jaccard"].shares_above[i] == above
