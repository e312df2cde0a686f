from collections.abc import Iterable

import bm25s
import numpy as np
import pytest
from numpy.typing import NDArray

from selection.core.words import search_words, word_spans, words
from selection.evaluation.bm25 import bm25_of_sets
from selection.picking.controls import random_scores
from tests.oracles import bm25_lucene

TEXTS = [
    "The cat sat on the mat.",
    "A dog, and another dog; dogs!",
    "",
    "Le café est fermé. The café.",
    "x = foo_bar(cat, 3)",
    "東京タワーの天気 cat",
]
EXEMPLARS = ["the cat the dog", "café foo", "nothing shared qqq"]


def many_texts(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(f"w{w}" for w in rng.zipf(1.5, rng.integers(1, 40)) % 300) for _ in range(n)]


def bm25(texts: Iterable[str], exemplars: list[str], **more: float) -> NDArray[np.float64]:
    """(n,) mean over the exemplars."""
    return bm25_of_sets(texts, exemplars, [np.arange(len(exemplars))], **more)[0][:, 0]


def test_bm25_is_the_lucene_formula() -> None:
    found = bm25(TEXTS, EXEMPLARS, k1=1.2, b=0.6)
    tokens = [search_words(text) for text in TEXTS]
    by_exemplar = [bm25_lucene(tokens, search_words(e), k1=1.2, b=0.6) for e in EXEMPLARS]
    np.testing.assert_allclose(found, np.mean(by_exemplar, axis=0), rtol=1e-12, atol=1e-12)


def test_bm25_agrees_with_bm25s_over_several_batches() -> None:
    texts, exemplars = many_texts(9_000), many_texts(9_007)[9_000:]
    peer = bm25s.BM25(method="lucene", k1=1.5, b=0.75, dtype="float64")
    peer.index([search_words(text) for text in texts], show_progress=False)
    theirs = np.array([peer.get_scores(search_words(exemplar)) for exemplar in exemplars])
    np.testing.assert_allclose(bm25(iter(texts), exemplars), theirs.mean(axis=0), rtol=1e-9)
    one_by_one, _ = bm25_of_sets(iter(texts), exemplars, np.split(np.arange(len(exemplars)), 7))
    np.testing.assert_allclose(one_by_one.T, theirs, rtol=1e-9)


def test_words_of_a_search_are_those_that_bm25s_takes_by_default() -> None:
    texts = [
        "It was the best of times: a 7 x 42, not I!",
        "THE END",
        "if y then z, as such",
        "né à 7",
    ]
    theirs = bm25s.tokenize(texts, return_ids=False, show_progress=False)
    assert [search_words(text) for text in texts[:3]] == theirs[:3]
    assert search_words(texts[0]) == ["best", "times", "42"]
    assert search_words(texts[3]) == ["né", "à"]  # One letter of another script may be a word.


def test_bm25_without_texts_words_or_matches_gives_zeros() -> None:
    assert bm25([], EXEMPLARS).shape == (0,)
    assert bm25(["", "..."], EXEMPLARS).tolist() == [0.0, 0.0]
    assert bm25(TEXTS, ["?!"]).tolist() == [0.0] * len(TEXTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP, foo_bar2", ["don", "t", "stop", "foo", "bar2"]),
        ("Straße \uff21\uff22", ["strasse", "ab"]),  # Full-width letters.
        ("X", ["x"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("猫 cat猫犬", ["猫", "cat", "猫犬"]),
        ("สวัสดี", ["สว", "วั", "ัส", "สด", "ดี"]),
        ("привет мир", ["привет", "мир"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("…—!", []),
    ],
)
def test_words_of_any_language(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_random_scores_belong_to_the_example_not_to_its_place() -> None:
    ids = [f"{i:032x}" for i in range(2_000)]
    scores = random_scores(ids, seed=7)
    assert random_scores(ids[::-1], seed=7).tolist() == scores[::-1].tolist()
    assert random_scores(ids[5:9], seed=7).tolist() == scores[5:9].tolist()
    assert (random_scores(ids, seed=8) != scores).all()


def test_random_scores_are_uniform() -> None:
    scores = random_scores((f"{i:032x}" for i in range(20_000)), seed=0)
    assert scores.min() >= 0
    assert scores.max() < 1
    counts, _ = np.histogram(scores, bins=10, range=(0, 1))
    assert abs(counts - 2_000).max() < 200  # Standard deviation 42.
    assert len(set(scores)) == 20_000


def test_no_ids_give_no_random_scores() -> None:
    assert random_scores([], seed=0).shape == (0,)


def test_bm25_of_sets_ranks_exemplars_by_the_statistics_of_the_texts() -> None:
    sets = [np.array([0, 2]), np.array([1])]
    of_texts, of_exemplars = bm25_of_sets(TEXTS, EXEMPLARS, sets)
    for column, chosen in enumerate(sets):
        expected = bm25(TEXTS, [EXEMPLARS[i] for i in chosen])
        np.testing.assert_allclose(of_texts[:, column], expected, rtol=1e-12)
    again, _ = bm25_of_sets(iter(TEXTS), [*EXEMPLARS, TEXTS[0]], sets)
    np.testing.assert_allclose(again, of_texts, rtol=1e-12)  # others change no statistics
    _, own = bm25_of_sets(TEXTS, [*EXEMPLARS, TEXTS[0]], sets)
    np.testing.assert_allclose(own[3], of_texts[0], rtol=1e-12)  # as if it were one of the texts
    np.testing.assert_allclose(own[:3], of_exemplars, rtol=1e-12)


@pytest.mark.parametrize(
    "text",
    ["Red cats, 2 dogs.", "Été à Köln: ça va?", "猫が好き red 犬", "ﬁne Ⅷ हिन्दी", "", "a_b-c"],
)
def test_words_have_their_places_in_the_text_as_it_is(text: str) -> None:
    found = word_spans(text)
    assert [word for _, _, word in found] == words(text)
    for first, end, word in found:
        assert words(text[first:end]) == [word]
    assert [first for first, _, _ in found] == sorted(first for first, _, _ in found)
